/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* One mask word, loaded once a packet, that says which optional stages have work to do: one that has none costs nothing.
 * Extension points get a bit each, from SWITCH_POINTS on. Bytes 1 and 2 are user
 * space's: it stores them whole, since an atomic operation of a program on byte 0 may run beside.
 */
#pragma once

#include "packet.h"

#define SWITCH_SERVICES (1U << 0) /* set by user space: there are services */
#define SWITCH_SPLIT (1U << 1)    /* set by programs: conntrack has entries of one leg */
#define SWITCH_MAPPED (1U << 2)   /* set by programs: conntrack has translated flows */
#define SWITCH_POINTS 8
#define SWITCH_CARRY (1U << 16)   /* set by user space: conntrack_old has flows */

/* Slot 0 is the mask word. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} switches SEC(".maps");

static __always_inline __u32 switches_load(void)
{
	__u32 zero = 0;
	__u32 *mask = bpf_map_lookup_elem(&switches, &zero);

	return mask ? READ_ONCE(*mask) : 0;
}

static __always_inline void switch_on(struct packet *packet, __u32 bit)
{
	__u32 zero = 0;
	__u32 *mask;

	if (packet->switches & bit)
		return;
	mask = bpf_map_lookup_elem(&switches, &zero);
	if (mask)
		__sync_fetch_and_or(mask, bit);
	packet->switches |= bit;
}

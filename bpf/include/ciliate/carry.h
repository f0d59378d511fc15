/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Flows of an earlier program set whose conntrack map had another layout: on a miss they are looked for in that map and
 * carried over. While the old set is being replaced, hook by hook, both run: so nothing is taken out of the old map. User space
 * carries the rest over when all hooks have the new set, and lets go of the old map.
 *
 * Between sets whose entries are laid out differently: make a copy of the former struct with a name of its own, let
 * conntrack_entry_old mean it (and CONNTRACK_ENTRY_OLD in core/ciliate/model/conntrack.py), and convert below. The loader gives
 * this map the old one only if its key and value are what is declared here; otherwise flows begin anew.
 */
#pragma once

#include "flow_limit.h"
#include "switches.h"

#define conntrack_entry_old conntrack_entry

/* What the map conntrack gave way to. Empty at all other times. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct conntrack_key);
	__type(value, struct conntrack_entry_old);
	__uint(max_entries, 1);
} conntrack_old SEC(".maps");

static __always_inline void conntrack_convert(struct conntrack_entry *entry, const struct conntrack_entry_old *old)
{
	*entry = *old;
}

static __noinline struct conntrack_entry *conntrack_carried(struct packet *packet)
{
	struct conntrack_entry_old *old = bpf_map_lookup_elem(&conntrack_old, &packet->key);

	if (!old)
		return NULL;
	conntrack_convert(&packet->fresh, old);
	if (!bpf_map_update_elem(&conntrack, &packet->key, &packet->fresh, BPF_NOEXIST))
		flow_count(flows_of_entry(&packet->fresh), 1);
	return bpf_map_lookup_elem(&conntrack, &packet->key);
}

/* The entry of packet->key in the main table, carried over if it has to be. */
static __always_inline struct conntrack_entry *conntrack_find(struct packet *packet)
{
	struct conntrack_entry *entry = bpf_map_lookup_elem(&conntrack, &packet->key);

	if (unlikely(!entry && packet->switches & SWITCH_CARRY))
		return conntrack_carried(packet);
	return entry;
}

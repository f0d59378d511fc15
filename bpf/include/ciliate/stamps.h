/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Stamps: counters by which a verdict that was stored is known to be the present one.
 *
 * User space writes every map entry of a change first, then bumps. A program that judges loads the counters before the
 * lookups they vouch for (load_order() between them): whatever it then reads is at least as new as the stamp it stores, so a
 * change that it missed has a bump that it missed too, and the next packet is judged anew.
 */
#pragma once

#include "packet.h"

/* Endpoint id to the counter that is bumped when a verdict of its own policy changes; that of 0 stays 0. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, ENDPOINTS_MAX);
} endpoint_stamps SEC(".maps");

/* Hash of a peer's address to the counter that is bumped when its identity changes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, PEER_STAMPS);
} peer_stamps SEC(".maps");

/* No load after it is done before a load that comes first in the program. An atomic operation that returns a value orders
 * everything, on every architecture; the volatile loads alone do so only on x86.
 */
static __always_inline void load_order(__u32 *mine)
{
	__u32 before = __sync_fetch_and_add(mine, 0);

	asm volatile("" : : "r"(before)); /* unused, it would become an operation that returns nothing and orders nothing */
}

/* The twin of peer_slot in core/ciliate/model/endpoint.py. */
static __always_inline __u32 peer_slot(const union address *address)
{
	__u64 halves = address->halves[0] ^ address->halves[1];
	__u32 mixed = halves ^ halves >> 32;

	return (mixed * 0x9E3779B1U) >> 16;
}

static __always_inline __u32 peer_stamp(const union address *address)
{
	__u32 slot = peer_slot(address);
	__u32 *stamp = bpf_map_lookup_elem(&peer_stamps, &slot);

	return stamp ? READ_ONCE(*stamp) : 0;
}

static __always_inline __u32 endpoint_stamp(__u32 id)
{
	__u32 *stamp = bpf_map_lookup_elem(&endpoint_stamps, &id);

	return stamp ? READ_ONCE(*stamp) : 0;
}

/* The four counters of two ends. It is symmetric: either direction can test it. */
static __always_inline __u32 stamp_of(const union address *a, const union address *b, __u32 endpoint_a, __u32 endpoint_b)
{
	return peer_stamp(a) + peer_stamp(b) + endpoint_stamp(endpoint_a) + endpoint_stamp(endpoint_b);
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Endpoints of this node: by id, and by address. User space writes, programs read. */
#pragma once

#include "packet.h"

/* Endpoint id to endpoint. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct endpoint_entry);
	__uint(max_entries, ENDPOINTS_MAX);
} endpoints SEC(".maps");

/* Address of a local endpoint to its id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint_ip_key);
	__type(value, __u32);
	__uint(max_entries, 2 * ENDPOINTS_MAX);
} endpoint_ips SEC(".maps");

/* Endpoint id to identity and policy ids. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct endpoint_policy_entry);
	__uint(max_entries, ENDPOINTS_MAX);
} endpoint_policy SEC(".maps");

static __always_inline struct endpoint_entry *endpoint_by_id(__u32 id)
{
	struct endpoint_entry *entry = bpf_map_lookup_elem(&endpoints, &id);

	return entry && (entry->flags & ENDPOINT_VALID) ? entry : NULL;
}

/* 0: the address is not a local endpoint's. */
static __always_inline __u32 endpoint_by_address(const union address *address)
{
	__u32 *id = bpf_map_lookup_elem(&endpoint_ips, address);

	return id ? *id : 0;
}

/* Whether an id that was noted still means the same endpoint; 0, "not local", always does. */
static __always_inline int endpoint_is_current(__u32 id, __u32 generation)
{
	struct endpoint_entry *entry;

	if (!id)
		return 1;
	entry = endpoint_by_id(id);
	return entry && entry->generation == generation;
}

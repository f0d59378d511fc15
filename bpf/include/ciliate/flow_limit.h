/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* How many answered flows an endpoint has, and may have: so that no pod takes all the room of the main table, as it could by
 * SYNs that are answered. Only a flow's first packets ask; a packet of an established flow never does.
 */
#pragma once

#include "conntrack.h"

/* Endpoint id to its flows and their limit. Programs count, user space stores limits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct endpoint_flows_entry);
	__uint(max_entries, ENDPOINTS_MAX);
} endpoint_flows SEC(".maps");

/* A flow counts for the endpoint that began it; else, for the one that it reaches. */
static __always_inline struct endpoint_flows_entry *flows_of(__u32 origin, __u32 target)
{
	__u32 id = origin ? origin : target;

	return bpf_map_lookup_elem(&endpoint_flows, &id);
}

static __always_inline struct endpoint_flows_entry *flows_of_entry(const struct conntrack_entry *entry)
{
	__u8 origin = entry->origin & 1;

	return flows_of(entry->endpoint[origin], entry->endpoint[!origin]);
}

static __always_inline struct endpoint_flows_entry *flows_of_verdict(const struct verdict *verdict)
{
	return flows_of(verdict->endpoint[SOURCE], verdict->endpoint[DESTINATION]);
}

/* Several CPUs may find room for the last one at the same time; then there is one more for each. */
static __always_inline int flow_is_too_many(const struct endpoint_flows_entry *flows)
{
	__u32 limit = flows ? READ_ONCE(flows->limit) : 0;

	return limit && READ_ONCE(flows->flows) >= (__s32)limit;
}

static __always_inline void flow_count(struct endpoint_flows_entry *flows, __s32 change)
{
	if (likely(flows))
		__sync_fetch_and_add(&flows->flows, change);
}

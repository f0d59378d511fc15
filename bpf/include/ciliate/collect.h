/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Removal of flows that are over.
 *
 * User space reads the tables in batches and names, in `collect_keys`, those that look over, or of an endpoint that is gone;
 * this looks again, as a packet may have come meanwhile, and removes them. So no call is longer than COLLECT_MAX lookups and deletions, whatever the tables' sizes.
 */
#pragma once

#include "service.h"

/* Slot to a key that user space takes for over. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct conntrack_key);
	__uint(max_entries, COLLECT_MAX);
} collect_keys SEC(".maps");

/* An entry of an endpoint that is gone is nobody's, whoever may have its id now. */
static __always_inline int collect_is_due(const struct conntrack_entry *entry, __u8 protocol, __u64 now)
{
	return conntrack_is_over(entry, protocol, now) ||
	       !endpoint_is_current(entry->endpoint[0], entry->generation[0]) ||
	       !endpoint_is_current(entry->endpoint[1], entry->generation[1]);
}

static __always_inline int collect_flow(void *table, struct conntrack_key *key, __u64 now)
{
	struct conntrack_entry *entry = bpf_map_lookup_elem(table, key);
	struct endpoint_flows_entry *flows;

	if (!entry || !collect_is_due(entry, key->protocol, now))
		return 0;
	flows = flows_of_entry(entry); /* before its memory is another entry's */
	if (bpf_map_delete_elem(table, key))
		return 0;
	if (table == &conntrack)
		flow_count(flows, -1);
	return 1;
}

static __always_inline int collect_service_flow(struct conntrack_key *key, __u64 now)
{
	struct service_flow_entry *flow = bpf_map_lookup_elem(&service_flows, key);

	return flow && now - flow->seen > conntrack_timeout(key->protocol, STATE_ESTABLISHED) &&
	       !bpf_map_delete_elem(&service_flows, key);
}

static long collect_one(__u32 index, struct collect_context *collect)
{
	struct conntrack_key *key = bpf_map_lookup_elem(&collect_keys, &index);
	int deleted;

	if (!key)
		return 1;
	if (collect->table == COLLECT_MAIN)
		deleted = collect_flow(&conntrack, key, collect->now);
	else if (collect->table == COLLECT_NEW)
		deleted = collect_flow(&conntrack_new, key, collect->now);
	else
		deleted = collect_service_flow(key, collect->now);
	if (deleted)
		collect->deleted++;
	else
		collect->kept++;
	return 0;
}

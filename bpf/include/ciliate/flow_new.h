/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Flows that conntrack doesn't know: judged, and remembered as far as need be. */
#pragma once

#include "flow_judge.h"
#include "flow_limit.h"

/* Whether the tuple crosses the node a second time. */
static __always_inline int flow_is_split(const struct packet *packet)
{
	return proxy_port_of(packet->verdict.word) || packet->verdict.source_local || packet->path >= PATH_INGRESS_PROXY;
}

static __always_inline void flow_fill_entry(struct packet *packet, int reversed)
{
	struct conntrack_entry *entry = &packet->fresh;
	const struct verdict *verdict = &packet->verdict;
	__u8 origin = (reversed ? !packet->side : packet->side) & 1;
	__u64 now = bpf_jiffies64();

	__builtin_memset(entry, 0, sizeof(*entry));
	entry->word = verdict->word;
	entry->endpoint[origin] = verdict->endpoint[SOURCE];
	entry->generation[origin] = verdict->generation[SOURCE];
	entry->endpoint[!origin] = verdict->endpoint[DESTINATION];
	entry->generation[!origin] = verdict->generation[DESTINATION];
	entry->identity[origin] = verdict->identity[SOURCE];
	entry->identity[!origin] = verdict->identity[DESTINATION];
	entry->rule_set[0] = verdict->rule_set[0];
	entry->rule_set[1] = verdict->rule_set[1];
	entry->match_type[0] = verdict->match_type[0];
	entry->match_type[1] = verdict->match_type[1];
	entry->seen = now;
	entry->event_seen = now;
	entry->origin = origin;
	entry->packets[reversed & 1] = 1;
	entry->bytes[reversed & 1] = packet->length;
	entry->state = reversed ? STATE_ESTABLISHED : STATE_NEW;
	entry->tcp_flags[reversed & 1] = packet->tcp_flags & TCP_FLAGS_NOTED;
	if (reversed)
		entry->tcp_flags[0] = TCP_SYN;
	if (packet->path >= PATH_INGRESS_PROXY)
		entry->flags |= CONNTRACK_FROM_PROXY;
}

/* The leg of this crossing, and who is beyond it. */
static __always_inline void flow_split(struct packet *packet)
{
	struct conntrack_entry *entry = &packet->fresh;
	__u8 other = !packet->side;

	switch_on(packet, SWITCH_SPLIT);
	packet->key.leg = packet->endpoint ? LEG_EGRESS : LEG_INGRESS;
	if (packet->key.leg == LEG_INGRESS)
		return;
	entry->word = flow_leg_word(packet);
	entry->endpoint[other] = 0;
	entry->generation[other] = 0;
}

/* Remembers a flow whose first packet this is. */
static __noinline int flow_begin(struct packet *packet)
{
	flow_fill_entry(packet, 0);
	packet->key.leg = LEG_BOTH;
	if (packet->service) {
		packet->fresh.service = packet->service;
		packet->fresh.original_port = packet->original.source_port;
		packet->fresh.flags |= packet->loopback ? CONNTRACK_LOOPBACK : 0;
		switch_on(packet, SWITCH_MAPPED);
	}
	if (flow_is_split(packet))
		flow_split(packet);
	return flow_inserted(packet, bpf_map_update_elem(&conntrack_new, &packet->key, &packet->fresh, BPF_ANY));
}

/* origin: the endpoint that the flow would count for began it; 0: it is reached by it. */
static __always_inline int flow_refuse(struct packet *packet, __u32 origin)
{
	packet->direction = origin ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	return DROP(packet, FLOW, CONNTRACK_LIMIT);
}

/* In place of a flow of this key that is over. */
static __noinline long flow_replace(struct packet *packet)
{
	struct conntrack_entry *old = bpf_map_lookup_elem(&conntrack, &packet->key);

	if (old)
		flow_count(flows_of_entry(old), -1);
	return bpf_map_update_elem(&conntrack, &packet->key, &packet->fresh, BPF_ANY);
}

/* packet->fresh into the main table, which is what an endpoint's flows are counted of. */
static __always_inline int flow_insert(struct packet *packet)
{
	struct endpoint_flows_entry *flows = flows_of_entry(&packet->fresh);
	long error;

	if (unlikely(flow_is_too_many(flows)))
		return flow_refuse(packet, packet->fresh.endpoint[packet->fresh.origin & 1]);
	error = bpf_map_update_elem(&conntrack, &packet->key, &packet->fresh, BPF_NOEXIST);
	if (unlikely(error == -EEXIST))
		error = flow_replace(packet);
	if (likely(!error))
		flow_count(flows, 1);
	return flow_inserted(packet, error);
}

/* Remembers a TCP flow at its SYN-ACK: of an untranslated SYN nothing was stored. */
static __noinline int flow_accept(struct packet *packet)
{
	int reason = flow_judge(packet, 1);

	if (reason)
		return reason;
	if (proxy_port_of(packet->verdict.word)) /* the proxy answers such a flow, nobody else */
		return DROP(packet, FLOW, POLICY_DENIED);
	flow_fill_entry(packet, 1);
	packet->key.leg = LEG_BOTH;
	return flow_insert(packet);
}

/* A RST without a flow answers a SYN, or ends what was forgotten. It may pass either way, and is not remembered. */
static __noinline int flow_reset(struct packet *packet)
{
	int reason = flow_judge(packet, 1);

	return reason ? flow_judge(packet, 0) : 0;
}

static __always_inline int flow_new(struct packet *packet)
{
	int reason;

	if (TCP_ACCEPTS(packet))
		return flow_accept(packet);
	if (packet->tcp_flags & TCP_RST)
		return flow_reset(packet);
	reason = flow_judge(packet, 0);
	if (reason)
		return reason;
	if (packet->icmp_kind == ICMP_REPLY || packet->icmp_kind == ICMP_OTHER)
		return 0; /* belongs to nobody: each is judged */
	if (unlikely(flow_is_too_many(flows_of_verdict(&packet->verdict))))
		return flow_refuse(packet, packet->verdict.endpoint[SOURCE]);
	if (TCP_OPENS(packet) && !packet->service && !flow_is_split(packet))
		return 0;
	return flow_begin(packet);
}

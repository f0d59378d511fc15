/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The questions that a packet raises: of its own flow, of the one that it answers, of one whose stamp is stale. */
#pragma once

#include "flow_entry.h"

/* The question for a flow of which there is an entry. */
static __always_inline void flow_ask_again(struct packet *packet, const struct conntrack_entry *entry)
{
	struct question *question = &packet->question;
	__u8 origin = entry->origin & 1;
	__be16 port = origin ? packet->key.port_a : packet->key.port_b;

	question->source = origin ? packet->key.b : packet->key.a;
	question->destination = origin ? packet->key.a : packet->key.b;
	if (packet->key.protocol == IPPROTO_ICMP)
		port = bpf_htons(8); /* of flows, echoes alone have entries */
	if (packet->key.protocol == IPPROTO_ICMPV6)
		port = bpf_htons(128);
	question->port = port;
	question->protocol = packet->key.protocol;
	question->source_endpoint = entry->endpoint[origin];
	question->destination_endpoint = packet->key.leg == LEG_EGRESS ? FIND_ENDPOINT : entry->endpoint[!origin];
	question->fallback[SOURCE] = entry->identity[origin];
	question->fallback[DESTINATION] = entry->identity[!origin];
	question->source_identity = entry->flags & CONNTRACK_FROM_PROXY ? entry->identity[origin] : 0;
	question->path = packet->path;
}

/* Judges the flow of a stale entry. A denied one keeps its stale stamp: it is judged at each packet until it is allowed. */
static __noinline int flow_judge_again(struct packet *packet, struct conntrack_entry *entry)
{
	const struct verdict *verdict = &packet->verdict;
	__u8 origin = entry->origin & 1;
	int reason;

	if (entry->flags & CONNTRACK_LOOPBACK) /* a pod reaches itself, whatever the policy */
		return 0;
	flow_ask_again(packet, entry);
	reason = judge(packet);
	if (reason) {
		flow_describe_verdict(packet, origin != packet->side);
		return reason;
	}
	entry->identity[origin] = verdict->identity[SOURCE];
	entry->identity[!origin] = verdict->identity[DESTINATION];
	entry->rule_set[0] = verdict->rule_set[0];
	entry->rule_set[1] = verdict->rule_set[1];
	entry->match_type[0] = verdict->match_type[0];
	entry->match_type[1] = verdict->match_type[1];
	WRITE_ONCE(entry->word, flow_leg_word(packet));
	return 0;
}

static __always_inline void flow_ask_forward(struct packet *packet)
{
	struct question *question = &packet->question;

	question->source = packet->now.source;
	question->destination = packet->now.destination;
	question->source_endpoint = packet->endpoint;
	question->destination_endpoint = FIND_ENDPOINT;
	question->port = packet->now.destination_port;
	if (packet->icmp_kind)
		question->port = bpf_htons(packet->icmp_type);
}

/* Of the flow whose answer this packet is. */
static __always_inline void flow_ask_reverse(struct packet *packet)
{
	struct question *question = &packet->question;

	question->source = packet->now.destination;
	question->destination = packet->now.source;
	question->source_endpoint = FIND_ENDPOINT;
	question->destination_endpoint = packet->endpoint;
	question->port = packet->now.source_port;
}

/* A pod reaches itself through a service: no policy stands between. */
static __noinline int flow_judge_loopback(struct packet *packet)
{
	struct verdict *verdict = &packet->verdict;
	struct endpoint_policy_entry *own = policy_of(packet->endpoint);

	__builtin_memset(verdict, 0, sizeof(*verdict));
	verdict->direction = DIRECTION_UNKNOWN;
	verdict->endpoint[SOURCE] = packet->endpoint;
	verdict->endpoint[DESTINATION] = packet->endpoint;
	verdict->generation[SOURCE] = packet->generation;
	verdict->generation[DESTINATION] = packet->generation;
	verdict->identity[SOURCE] = own ? own->identity : 0;
	verdict->identity[DESTINATION] = verdict->identity[SOURCE];
	return 0;
}

/* Judges the packet's flow: begun by this packet, or answered by it (`reversed`). */
static __noinline int flow_judge(struct packet *packet, int reversed)
{
	struct question *question = &packet->question;
	int reason;

	question->fallback[SOURCE] = 0;
	question->fallback[DESTINATION] = 0;
	question->source_identity = reversed ? 0 : packet->proxy_identity;
	question->protocol = packet->protocol;
	question->path = packet->path;
	if (reversed)
		flow_ask_reverse(packet);
	else
		flow_ask_forward(packet);
	reason = packet->loopback ? flow_judge_loopback(packet) : judge(packet);
	flow_describe_verdict(packet, reversed);
	if (reason)
		return reason;
	packet->destination_generation = packet->verdict.generation[reversed ? SOURCE : DESTINATION];
	packet->proxy_port = reversed ? 0 : proxy_port_of(packet->verdict.word);
	packet->event_packets = 1;
	if (reversed) {
		packet->kind = EVENT_TRACE;
		packet->ct_state = TRACE_REPLY;
		packet->verdicts |= EVENT_REPLY;
		return 0;
	}
	packet->kind = EVENT_VERDICT;
	packet->ct_state = TRACE_NEW;
	return 0;
}

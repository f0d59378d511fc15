/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A packet and its flow: found in conntrack, or judged and remembered.
 *
 * Answers in struct packet where the packet goes, what is to be translated back, and whether an event is due. A packet of an
 * established flow costs one lookup and is done inline; everything else is in functions of its own.
 */
#pragma once

#include "conntrack.h"
#include "judge.h"
#include "switches.h"

/* Beside drop reasons (positive) and 0. */
#define FLOW_NOT_FOUND (-1)
#define E2BIG 7

static __always_inline void flow_answer(struct packet *packet, const struct conntrack_entry *entry, int reply)
{
	__u8 side = packet->side;

	packet->destination_endpoint = entry->endpoint[!side];
	packet->destination_generation = entry->generation[!side];
	packet->proxy_port = reply || packet->path == PATH_INGRESS_PROXY ? 0 : proxy_port_of(entry->word);
	packet->to_proxy = reply && (entry->flags & CONNTRACK_FROM_PROXY);
	if (reply && entry->service) {
		packet->reverse = entry->service;
		packet->original_port = entry->original_port;
		packet->loopback = !!(entry->flags & CONNTRACK_LOOPBACK);
	}
}

/* What an event of this packet tells of its flow. */
static __always_inline void flow_describe(struct packet *packet, const struct conntrack_entry *entry, int reply)
{
	packet->identity[SOURCE] = entry->identity[packet->side & 1];
	packet->identity[DESTINATION] = entry->identity[!packet->side];
	packet->rule_set[0] = entry->rule_set[0];
	packet->rule_set[1] = entry->rule_set[1];
	packet->match_type[0] = entry->match_type[0];
	packet->match_type[1] = entry->match_type[1];
	packet->verdicts = (entry->word >> 32) & (EVENT_JUDGED_EGRESS | EVENT_JUDGED_INGRESS | EVENT_AUDITED);
	if (reply)
		packet->verdicts |= EVENT_REPLY;
	packet->kind = EVENT_TRACE;
	if (!packet->ct_state)
		packet->ct_state = reply ? TRACE_REPLY : TRACE_ESTABLISHED;
}

static __always_inline void flow_touch(struct packet *packet, struct conntrack_entry *entry)
{
	int reply = entry->origin != packet->side;
	__u8 flags = packet->tcp_flags & TCP_FLAGS_NOTED & ~entry->tcp_flags[reply & 1];
	__u64 now = bpf_jiffies64();

	entry->seen = now;
	entry->packets[reply & 1]++;
	entry->bytes[reply & 1] += packet->length;
	entry->event_packets++;
	if (reply && entry->state == STATE_NEW)
		entry->state = STATE_ESTABLISHED;
	if (unlikely(flags))
		conntrack_note_flags(entry, flags, reply & 1);
	flow_answer(packet, entry, reply);
	if (unlikely(flags || now - entry->event_seen >= event_interval)) {
		flow_describe(packet, entry, reply);
		packet->event_packets = entry->event_packets;
		entry->event_packets = 0;
		entry->event_seen = now;
	}
}

static __always_inline int flow_stamp_is_valid(const struct packet *packet, const struct conntrack_entry *entry)
{
	return (__u32)READ_ONCE(entry->word) ==
	       stamp_of(&packet->key.a, &packet->key.b, entry->endpoint[0], entry->endpoint[1]);
}

/* Whether the packet came in where the entry says that its sender is, and both ends are still who they were. */
static __always_inline int flow_is_here(const struct packet *packet, const struct conntrack_entry *entry)
{
	__u8 side = packet->side & 1;

	return entry->endpoint[side] == packet->endpoint && entry->generation[side] == packet->generation &&
	       endpoint_is_current(entry->endpoint[!side], entry->generation[!side]);
}

/* Whether the entry is of this packet's flow, not of one whose tuple became equal to it by translation. */
static __always_inline int flow_is_same_service(const struct packet *packet, const struct conntrack_entry *entry)
{
	if (entry->origin != packet->side)
		return 1; /* the answer to a translated flow is recognised by its entry alone */
	return entry->service == packet->service &&
	       (!packet->service || entry->original_port == packet->original.source_port);
}

/* Verdict and stamp of a leg: beyond a proxy is no endpoint of this leg, and its counter is not in the leg's stamp. */
static __always_inline __u64 flow_leg_word(const struct packet *packet)
{
	const struct verdict *verdict = &packet->verdict;
	__u32 stamp = verdict->word;

	if (packet->key.leg == LEG_EGRESS)
		stamp -= verdict->destination_stamp;
	return (verdict->word >> 32 << 32) | stamp;
}

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

static __always_inline void flow_describe_verdict(struct packet *packet, int reversed)
{
	const struct verdict *verdict = &packet->verdict;

	packet->identity[SOURCE] = verdict->identity[reversed ? DESTINATION : SOURCE];
	packet->identity[DESTINATION] = verdict->identity[reversed ? SOURCE : DESTINATION];
	packet->destination_endpoint = verdict->endpoint[reversed ? SOURCE : DESTINATION];
	packet->rule_set[0] = verdict->rule_set[0];
	packet->rule_set[1] = verdict->rule_set[1];
	packet->match_type[0] = verdict->match_type[0];
	packet->match_type[1] = verdict->match_type[1];
	packet->verdicts = (verdict->word >> 32) & (EVENT_JUDGED_EGRESS | EVENT_JUDGED_INGRESS | EVENT_AUDITED);
	packet->direction = verdict->direction;
	packet->to_host = verdict->to_host;
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

static __always_inline int flow_inserted(struct packet *packet, long error)
{
	if (likely(!error))
		return 0;
	return error == -E2BIG ? DROP(packet, FLOW, CONNTRACK_FULL) : DROP(packet, FLOW, CT_INSERTION_FAILED);
}

/* A flow's entry goes to the main table at its first answer. */
static __noinline int flow_promote(struct packet *packet, struct conntrack_entry *entry)
{
	int reason;

	packet->fresh = *entry;
	reason = flow_inserted(packet, bpf_map_update_elem(&conntrack, &packet->key, &packet->fresh, BPF_ANY));
	if (reason)
		return reason;
	bpf_map_delete_elem(&conntrack_new, &packet->key);
	packet->moved = 1;
	return 0;
}

static __always_inline void flow_reopen(struct packet *packet, struct conntrack_entry *entry)
{
	entry->state = STATE_NEW;
	entry->tcp_flags[0] = 0;
	entry->tcp_flags[1] = 0;
	packet->ct_state = TRACE_REOPENED;
}

#define TCP_OPENS(packet) (((packet)->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN)
#define TCP_ACCEPTS(packet) (((packet)->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == (TCP_SYN | TCP_ACK))

/* Two flows of one tuple after translation: the later must get another source port, unless the earlier is at its end. */
static __always_inline int flow_is_clash(struct packet *packet, const struct conntrack_entry *entry)
{
	return !flow_is_same_service(packet, entry) && !(TCP_OPENS(packet) && entry->state == STATE_CLOSING);
}

/* Handles the packet by an entry that was found for its key, or says that it is not of that flow. */
static __always_inline int flow_known(struct packet *packet, struct conntrack_entry *entry, int answered)
{
	int reply = entry->origin != packet->side;
	int reason;

	if (!flow_is_here(packet, entry) || conntrack_is_over(entry, packet->protocol, bpf_jiffies64()))
		return FLOW_NOT_FOUND;
	if (flow_is_clash(packet, entry))
		return DROP(packet, FLOW, TUPLE_CLASH);
	if (!flow_is_same_service(packet, entry))
		return FLOW_NOT_FOUND;
	if (reply ? TCP_OPENS(packet) : TCP_ACCEPTS(packet))
		return FLOW_NOT_FOUND; /* the end that answered begins a flow of its own, and that flow's answer */
	if (!flow_stamp_is_valid(packet, entry)) {
		reason = flow_judge_again(packet, entry);
		if (reason)
			return reason;
	}
	if (!reply && TCP_OPENS(packet) && answered)
		flow_reopen(packet, entry);
	flow_touch(packet, entry);
	return !answered && reply ? flow_promote(packet, entry) : 0;
}

/* Of what came of an untranslated SYN nothing is in conntrack_new, so its answer needs not look there. */
static __always_inline int flow_may_be_new(const struct packet *packet)
{
	return !(packet->tcp_flags & TCP_SYN) || (packet->switches & (SWITCH_MAPPED | SWITCH_SPLIT));
}

__noinline int flow_on_leg(struct packet *packet, __u32 leg)
{
	struct conntrack_entry *entry;
	int reason;

	if (!packet)
		return FLOW_NOT_FOUND;
	packet->key.leg = leg;
	entry = bpf_map_lookup_elem(&conntrack, &packet->key);
	if (entry) {
		reason = flow_known(packet, entry, 1);
		if (reason != FLOW_NOT_FOUND)
			return reason;
	}
	if (!flow_may_be_new(packet))
		return FLOW_NOT_FOUND;
	entry = bpf_map_lookup_elem(&conntrack_new, &packet->key);
	return entry ? flow_known(packet, entry, 0) : FLOW_NOT_FOUND;
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
	return flow_inserted(packet, bpf_map_update_elem(&conntrack, &packet->key, &packet->fresh, BPF_ANY));
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
	if (TCP_OPENS(packet) && !packet->service && !flow_is_split(packet))
		return 0;
	return flow_begin(packet);
}

/* What is not a plain packet of an established flow. `entry` is that of leg BOTH in the main table, if there is one. */
__noinline int flow_slow(struct packet *packet, struct conntrack_entry *entry)
{
	int reason = FLOW_NOT_FOUND;

	if (!packet)
		return DROP_INVALID_PACKET;
	if (entry)
		reason = flow_known(packet, entry, 1);
	if (reason == FLOW_NOT_FOUND && flow_may_be_new(packet)) {
		entry = bpf_map_lookup_elem(&conntrack_new, &packet->key);
		if (entry)
			reason = flow_known(packet, entry, 0);
	}
	if (reason == FLOW_NOT_FOUND && packet->switches & SWITCH_SPLIT) {
		reason = flow_on_leg(packet, LEG_EGRESS);
		if (reason == FLOW_NOT_FOUND)
			reason = flow_on_leg(packet, LEG_INGRESS);
		if (reason == FLOW_NOT_FOUND)
			packet->key.leg = LEG_BOTH;
	}
	return reason == FLOW_NOT_FOUND ? flow_new(packet) : reason;
}

/* Whether nothing but counting is to be done: same ends, same service, valid stamp, no SYN. */
static __always_inline int flow_is_plain(const struct packet *packet, const struct conntrack_entry *entry)
{
	return !(packet->tcp_flags & TCP_SYN) && flow_is_here(packet, entry) && flow_is_same_service(packet, entry) &&
	       flow_stamp_is_valid(packet, entry) && !conntrack_is_over(entry, packet->protocol, bpf_jiffies64());
}

/* 0, or the reason of the drop. */
static __always_inline int flow_track(struct packet *packet)
{
	struct conntrack_entry *entry;

	packet->side = conntrack_key_of(&packet->key, &packet->now, packet->protocol, LEG_BOTH);
	entry = bpf_map_lookup_elem(&conntrack, &packet->key);
	if (likely(entry && flow_is_plain(packet, entry))) {
		flow_touch(packet, entry);
		return 0;
	}
	return flow_slow(packet, entry);
}

/* The same after the tuple was changed: a function, as it is rare. */
static __noinline int flow_track_again(struct packet *packet)
{
	struct conntrack_entry *entry;

	packet->side = conntrack_key_of(&packet->key, &packet->now, packet->protocol, LEG_BOTH);
	entry = bpf_map_lookup_elem(&conntrack, &packet->key);
	return flow_slow(packet, entry);
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A packet and the conntrack entry that was found for it: whether it is of that flow, what it changes, what it learns. */
#pragma once

#include "conntrack.h"
#include "judge.h"
#include "switches.h"

#define E2BIG 7
#define EEXIST 17

#define TCP_OPENS(packet) (((packet)->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN)
#define TCP_ACCEPTS(packet) (((packet)->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == (TCP_SYN | TCP_ACK))

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

static __always_inline void flow_touch(struct packet *packet, struct conntrack_entry *entry, __u64 now)
{
	int reply = entry->origin != packet->side;
	__u8 flags = packet->tcp_flags & TCP_FLAGS_NOTED & ~entry->tcp_flags[reply & 1];

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
}

static __always_inline int flow_inserted(struct packet *packet, long error)
{
	if (likely(!error))
		return 0;
	return error == -E2BIG ? DROP(packet, FLOW, CONNTRACK_FULL) : DROP(packet, FLOW, CT_INSERTION_FAILED);
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A packet and its flow: found in conntrack, or judged and remembered.
 *
 * Answers in struct packet where the packet goes, what is to be translated back, and whether an event is due. A packet of an
 * established flow costs one lookup and is done inline; everything else is in functions of its own.
 */
#pragma once

#include "carry.h"
#include "flow_new.h"

/* Beside drop reasons (positive) and 0. */
#define FLOW_NOT_FOUND (-1)

/* A flow's entry goes to the main table at its first answer. */
static __noinline int flow_promote(struct packet *packet, struct conntrack_entry *entry)
{
	int reason;

	packet->fresh = *entry;
	reason = flow_insert(packet);
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

/* Two flows of one tuple after translation: the later must get another source port, unless the earlier is at its end. */
static __always_inline int flow_is_clash(struct packet *packet, const struct conntrack_entry *entry)
{
	return !flow_is_same_service(packet, entry) && !(TCP_OPENS(packet) && entry->state == STATE_CLOSING);
}

/* Handles the packet by an entry that was found for its key, or says that it is not of that flow. */
static __always_inline int flow_known(struct packet *packet, struct conntrack_entry *entry, int answered)
{
	int reply = entry->origin != packet->side;
	__u64 now = bpf_jiffies64();
	int reason;

	if (!flow_is_here(packet, entry) || conntrack_is_over(entry, packet->protocol, now))
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
	flow_touch(packet, entry, now);
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
	entry = conntrack_find(packet);
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

/* What is not a plain packet of an established flow. `entry` is that of leg BOTH in the main table, if there is one. */
__noinline int flow_slow(struct packet *packet, struct conntrack_entry *entry)
{
	int reason = FLOW_NOT_FOUND;

	if (!packet)
		return DROP_INVALID_PACKET;
	if (unlikely(!entry && packet->switches & SWITCH_CARRY))
		entry = conntrack_carried(packet);
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
static __always_inline int flow_is_plain(const struct packet *packet, const struct conntrack_entry *entry, __u64 now)
{
	return !(packet->tcp_flags & TCP_SYN) && flow_is_here(packet, entry) && flow_is_same_service(packet, entry) &&
	       flow_stamp_is_valid(packet, entry) && !conntrack_is_over(entry, packet->protocol, now);
}

/* 0, or the reason of the drop. */
static __always_inline int flow_track(struct packet *packet)
{
	struct conntrack_entry *entry;
	__u64 now = bpf_jiffies64();

	packet->side = conntrack_key_of(&packet->key, &packet->now, packet->protocol, LEG_BOTH);
	entry = bpf_map_lookup_elem(&conntrack, &packet->key);
	if (likely(entry && flow_is_plain(packet, entry, now))) {
		flow_touch(packet, entry, now);
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

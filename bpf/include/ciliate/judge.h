/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A flow's verdict, in its original direction: who the ends are, then egress, then ingress policy.
 *
 * In front of the lookups stands the flow-class cache: per CPU, direct-mapped, compared in full, valid while the stamp of the
 * entry is that of its four counters. Only what is allowed is kept: entries added for a new identity bump nothing, so a cached
 * denial could outlive them.
 */
#pragma once

#include "ipcache.h"
#include "policy.h"
#include "stamps.h"

#define FLOW_CLASSES 4096

struct flow_class {
	union address source;
	union address destination;
	__be16 port;
	__u8 protocol;
	__u8 scope;
	__u32 source_identity;
	struct verdict verdict;
};

/* Hash of addresses and port to the last verdict for them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct flow_class);
	__uint(max_entries, FLOW_CLASSES);
} flow_classes SEC(".maps");

#define SCOPE_NO_EGRESS 1  /* the source is taken for beyond the host, whatever its address */
#define SCOPE_NO_INGRESS 2 /* the same of the destination */
#define SCOPE_PROXIED 4    /* its ingress proxy is behind it */

/* What the same addresses and port are asked for: questions of one scope have one answer. */
static __always_inline __u8 question_scope(const struct question *question)
{
	return (question->source_endpoint ? 0 : SCOPE_NO_EGRESS) |
	       (question->destination_endpoint ? 0 : SCOPE_NO_INGRESS) |
	       (question->path == PATH_INGRESS_PROXY ? SCOPE_PROXIED : 0);
}

static __always_inline struct flow_class *flow_class_slot(const struct question *question)
{
	__u32 mixed = question->source.words[3] ^ (question->source.words[1] << 7) ^ question->source.words[2];
	__u32 slot;

	mixed = mixed * 0x9E3779B1U + question->destination.words[3] + (question->destination.words[2] << 5);
	mixed = mixed * 0x85EBCA6BU + ((__u32)question->port << 8) + question->protocol + question_scope(question) * 64;
	slot = (mixed * 0xC2B2AE35U) >> 20;
	return bpf_map_lookup_elem(&flow_classes, &slot);
}

static __always_inline int flow_class_matches(const struct flow_class *class, const struct question *question)
{
	const struct verdict *verdict = &class->verdict;

	return address_equal(&class->source, &question->source) &&
	       address_equal(&class->destination, &question->destination) && class->port == question->port &&
	       class->protocol == question->protocol && class->scope == question_scope(question) &&
	       class->source_identity == question->source_identity && verdict->lasting &&
	       (__u32)verdict->word == stamp_of(&class->source, &class->destination, verdict->endpoint[SOURCE],
						verdict->endpoint[DESTINATION]) &&
	       endpoint_is_current(verdict->endpoint[SOURCE], verdict->generation[SOURCE]) &&
	       endpoint_is_current(verdict->endpoint[DESTINATION], verdict->generation[DESTINATION]);
}

static __always_inline void flow_class_keep(struct flow_class *class, const struct question *question,
					    const struct verdict *verdict)
{
	class->source = question->source;
	class->destination = question->destination;
	class->port = question->port;
	class->protocol = question->protocol;
	class->scope = question_scope(question);
	class->source_identity = question->source_identity;
	class->verdict = *verdict;
}

/* Identity of an address that is no endpoint's. An address in a pod range that is not known exactly keeps the identity
 * that its flow had, so that a flow outlives the news of its peer; a new flow has none, and is dropped.
 */
static __always_inline int identity_of(struct packet *packet, const union address *address, __u32 which)
{
	struct ipcache_entry *entry = ipcache_lookup(address);
	struct verdict *verdict = &packet->verdict;

	if (!entry) {
		verdict->identity[which] = world_identity(address);
		return 0;
	}
	verdict->identity[which] = entry->identity;
	if (likely(!(entry->flags & IPCACHE_UNRESOLVED)))
		return 0;
	verdict->lasting = 0;
	verdict->identity[which] = packet->question.fallback[which];
	return verdict->identity[which] ? 0 : DROP_UNRESOLVED_ADDRESS;
}

static __always_inline void find_end(struct verdict *verdict, __u32 which, __u32 given, const union address *address)
{
	verdict->endpoint[which] = given == FIND_ENDPOINT ? endpoint_by_address(address) : given;
}

static __always_inline void note_generation(struct verdict *verdict, __u32 which)
{
	struct endpoint_entry *entry = endpoint_by_id(verdict->endpoint[which]);

	verdict->generation[which] = entry ? entry->generation : 0;
}

/* Both ends and the stamp that vouches for them and for all that is looked up after. */
static __always_inline void judge_ends(struct packet *packet)
{
	struct question *question = &packet->question;
	struct verdict *verdict = &packet->verdict;
	__u32 stamp = peer_stamp(&question->source) + peer_stamp(&question->destination);

	load_order(&packet->length);
	find_end(verdict, SOURCE, question->source_endpoint, &question->source);
	find_end(verdict, DESTINATION, question->destination_endpoint, &question->destination);
	if (!question->source_endpoint)
		verdict->source_local = endpoint_by_address(&question->source) != 0;
	verdict->destination_stamp = endpoint_stamp(verdict->endpoint[DESTINATION]);
	stamp += endpoint_stamp(verdict->endpoint[SOURCE]) + verdict->destination_stamp;
	load_order(&packet->length);
	note_generation(verdict, SOURCE);
	note_generation(verdict, DESTINATION);
	verdict->word = stamp;
}

static __always_inline struct endpoint_policy_entry *policy_of(__u32 endpoint)
{
	return bpf_map_lookup_elem(&endpoint_policy, &endpoint);
}

static __always_inline int judge_identity(struct packet *packet, const union address *address, __u32 which)
{
	struct verdict *verdict = &packet->verdict;
	struct endpoint_policy_entry *own;

	if (!verdict->endpoint[which])
		return identity_of(packet, address, which);
	own = policy_of(verdict->endpoint[which]);
	verdict->identity[which] = own ? own->identity : 0;
	return 0;
}

/* One direction, and what auditing makes of it. An endpoint that is not ready is never let pass for an audit. */
static __always_inline int judge_direction(struct packet *packet, __u32 which, __u32 direction)
{
	struct verdict *verdict = &packet->verdict;
	struct endpoint_policy_entry *own = policy_of(verdict->endpoint[which]);
	int reason;

	verdict->direction = direction;
	if (!own)
		return DROP_ENDPOINT_NOT_READY;
	reason = policy_judge(packet, direction == DIRECTION_EGRESS ? own->egress : own->ingress,
			      verdict->identity[!which], direction);
	verdict->word |= direction == DIRECTION_EGRESS ? VERDICT_EGRESS : VERDICT_INGRESS;
	if (!reason || reason == DROP_ENDPOINT_NOT_READY || !(own->flags & POLICY_AUDIT))
		return reason;
	verdict->word |= VERDICT_AUDIT;
	verdict->lasting = 0;
	return 0;
}

static __always_inline __u16 proxy_port_of(__u64 word)
{
	return word >> VERDICT_PROXY_SHIFT;
}

static __always_inline int judge_policies(struct packet *packet)
{
	struct verdict *verdict = &packet->verdict;
	int reason;

	if (verdict->endpoint[SOURCE]) {
		reason = judge_direction(packet, SOURCE, DIRECTION_EGRESS);
		if (reason)
			return reason;
	}
	/* What comes out of the proxy for the second time is judged for its ingress then. */
	if (!verdict->endpoint[DESTINATION] || proxy_port_of(verdict->word))
		return 0;
	reason = judge_direction(packet, DESTINATION, DIRECTION_INGRESS);
	if (packet->question.path == PATH_INGRESS_PROXY)
		verdict->word &= (1ULL << VERDICT_PROXY_SHIFT) - 1; /* it has been there */
	return reason;
}

static __always_inline int judge_anew(struct packet *packet)
{
	struct question *question = &packet->question;
	struct verdict *verdict = &packet->verdict;
	int reason;

	__builtin_memset(verdict, 0, sizeof(*verdict));
	verdict->direction = DIRECTION_UNKNOWN;
	verdict->lasting = 1;
	judge_ends(packet);
	if (!verdict->endpoint[SOURCE] && !verdict->endpoint[DESTINATION])
		return DROP(packet, JUDGE, UNKNOWN_L3_TARGET_ADDRESS);
	reason = judge_identity(packet, &question->source, SOURCE);
	if (question->source_identity)
		verdict->identity[SOURCE] = question->source_identity;
	else if (reason)
		return drop_at(packet, FILE_JUDGE, __LINE__, reason);
	reason = judge_identity(packet, &question->destination, DESTINATION);
	if (reason)
		return drop_at(packet, FILE_JUDGE, __LINE__, reason);
	reason = judge_policies(packet);
	if (reason)
		return drop_at(packet, FILE_JUDGE, __LINE__, reason);
	return 0;
}

/* Answers packet->question in packet->verdict; returns 0 or the reason of the drop. */
__noinline int judge(struct packet *packet)
{
	struct flow_class *class;
	int reason;

	if (!packet)
		return DROP_INVALID_PACKET;
	class = flow_class_slot(&packet->question);
	if (class && flow_class_matches(class, &packet->question)) {
		packet->verdict = class->verdict;
		return 0;
	}
	reason = judge_anew(packet);
	if (!reason && packet->verdict.lasting && class)
		flow_class_keep(class, &packet->question, &packet->verdict);
	return reason;
}

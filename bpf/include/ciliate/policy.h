/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* One direction's verdict: the policy map's two lookups, and which of their answers wins. */
#pragma once

#include "endpoint.h"
#include "reasons.h"

/* Policy id, peer identity, direction, protocol and port prefix to a verdict and its rule set. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
	__uint(max_entries, 1000000);
} policy SEC(".maps");

static __always_inline struct policy_entry *policy_entry_of(struct policy_key *key, __u32 identity)
{
	key->identity = identity;
	return bpf_map_lookup_elem(&policy, key);
}

/* Whether the wildcard's entry beats the identity's: higher precedence, then deny, then the longer prefix. */
static __always_inline int wildcard_wins(const struct policy_entry *exact, const struct policy_entry *wildcard)
{
	if (exact->precedence != wildcard->precedence)
		return wildcard->precedence > exact->precedence;
	if ((exact->flags ^ wildcard->flags) & POLICY_DENY)
		return wildcard->flags & POLICY_DENY;
	return wildcard->prefixlen > exact->prefixlen;
}

static __always_inline __u8 match_type(const struct policy_entry *entry, int wildcard)
{
	if (entry->prefixlen > 8)
		return wildcard ? MATCH_L4_ONLY : MATCH_L3_L4;
	if (entry->prefixlen == 8)
		return wildcard ? MATCH_PROTO_ONLY : MATCH_L3_PROTO;
	return wildcard ? MATCH_ALL : MATCH_L3_ONLY;
}

/* An entry that doesn't say how to authenticate takes it from the one it beat, if that is as important. */
static __always_inline __u8 auth_type(const struct policy_entry *chosen, const struct policy_entry *other)
{
	if (!other || chosen->flags & POLICY_AUTH_EXPLICIT || other->flags & POLICY_DENY)
		return chosen->auth_type;
	if (other->precedence >> 8 < chosen->precedence >> 8 || other->auth_type < chosen->auth_type)
		return chosen->auth_type;
	return other->auth_type;
}

static __always_inline int policy_reason(const struct policy_entry *chosen,
					 const struct policy_entry *other, __u8 protocol)
{
	if (chosen->flags & POLICY_DENY)
		return DROP_POLICY_DENY;
	if (auth_type(chosen, other))
		return DROP_AUTH_REQUIRED;
	if (chosen->proxy_port && protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return DROP_PROXY_NOT_SUPPORTED;
	return 0;
}

/* Judges packet->question in one direction for one policy and peer. Notes rule set, match type and proxy port in
 * packet->verdict, whatever it is; returns 0 or the reason of the drop.
 */
__noinline int policy_judge(struct packet *packet, __u32 policy_id, __u32 peer, __u32 direction)
{
	struct policy_entry *exact, *wildcard, *chosen, *other;
	struct policy_key key = {.prefixlen = POLICY_PREFIX_FULL, .policy = policy_id, .direction = direction};
	__u32 which = direction == DIRECTION_EGRESS ? EGRESS_VERDICT : INGRESS_VERDICT;
	int reason;

	if (!packet || policy_id == POLICY_NOT_READY)
		return DROP_ENDPOINT_NOT_READY;
	key.protocol = packet->question.protocol;
	key.port = packet->question.port;
	exact = peer ? policy_entry_of(&key, peer) : NULL;
	wildcard = policy_entry_of(&key, 0);
	chosen = exact;
	other = wildcard;
	if (!exact || (wildcard && wildcard_wins(exact, wildcard))) {
		chosen = wildcard;
		other = exact;
	}
	if (!chosen)
		return DROP_POLICY_DENIED;
	packet->verdict.rule_set[which] = chosen->rule_set;
	packet->verdict.match_type[which] = match_type(chosen, chosen == wildcard);
	reason = policy_reason(chosen, other, key.protocol);
	if (!reason)
		packet->verdict.word |= (__u64)bpf_ntohs(chosen->proxy_port) << VERDICT_PROXY_SHIFT;
	return reason;
}

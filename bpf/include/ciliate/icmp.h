/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* ICMP errors: one about a tracked flow belongs to it (related), is allowed and delivered to whom it is about. */
#pragma once

#include "quoted.h"

/* The quoted header's start, and what is quoted of the transport: its first 8 bytes. */
static __always_inline int icmp_quoted_transport(struct __sk_buff *skb, struct packet *packet, __u32 at)
{
	struct icmp_head *quoted = header_at(skb, at, sizeof(*quoted));

	if (!quoted)
		return DROP(packet, ICMP, CT_INVALID_HEADER);
	packet->inner_transport = at;
	if (packet->inner_protocol == IPPROTO_ICMP || packet->inner_protocol == IPPROTO_ICMPV6) {
		packet->inner_icmp_kind = icmp_kind(packet->inner_protocol, quoted->type);
		echo_ports(&packet->inner, packet->inner_icmp_kind, quoted->identifier);
		return 0;
	}
	packet->inner_icmp_kind = ICMP_NONE;
	packet->inner.source_port = ((struct ports *)quoted)->source;
	packet->inner.destination_port = ((struct ports *)quoted)->destination;
	return 0;
}

static __always_inline int icmp_quoted_ipv4(struct __sk_buff *skb, struct packet *packet, __u32 at)
{
	struct iphdr *ip = header_at(skb, at, sizeof(*ip));
	__u32 header;

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return DROP(packet, ICMP, CT_INVALID_HEADER);
	header = ip->ihl * 4;
	address_from_ipv4(&packet->inner.source, ip->saddr);
	address_from_ipv4(&packet->inner.destination, ip->daddr);
	packet->inner_protocol = ip->protocol;
	return icmp_quoted_transport(skb, packet, at + header);
}

/* A quoted packet with extension headers is taken for one of an unknown flow: its transport may not be in the quotation. */
static __always_inline int icmp_quoted_ipv6(struct __sk_buff *skb, struct packet *packet, __u32 at)
{
	struct ipv6hdr *ip = header_at(skb, at, sizeof(*ip));

	if (!ip || ip->version != 6)
		return DROP(packet, ICMP, CT_INVALID_HEADER);
	__builtin_memcpy(&packet->inner.source, &ip->saddr, 16);
	__builtin_memcpy(&packet->inner.destination, &ip->daddr, 16);
	packet->inner_protocol = ip->nexthdr;
	return icmp_quoted_transport(skb, packet, at + sizeof(*ip));
}

/* An entry of the quoted packet's flow, on this leg, whose sender is reached where the error goes to. */
static __always_inline struct conntrack_entry *icmp_entry(struct packet *packet, __u32 leg)
{
	struct conntrack_entry *entry;

	packet->side = !conntrack_key_of(&packet->key, &packet->inner, packet->inner_protocol, leg);
	entry = conntrack_find(packet);
	if (!entry)
		entry = bpf_map_lookup_elem(&conntrack_new, &packet->key);
	if (!entry || !flow_is_here(packet, entry) ||
	    conntrack_is_over(entry, packet->inner_protocol, bpf_jiffies64()))
		return NULL;
	return entry;
}

static __always_inline struct conntrack_entry *icmp_find_entry(struct packet *packet)
{
	struct conntrack_entry *entry = icmp_entry(packet, LEG_BOTH);

	if (!entry && packet->switches & SWITCH_SPLIT)
		entry = icmp_entry(packet, LEG_EGRESS);
	if (!entry && packet->switches & SWITCH_SPLIT)
		entry = icmp_entry(packet, LEG_INGRESS);
	return entry;
}

/* The error answers a SYN, of which nothing is stored: it may pass if the SYN may. */
static __noinline int icmp_judge_opening(struct packet *packet)
{
	struct question *question = &packet->question;
	int reason;

	__builtin_memset(question, 0, sizeof(*question));
	question->source = packet->inner.source;
	question->destination = packet->inner.destination;
	question->source_endpoint = FIND_ENDPOINT;
	question->destination_endpoint = packet->endpoint;
	question->port = packet->inner.destination_port;
	question->protocol = IPPROTO_TCP;
	question->path = packet->path;
	reason = judge(packet);
	flow_describe_verdict(packet, 1);
	if (reason || proxy_port_of(packet->verdict.word))
		return FLOW_NOT_FOUND;
	packet->destination_generation = packet->verdict.generation[SOURCE];
	packet->kind = EVENT_TRACE;
	packet->ct_state = TRACE_RELATED;
	packet->event_packets = 1;
	return 0;
}

static __always_inline int icmp_judge_alone(struct packet *packet)
{
	packet->side = conntrack_key_of(&packet->key, &packet->now, packet->protocol, LEG_BOTH);
	return flow_judge(packet, 0);
}

/* 0, or the reason of the drop. */
__noinline int icmp_error(struct __sk_buff *skb, struct packet *packet)
{
	struct conntrack_entry *entry;
	__u32 at;
	int reason;

	if (!packet)
		return DROP_INVALID_PACKET;
	at = packet->transport + sizeof(struct icmp_head);
	reason = packet->protocol == IPPROTO_ICMP ? icmp_quoted_ipv4(skb, packet, at) : icmp_quoted_ipv6(skb, packet, at);
	if (reason)
		return reason;
	if (!address_equal(&packet->inner.source, &packet->now.destination))
		return icmp_judge_alone(packet);
	entry = icmp_find_entry(packet);
	if (!entry) {
		reason = packet->inner_protocol == IPPROTO_TCP ? icmp_judge_opening(packet) : FLOW_NOT_FOUND;
		return reason == FLOW_NOT_FOUND ? icmp_judge_alone(packet) : reason;
	}
	if (!flow_stamp_is_valid(packet, entry)) {
		reason = flow_judge_again(packet, entry);
		if (reason)
			return reason;
	}
	packet->ct_state = TRACE_RELATED;
	packet->event_packets = 1;
	flow_answer(packet, entry, entry->origin != packet->side);
	flow_describe(packet, entry, entry->origin != packet->side);
	return packet->reverse ? quoted_restore(skb, packet) : 0;
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What an ICMP error quotes of a translated flow, made what the flow's client sent: else the client would not know it.
 * The error's own source stays: it may be any router's.
 */
#pragma once

#include "service.h"
#include "translate.h"

#define ICMP_CHECKSUM 2

/* IPv4: the quoted header's own checksum takes up the change, so that the sum over it, which ICMP's is of, stays the same. */
static __always_inline int quoted_ipv4(struct __sk_buff *skb, struct packet *packet, const union address *service)
{
	__u32 header = packet->transport + sizeof(struct icmp_head);
	__be32 from = packet->inner.destination.words[3], to = service->words[3];

	if (bpf_l3_csum_replace(skb, header + 10, from, to, 4))
		return DROP(packet, ICMP, CHECKSUM_L3);
	if (bpf_skb_store_bytes(skb, header + 16, &to, 4, 0))
		return DROP(packet, ICMP, WRITE_ERROR);
	return 0;
}

static __always_inline int quoted_ipv6(struct __sk_buff *skb, struct packet *packet, const union address *service)
{
	__u32 header = packet->transport + sizeof(struct icmp_head);
	__s64 difference = bpf_csum_diff((__be32 *)packet->inner.destination.words, 16, (__be32 *)service->words, 16, 0);

	if (bpf_l4_csum_replace(skb, packet->transport + ICMP_CHECKSUM, 0, difference, 0))
		return DROP(packet, ICMP, CHECKSUM_L4);
	if (bpf_skb_store_bytes(skb, header + 24, service->bytes, 16, 0))
		return DROP(packet, ICMP, WRITE_ERROR);
	return 0;
}

static __always_inline int quoted_port(struct __sk_buff *skb, struct packet *packet, __be16 from, __be16 to, __u32 at)
{
	if (from == to)
		return 0;
	if (bpf_l4_csum_replace(skb, packet->transport + ICMP_CHECKSUM, from, to, 2))
		return DROP(packet, ICMP, CHECKSUM_L4);
	if (bpf_skb_store_bytes(skb, at, &to, 2, 0))
		return DROP(packet, ICMP, WRITE_ERROR);
	return 0;
}

static __always_inline int quoted_destination(struct __sk_buff *skb, struct packet *packet)
{
	__u32 service = packet->reverse;
	struct backend_entry *face;
	int reason;

	if (service == SERVICE_DIRECT)
		return 0;
	face = bpf_map_lookup_elem(&service_reverse, &service);
	if (!face)
		return DROP(packet, ICMP, NO_NAT_MAPPING);
	__builtin_memcpy(&packet->original.source, face->address, 16);
	packet->original.source_port = face->port;
	reason = packet->protocol == IPPROTO_ICMP ? quoted_ipv4(skb, packet, &packet->original.source)
						  : quoted_ipv6(skb, packet, &packet->original.source);
	if (reason)
		return reason;
	return quoted_port(skb, packet, packet->inner.destination_port, packet->original.source_port,
			   packet->inner_transport + 2);
}

/* 0, or the reason of the drop. */
static __noinline int quoted_restore(struct __sk_buff *skb, struct packet *packet)
{
	int reason = quoted_destination(skb, packet);

	if (reason)
		return reason;
	return quoted_port(skb, packet, packet->inner.source_port, packet->original_port, packet->inner_transport);
}

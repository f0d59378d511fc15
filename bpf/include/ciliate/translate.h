/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Writes packet->now into a packet that bears packet->original: addresses, ports and the checksums over them. */
#pragma once

#include "parse.h"

#define IPV4_CHECKSUM (ETH_HLEN + 10)
#define IPV4_SOURCE (ETH_HLEN + 12)
#define IPV4_DESTINATION (ETH_HLEN + 16)
#define IPV6_SOURCE (ETH_HLEN + 8)
#define IPV6_DESTINATION (ETH_HLEN + 24)

static __always_inline __u32 transport_checksum(const struct packet *packet)
{
	return packet->transport + (packet->protocol == IPPROTO_TCP ? 16 : 6);
}

/* A UDP checksum of zero means that there is none, and stays. */
static __always_inline __u64 checksum_flags(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

static __always_inline int has_transport(const struct packet *packet)
{
	return packet->fragment != FRAGMENT_LATER;
}

static __always_inline int translate_ipv4(struct __sk_buff *skb, struct packet *packet, const union address *old,
					  const union address *new, __u32 at)
{
	__be32 from = old->words[3], to = new->words[3];

	if (from == to)
		return 0;
	if (has_transport(packet) && bpf_l4_csum_replace(skb, transport_checksum(packet), from, to,
							 BPF_F_PSEUDO_HDR | checksum_flags(packet) | 4))
		return DROP(packet, TRANSLATE, CHECKSUM_L4);
	if (bpf_l3_csum_replace(skb, IPV4_CHECKSUM, from, to, 4))
		return DROP(packet, TRANSLATE, CHECKSUM_L3);
	if (bpf_skb_store_bytes(skb, at, &to, 4, 0))
		return DROP(packet, TRANSLATE, WRITE_ERROR);
	return 0;
}

static __always_inline int translate_ipv6(struct __sk_buff *skb, struct packet *packet, const union address *old,
					  const union address *new, __u32 at)
{
	__s64 difference;

	if (address_equal(old, new))
		return 0;
	difference = bpf_csum_diff((__be32 *)old->words, 16, (__be32 *)new->words, 16, 0);
	if (has_transport(packet) && bpf_l4_csum_replace(skb, transport_checksum(packet), 0, difference,
							 BPF_F_PSEUDO_HDR | checksum_flags(packet)))
		return DROP(packet, TRANSLATE, CHECKSUM_L4);
	if (bpf_skb_store_bytes(skb, at, new->bytes, 16, 0))
		return DROP(packet, TRANSLATE, WRITE_ERROR);
	return 0;
}

static __always_inline int translate_port(struct __sk_buff *skb, struct packet *packet, __be16 old, __be16 new, __u32 at)
{
	if (old == new || !has_transport(packet))
		return 0;
	if (bpf_l4_csum_replace(skb, transport_checksum(packet), old, new, checksum_flags(packet) | 2))
		return DROP(packet, TRANSLATE, CHECKSUM_L4);
	if (bpf_skb_store_bytes(skb, at, &new, 2, 0))
		return DROP(packet, TRANSLATE, WRITE_ERROR);
	return 0;
}

static __always_inline int translate_addresses(struct __sk_buff *skb, struct packet *packet)
{
	const struct tuple *old = &packet->original, *new = &packet->now;
	int reason;

	if (packet->ether_type == ETH_P_IP) {
		reason = translate_ipv4(skb, packet, &old->source, &new->source, IPV4_SOURCE);
		if (reason)
			return reason;
		return translate_ipv4(skb, packet, &old->destination, &new->destination, IPV4_DESTINATION);
	}
	reason = translate_ipv6(skb, packet, &old->source, &new->source, IPV6_SOURCE);
	if (reason)
		return reason;
	return translate_ipv6(skb, packet, &old->destination, &new->destination, IPV6_DESTINATION);
}

/* 0, or the reason of the drop. */
__noinline int translate(struct __sk_buff *skb, struct packet *packet)
{
	int reason;

	if (!packet)
		return DROP_INVALID_PACKET;
	reason = translate_addresses(skb, packet);
	if (reason)
		return reason;
	reason = translate_port(skb, packet, packet->original.source_port, packet->now.source_port, packet->transport);
	if (reason)
		return reason;
	return translate_port(skb, packet, packet->original.destination_port, packet->now.destination_port,
			      packet->transport + 2);
}

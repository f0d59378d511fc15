/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Headers into a struct packet: Ethernet is the caller's, IPv4, IPv6 with its extension headers, and the transport. */
#pragma once

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "packet.h"
#include "reasons.h"

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_ESP 50
#define NEXT_AUTHENTICATION 51
#define NEXT_NONE 59
#define NEXT_OPTIONS 60
#define NEXT_MOBILITY 135
#define NEXT_HIP 139
#define NEXT_SHIM6 140
#define NEXT_EXPERIMENT_1 253
#define NEXT_EXPERIMENT_2 254

#define EXTENSION_HEADERS_MAX 8
#define HEADERS_END_MAX 1024 /* bound of any header's offset that we follow */

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff

struct ports {
	__be16 source;
	__be16 destination;
};

struct icmp_head {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 identifier;
	__be16 sequence;
};

struct extension_head {
	__u8 next;
	__u8 length;
	__be16 offset; /* of a fragment header */
	__be32 id;     /* of a fragment header */
};

/* Verifier workaround: clang keeps the 32-bit field in a register and widens it again for a second use, which the verifier
 * takes for arithmetic on a pointer. So it is loaded where it is used.
 */
static __always_inline void *packet_start(struct __sk_buff *skb)
{
	void *start;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(start) : "r"(skb), "i"(offsetof(struct __sk_buff, data)));
	return start;
}

static __always_inline void *packet_end(struct __sk_buff *skb)
{
	void *end;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(end) : "r"(skb), "i"(offsetof(struct __sk_buff, data_end)));
	return end;
}

/* Brings the first `end` bytes into the linear part; 0, or they are not there. Out of the way of the packets that need it not. */
static __noinline int header_pull(struct __sk_buff *skb, __u32 end)
{
	return end > skb->len || bpf_skb_pull_data(skb, end);
}

/* `size` bytes at `offset`, or NULL. */
static __always_inline void *header_at(struct __sk_buff *skb, __u32 offset, __u32 size)
{
	void *data;

	if (offset > HEADERS_END_MAX)
		return NULL;
	data = packet_start(skb) + offset;
	if (likely(data + size <= packet_end(skb)))
		return data;
	if (header_pull(skb, offset + size))
		return NULL;
	data = packet_start(skb) + offset;
	return data + size <= packet_end(skb) ? data : NULL;
}

static __always_inline __u8 icmp_kind(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP) {
		switch (type) {
		case 8:
			return ICMP_REQUEST;
		case 0:
			return ICMP_REPLY;
		case 3: /* destination unreachable, which is also "fragmentation needed" */
		case 11:
		case 12:
			return ICMP_ERROR;
		}
	} else {
		switch (type) {
		case 128:
			return ICMP_REQUEST;
		case 129:
			return ICMP_REPLY;
		case 1:
		case 2:
		case 3:
		case 4:
			return ICMP_ERROR;
		}
	}
	return ICMP_OTHER;
}

/* An echo belongs to its requester: the identifier stands at the requester's end, and nothing at the other. */
static __always_inline void echo_ports(struct tuple *tuple, __u8 kind, __be16 identifier)
{
	tuple->source_port = kind == ICMP_REQUEST ? identifier : 0;
	tuple->destination_port = kind == ICMP_REPLY ? identifier : 0;
}

static __always_inline int parse_icmp(struct __sk_buff *skb, struct packet *packet)
{
	struct icmp_head *icmp = header_at(skb, packet->transport, sizeof(*icmp));

	if (!icmp)
		return DROP(packet, PARSE, CT_INVALID_HEADER);
	packet->icmp_type = icmp->type;
	packet->icmp_code = icmp->code;
	packet->icmp_kind = icmp_kind(packet->protocol, icmp->type);
	echo_ports(&packet->now, packet->icmp_kind, icmp->identifier);
	return 0;
}

static __always_inline void parse_port_pair(struct packet *packet, const void *head)
{
	const struct ports *ports = head;

	packet->now.source_port = ports->source;
	packet->now.destination_port = ports->destination;
}

static __always_inline int parse_transport(struct __sk_buff *skb, struct packet *packet)
{
	__u32 size;
	__u8 *head;

	switch (packet->protocol) {
	case IPPROTO_TCP:
		head = header_at(skb, packet->transport, 20);
		if (!head)
			return DROP(packet, PARSE, CT_INVALID_HEADER);
		parse_port_pair(packet, head);
		packet->tcp_flags = head[13];
		return 0;
	case IPPROTO_UDP:
		size = 8;
		break;
	case IPPROTO_SCTP:
		size = 12;
		break;
	case IPPROTO_ICMP:
		if (packet->ether_type != ETH_P_IP)
			return DROP(packet, PARSE, CT_UNKNOWN_L4_PROTOCOL);
		return parse_icmp(skb, packet);
	case IPPROTO_ICMPV6:
		if (packet->ether_type != ETH_P_IPV6)
			return DROP(packet, PARSE, CT_UNKNOWN_L4_PROTOCOL);
		return parse_icmp(skb, packet);
	default:
		return DROP(packet, PARSE, CT_UNKNOWN_L4_PROTOCOL);
	}
	head = header_at(skb, packet->transport, 8);
	if (!head || packet->transport + size > skb->len)
		return DROP(packet, PARSE, CT_INVALID_HEADER);
	parse_port_pair(packet, head);
	return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr *ip = header_at(skb, ETH_HLEN, sizeof(*ip));
	__u32 header, total;
	__u16 offset;

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return DROP(packet, PARSE, INVALID_PACKET);
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (!total && skb->gso_size)
		total = header; /* BIG TCP: too long for the field */
	if (total < header || ETH_HLEN + total > skb->len)
		return DROP(packet, PARSE, INVALID_PACKET);
	address_from_ipv4(&packet->now.source, ip->saddr);
	address_from_ipv4(&packet->now.destination, ip->daddr);
	packet->protocol = ip->protocol;
	packet->transport = ETH_HLEN + header;
	offset = bpf_ntohs(ip->frag_off);
	if (unlikely(offset & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))) {
		packet->fragment = offset & IPV4_FRAGMENT_OFFSET ? FRAGMENT_LATER : FRAGMENT_FIRST;
		packet->fragment_id = ip->id;
	}
	return 0;
}

/* One extension header: its length, or -1. Moves packet->protocol on to the next. */
static __always_inline int parse_extension(struct __sk_buff *skb, struct packet *packet, __u32 at)
{
	struct extension_head *extension = header_at(skb, at, sizeof(*extension));
	__u16 offset;
	int length;

	if (!extension)
		return -1;
	length = (extension->length + 1) * 8;
	if (packet->protocol == NEXT_AUTHENTICATION)
		length = (extension->length + 2) * 4;
	if (packet->protocol == NEXT_FRAGMENT) {
		length = 8;
		offset = bpf_ntohs(extension->offset);
		if (offset & ~7)
			packet->fragment = FRAGMENT_LATER;
		else if (offset & 1)
			packet->fragment = FRAGMENT_FIRST; /* neither: an atomic fragment, which is whole */
		packet->fragment_id = extension->id;
	}
	packet->protocol = extension->next;
	return length;
}

enum next_header { NEXT_IS_EXTENSION, NEXT_IS_TRANSPORT, NEXT_IS_INVALID };

static __always_inline enum next_header next_header(__u8 next)
{
	switch (next) {
	case NEXT_HOP_BY_HOP:
	case NEXT_ROUTING:
	case NEXT_FRAGMENT:
	case NEXT_AUTHENTICATION:
	case NEXT_OPTIONS:
		return NEXT_IS_EXTENSION;
	case NEXT_ESP: /* what is behind these can't be told, or is nothing */
	case NEXT_NONE:
	case NEXT_MOBILITY:
	case NEXT_HIP:
	case NEXT_SHIM6:
	case NEXT_EXPERIMENT_1:
	case NEXT_EXPERIMENT_2:
		return NEXT_IS_INVALID;
	default:
		return NEXT_IS_TRANSPORT;
	}
}

/* Walks to the transport header; what comes behind a later fragment's header is payload. A function of its own: few packets
 * have extension headers, and the loop would be in everyone's way.
 */
__noinline int parse_extensions(struct __sk_buff *skb, struct packet *packet)
{
	__u32 at = ETH_HLEN + sizeof(struct ipv6hdr);
	int length, i;

	if (!packet)
		return DROP_INVALID_PACKET;
	for (i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		enum next_header next = next_header(packet->protocol);

		if (next == NEXT_IS_INVALID)
			break;
		if (next == NEXT_IS_TRANSPORT || packet->fragment == FRAGMENT_LATER) {
			packet->transport = at;
			return 0;
		}
		length = parse_extension(skb, packet, at);
		if (length < 0)
			break;
		at += length;
		if (at > HEADERS_END_MAX)
			break;
	}
	return DROP(packet, PARSE, INVALID_IPV6_EXTENSION_HEADER);
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr *ip = header_at(skb, ETH_HLEN, sizeof(*ip));
	__u32 payload;

	if (!ip || ip->version != 6)
		return DROP(packet, PARSE, INVALID_PACKET);
	packet->protocol = ip->nexthdr;
	payload = bpf_ntohs(ip->payload_len);
	if (ETH_HLEN + sizeof(*ip) + payload > skb->len || (!payload && !skb->gso_size && packet->protocol != NEXT_NONE))
		return DROP(packet, PARSE, INVALID_PACKET); /* BIG TCP alone has a length of zero; jumbograms don't exist */
	address_from_ipv6(&packet->now.source, &ip->saddr);
	address_from_ipv6(&packet->now.destination, &ip->daddr);
	packet->transport = ETH_HLEN + sizeof(*ip);
	if (likely(next_header(packet->protocol) == NEXT_IS_TRANSPORT))
		return 0;
	return parse_extensions(skb, packet);
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* ARP and neighbour discovery, answered here: to a pod, every address but its own is at its gateway's MAC. */
#pragma once

#include <linux/pkt_cls.h>

#include "endpoint.h"
#include "parse.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2
#define ND_ROUTER_SOLICITATION 133
#define ND_ROUTER_ADVERTISEMENT 134
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_REDIRECT 137
#define MLD_QUERY 130
#define MLD_DONE 132
#define MLD_REPORT_2 143
#define ND_TARGET_MAC 2
#define ND_FLAGS_SOLICITED_OVERRIDE 0x60000000

struct arp_frame {
	__u8 destination[6];
	__u8 source[6];
	__be16 ether_type;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};

struct nd_frame {
	__u8 destination[6];
	__u8 source[6];
	__be16 ether_type;
	__be32 version;
	__be16 length;
	__u8 next;
	__u8 hop_limit;
	__u8 from[16];
	__u8 to[16];
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__u8 target[16];
	__u8 option;
	__u8 option_length;
	__u8 mac[6];
} __attribute__((packed));

static __always_inline int is_zero4(const __u8 *bytes)
{
	return !(bytes[0] | bytes[1] | bytes[2] | bytes[3]);
}

static __always_inline int same4(const __u8 *x, const __u8 *y)
{
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

/* A request about the pod's own address, or one that only probes for duplicates, gets no answer, as on a real segment. */
static __noinline int arp_answer(struct __sk_buff *skb, struct packet *packet, const struct endpoint_entry *endpoint)
{
	struct arp_frame *arp = header_at(skb, 0, sizeof(*arp));
	__u8 asker[4], target[4];

	if (!arp || arp->protocol != bpf_htons(ETH_P_IP) || arp->protocol_length != 4 || arp->hardware_length != 6)
		return DROP(packet, NEIGHBOUR, INVALID_PACKET);
	if (arp->operation != bpf_htons(ARP_REQUEST) || is_zero4(arp->sender) || same4(arp->target, arp->sender) ||
	    same4(arp->target, &endpoint->ipv4.bytes[12]))
		return 0;
	__builtin_memcpy(asker, arp->sender, 4);
	__builtin_memcpy(target, arp->target, 4);
	__builtin_memcpy(arp->destination, endpoint->mac, 6);
	__builtin_memcpy(arp->source, endpoint->host_mac, 6);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->sender_mac, endpoint->host_mac, 6);
	__builtin_memcpy(arp->sender, target, 4);
	__builtin_memcpy(arp->target_mac, endpoint->mac, 6);
	__builtin_memcpy(arp->target, asker, 4);
	return -1;
}

static __always_inline __be16 checksum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The advertisement of `target` (packet->inner.source) to whoever asked, into packet->frame. */
static __always_inline void nd_make_advertisement(struct packet *packet, const struct endpoint_entry *endpoint)
{
	struct nd_frame *answer = (void *)packet->frame;
	__be32 pseudo[2] = {bpf_htonl(32), bpf_htonl(IPPROTO_ICMPV6)};
	__u32 sum;

	__builtin_memcpy(answer->destination, endpoint->mac, 6);
	__builtin_memcpy(answer->source, endpoint->host_mac, 6);
	answer->ether_type = bpf_htons(ETH_P_IPV6);
	answer->version = bpf_htonl(0x60000000);
	answer->length = bpf_htons(32);
	answer->next = IPPROTO_ICMPV6;
	answer->hop_limit = 255;
	__builtin_memcpy(answer->from, &packet->inner.source, 16);
	__builtin_memcpy(answer->to, &packet->now.source, 16);
	answer->type = ND_ADVERTISEMENT;
	answer->code = 0;
	answer->checksum = 0;
	answer->flags = bpf_htonl(ND_FLAGS_SOLICITED_OVERRIDE);
	__builtin_memcpy(answer->target, &packet->inner.source, 16);
	answer->option = ND_TARGET_MAC;
	answer->option_length = 1;
	__builtin_memcpy(answer->mac, endpoint->host_mac, 6);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)(packet->frame + 22), 64, sum);
	answer->checksum = checksum_fold(sum);
}

static __noinline int nd_answer(struct __sk_buff *skb, struct packet *packet, const struct endpoint_entry *endpoint)
{
	__u8 *target = header_at(skb, packet->transport + 8, 16);

	if (!target)
		return DROP(packet, NEIGHBOUR, CT_INVALID_HEADER);
	__builtin_memcpy(&packet->inner.source, target, 16);
	if (address_is_zero(&packet->now.source) || address_equal(&packet->inner.source, &endpoint->ipv6) ||
	    address_equal(&packet->inner.source, &packet->now.source))
		return 0;
	nd_make_advertisement(packet, endpoint);
	if (bpf_skb_change_tail(skb, sizeof(struct nd_frame), 0) ||
	    bpf_skb_store_bytes(skb, 0, packet->frame, sizeof(struct nd_frame), 0))
		return DROP(packet, NEIGHBOUR, WRITE_ERROR);
	return -1;
}

static __always_inline int is_neighbour_message(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	return packet->protocol == IPPROTO_ICMPV6 &&
	       ((type >= ND_ROUTER_SOLICITATION && type <= ND_REDIRECT) || (type >= MLD_QUERY && type <= MLD_DONE) ||
		type == MLD_REPORT_2);
}

/* What only a router or another's neighbour says: advertisements and redirects. */
static __always_inline int is_forbidden_message(const struct packet *packet)
{
	return packet->icmp_type == ND_ROUTER_ADVERTISEMENT || packet->icmp_type == ND_ADVERTISEMENT ||
	       packet->icmp_type == ND_REDIRECT || packet->icmp_type == MLD_QUERY;
}

/* What an answer becomes: -1 goes back to the pod, 0 needs none. */
static __always_inline int neighbour_action(struct __sk_buff *skb, int answer)
{
	return answer < 0 ? bpf_redirect(skb->ifindex, 0) : TC_ACT_SHOT;
}

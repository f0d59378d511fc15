/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The end of a packet's way through the programs: into a local pod, to a proxy or the host's stack, or dropped. */
#pragma once

#include <linux/pkt_cls.h>

#include "config.h"
#include "endpoint.h"
#include "event.h"
#include "parse.h"

/* The mark by which the host's routing finds a proxy's socket: this, and the proxy's port in the upper half. */
#define MARK_TO_PROXY 0x0200

#define PACKET_HOST 0

/* A function of its own, so that the verifier follows it once and not behind every check. */
__noinline int deliver_drop(struct __sk_buff *skb, struct packet *packet, int reason)
{
	if (!packet)
		return TC_ACT_SHOT;
	packets_count(packet, reason);
	packet->event_packets = drop_share(packet, reason);
	if (packet->event_packets)
		event_send(skb, packet, EVENT_DROP, reason);
	return TC_ACT_SHOT;
}

/* Addresses the frame to the next device; 0 or the reason of the drop. */
static __always_inline int deliver_address(struct __sk_buff *skb, struct packet *packet, const __u8 *to, const __u8 *from)
{
	struct ethhdr *ethernet = header_at(skb, 0, sizeof(*ethernet));

	if (!ethernet)
		return DROP(packet, DELIVER, WRITE_ERROR);
	mac_copy(ethernet->h_dest, to);
	if (from)
		mac_copy(ethernet->h_source, from);
	/* a frame that its sender addressed to anybody else would be ignored where it is going */
	if (unlikely(skb->pkt_type != PACKET_HOST))
		bpf_skb_change_type(skb, PACKET_HOST);
	return 0;
}

static __always_inline int deliver_to_pod(struct __sk_buff *skb, struct packet *packet, const struct endpoint_entry *pod)
{
	int reason = deliver_address(skb, packet, pod->mac, pod->host_mac);

	if (reason)
		return deliver_drop(skb, packet, reason);
	packets_count(packet, 0);
	return bpf_redirect_peer(pod->ifindex, 0);
}

static __always_inline int deliver_to_host(struct __sk_buff *skb, struct packet *packet)
{
	__u8 mac[6];
	int reason, i;

	for (i = 0; i < 6; i++)
		mac[i] = host_mac[i];
	reason = deliver_address(skb, packet, mac, NULL);
	if (reason)
		return deliver_drop(skb, packet, reason);
	if (packet->proxy_port || packet->to_proxy)
		skb->mark = MARK_TO_PROXY | (__u32)packet->proxy_port << 16;
	packets_count(packet, 0);
	return bpf_redirect(host_ifindex, BPF_F_INGRESS);
}

/* Allowed: where conntrack or the verdict says. */
static __always_inline int deliver(struct __sk_buff *skb, struct packet *packet)
{
	struct endpoint_entry *pod;

	if (unlikely(packet->kind))
		event_send(skb, packet, packet->kind, 0);
	if (!packet->destination_endpoint || packet->proxy_port)
		return deliver_to_host(skb, packet);
	pod = endpoint_by_id(packet->destination_endpoint);
	if (!pod || pod->generation != packet->destination_generation)
		return deliver_drop(skb, packet, DROP(packet, DELIVER, STALE_OR_UNROUTABLE_IP));
	return deliver_to_pod(skb, packet, pod);
}

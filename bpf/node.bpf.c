/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The programs of a node, one set for all endpoints: from_pod at each pod's host end, from_host behind ciliate_host, and
 * conntrack_collect and conntrack_recount, which user space runs. Packet programs are of type tc, wherever they are attached.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "ciliate/collect.h"
#include "ciliate/deliver.h"
#include "ciliate/fragment.h"
#include "ciliate/icmp.h"
#include "ciliate/neighbour.h"
#include "ciliate/points.h"
#include "ciliate/service.h"
#include "ciliate/switches.h"
#include "ciliate/translate.h"

#define MARK_PROXY_MASK 0x0f00
#define MARK_FROM_INGRESS_PROXY 0x0a00
#define MARK_FROM_EGRESS_PROXY 0x0b00

static __always_inline int parse(struct __sk_buff *skb, struct packet *packet)
{
	int reason = DROP(packet, NODE, UNSUPPORTED_L3_PROTOCOL);

	if (packet->ether_type == ETH_P_IP && ipv4_enabled)
		reason = parse_ipv4(skb, packet);
	else if (packet->ether_type == ETH_P_IPV6 && ipv6_enabled)
		reason = parse_ipv6(skb, packet);
	else if (packet->ether_type == ETH_P_8021Q || packet->ether_type == ETH_P_8021AD || skb->vlan_present)
		reason = DROP(packet, NODE, UNSUPPORTED_L2_PROTOCOL);
	return reason ? reason : parse_ports(skb, packet);
}

/* Translation, conntrack and verdict; 0 or the reason of the drop. */
static __always_inline int judge_packet(struct __sk_buff *skb, struct packet *packet)
{
	int reason;

	if (unlikely(packet->icmp_kind == ICMP_ERROR))
		return icmp_error(skb, packet);
	if (unlikely(packet->switches & SWITCH_SERVICES && packet->path == PATH_POD)) {
		reason = service_translate(packet);
		if (reason)
			return reason;
	}
	reason = flow_track(packet);
	if (unlikely(reason == DROP_TUPLE_CLASH && !packet->service))
		reason = service_give_way(packet);
	if (unlikely(!reason && packet->reverse))
		reason = service_restore(packet);
	return reason;
}

static __always_inline int forward(struct __sk_buff *skb, struct packet *packet)
{
	int reason = judge_packet(skb, packet);

	if (!reason && unlikely(packet->translated))
		reason = translate(skb, packet);
	return unlikely(reason) ? deliver_drop(skb, packet, reason) : deliver(skb, packet);
}

static __always_inline void receive(struct __sk_buff *skb, struct packet *packet)
{
	packet->length = skb->len;
	packet->ether_type = bpf_ntohs(skb->protocol);
	packet->direction = DIRECTION_UNKNOWN;
	packet->switches = switches_load();
}

/* The frame's source must be the endpoint's MAC, the packet's one of its addresses. */
static __always_inline int check_mac(struct __sk_buff *skb, struct packet *packet, const struct endpoint_entry *endpoint)
{
	struct ethhdr *ethernet = header_at(skb, 0, sizeof(*ethernet));

	if (!ethernet || !mac_equal(ethernet->h_source, endpoint->mac))
		return DROP(packet, NODE, INVALID_SOURCE_MAC);
	return 0;
}

static __always_inline int check_source(struct packet *packet, const struct endpoint_entry *endpoint)
{
	const union address *own = packet->ether_type == ETH_P_IP ? &endpoint->ipv4 : &endpoint->ipv6;

	/* an endpoint without an address of the family has none to send from */
	if (unlikely(!address_equal(&packet->now.source, own) || address_is_zero(own)))
		return DROP(packet, NODE, INVALID_SOURCE_IP);
	if (unlikely(address_is_group(&packet->now.destination)))
		return DROP(packet, NODE, UNKNOWN_L3_TARGET_ADDRESS);
	return 0;
}

/* Neighbour discovery and its like are between the pod and its gateway, which is here. */
static __always_inline int answer_neighbour(struct __sk_buff *skb, struct packet *packet, const struct endpoint_entry *endpoint)
{
	int answer;

	if (is_forbidden_message(packet))
		return deliver_drop(skb, packet, DROP(packet, NODE, FORBIDDEN_ICMPV6_MESSAGE));
	if (packet->icmp_type != ND_SOLICITATION)
		return TC_ACT_SHOT; /* asks for a router or a group, as every host does at its start: nobody is there */
	answer = nd_answer(skb, packet, endpoint);
	return answer > 0 ? deliver_drop(skb, packet, answer) : neighbour_action(skb, answer);
}

static __always_inline int answer_arp(struct __sk_buff *skb, struct packet *packet, const struct endpoint_entry *endpoint)
{
	int answer = arp_answer(skb, packet, endpoint);

	return answer > 0 ? deliver_drop(skb, packet, answer) : neighbour_action(skb, answer);
}

static __always_inline const struct endpoint_entry *endpoint_of(struct __sk_buff *skb, struct packet *packet)
{
	struct endpoint_entry *endpoint;
	__u32 id = skb->ifindex - IFINDEX_BASE;

	if (!id || id >= ENDPOINTS_MAX)
		return NULL;
	endpoint = endpoint_by_id(id);
	if (!endpoint || endpoint->ifindex != skb->ifindex)
		return NULL;
	packet->endpoint = id;
	packet->generation = endpoint->generation;
	return endpoint;
}

/* What a pod sends: at the ingress of its veth's host end. */
SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	struct packet *packet = packet_scratch();
	const struct endpoint_entry *endpoint;
	int reason;

	if (!packet)
		return TC_ACT_SHOT;
	receive(skb, packet);
	endpoint = endpoint_of(skb, packet);
	if (!endpoint)
		return deliver_drop(skb, packet, DROP(packet, NODE, UNKNOWN_ENDPOINT));
	reason = check_mac(skb, packet, endpoint);
	if (reason)
		return deliver_drop(skb, packet, reason);
	if (unlikely(packet->ether_type == ETH_P_ARP))
		return answer_arp(skb, packet, endpoint);
	reason = parse(skb, packet);
	if (reason)
		return deliver_drop(skb, packet, reason);
	if (unlikely(is_neighbour_message(packet)))
		return answer_neighbour(skb, packet, endpoint);
	reason = check_source(packet, endpoint);
	if (!reason && unlikely(packet->switches & SWITCH_POINT(PLUGIN_POINT_FROM_POD)))
		reason = point_from_pod(skb, packet);
	if (reason)
		return deliver_drop(skb, packet, reason);
	return forward(skb, packet);
}

/* A proxy's second half of a flow says so by its mark, and whose it is: bits 0 to 15 of the identity in the upper half of the
 * mark, bits 16 to 23 in its lowest byte.
 */
static __always_inline void note_proxy(struct __sk_buff *skb, struct packet *packet)
{
	__u32 mark = skb->mark;

	if ((mark & MARK_PROXY_MASK) == MARK_FROM_INGRESS_PROXY)
		packet->path = PATH_INGRESS_PROXY;
	else if ((mark & MARK_PROXY_MASK) == MARK_FROM_EGRESS_PROXY)
		packet->path = PATH_EGRESS_PROXY;
	else
		return;
	packet->proxy_identity = (mark & 0xff) << 16 | mark >> 16;
}

/* What the host's stack sends to pods, its own and what it forwards: at the ingress of ciliate_net. */
SEC("tc")
int from_host(struct __sk_buff *skb)
{
	struct packet *packet = packet_scratch();
	int reason;

	if (!packet)
		return TC_ACT_SHOT;
	receive(skb, packet);
	packet->path = PATH_HOST;
	if (packet->ether_type != ETH_P_IP && packet->ether_type != ETH_P_IPV6)
		return TC_ACT_OK;
	note_proxy(skb, packet);
	reason = parse(skb, packet);
	/* what the stack says to everyone at a device (neighbour discovery, MLD) is not for pods */
	if (address_is_group(&packet->now.destination))
		return TC_ACT_OK;
	if (reason)
		return deliver_drop(skb, packet, reason);
	return forward(skb, packet);
}

/* Looks at `count` keys of collect_keys in one table and removes what is over. */
SEC("syscall")
int conntrack_collect(struct collect_context *context)
{
	struct collect_context collect = {.table = context->table, .now = bpf_jiffies64()};
	__u32 count = context->count;

	if (count > COLLECT_MAX)
		count = COLLECT_MAX;
	bpf_loop(count, collect_one, &collect, 0);
	context->deleted = collect.deleted;
	context->kept = collect.kept;
	context->now = collect.now;
	return 0;
}

/* Puts right what is wrong with the count of an endpoint's flows. */
SEC("syscall")
int conntrack_recount(struct recount_context *context)
{
	flow_count(flows_of(context->endpoint, 0), context->change);
	return 0;
}

char _license[] SEC("license") = "GPL";

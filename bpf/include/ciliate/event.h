/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The event record, and the counters of packets by reason: everything is counted, what is worth it is told. */
#pragma once

#include "config.h"
#include "parse.h"

/* The one ring buffer of events. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} events SEC(".maps");

/* Slot 0: records for which the ring had no room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} events_lost SEC(".maps");

/* reason << 1 | direction (0 ingress, 1 egress), reason 0: forwarded; to packets and bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct packets_entry);
	__uint(max_entries, 512);
} packets SEC(".maps");

#define DROP_LIMITS 1024

struct drop_limit {
	__u64 since; /* start of the window, in ticks */
	__u32 mark;  /* hash of flow and reason */
	__u32 count; /* in this window, reported or not */
};

/* Hash of flow and reason to how often it was dropped in this window. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct drop_limit);
	__uint(max_entries, DROP_LIMITS);
} drop_limits SEC(".maps");

static __always_inline void packets_count(const struct packet *packet, int reason)
{
	__u32 direction = packet->direction < DIRECTION_UNKNOWN && reason ? packet->direction : packet->path == PATH_POD;
	__u32 slot = ((__u32)reason & 0xff) << 1 | direction;
	struct packets_entry *entry = bpf_map_lookup_elem(&packets, &slot);

	if (!entry)
		return;
	entry->packets++;
	entry->bytes += packet->length;
}

static __always_inline __u32 drop_mark(const struct packet *packet, int reason)
{
	const struct tuple *tuple = &packet->now;
	__u32 mark = tuple->source.words[3] ^ tuple->source.words[1];

	mark = mark * 0x9E3779B1U + (tuple->destination.words[3] ^ tuple->destination.words[1]);
	mark = mark * 0x85EBCA6BU + ((__u32)tuple->source_port << 16 | tuple->destination_port);
	return mark * 0xC2B2AE35U + ((__u32)packet->protocol << 8 | reason) + packet->endpoint;
}

/* How many drops this report stands for; 0: enough of this kind were reported in this window. */
static __always_inline __u32 drop_share(const struct packet *packet, int reason)
{
	__u32 mark = drop_mark(packet, reason);
	__u32 slot = mark >> 22;
	__u64 now = bpf_jiffies64();
	struct drop_limit *limit = bpf_map_lookup_elem(&drop_limits, &slot);
	__u32 unreported = 0;

	if (!limit)
		return 1;
	if (limit->mark != mark || now - limit->since >= drop_window) {
		if (limit->mark == mark && limit->count > drop_burst)
			unreported = limit->count - drop_burst;
		limit->mark = mark;
		limit->since = now;
		limit->count = 0;
	}
	limit->count++;
	return limit->count <= drop_burst ? 1 + unreported : 0;
}

static __always_inline void event_fill_macs(struct event *event, struct __sk_buff *skb)
{
	const __u8 *data = header_at(skb, 0, 12);

	if (!data)
		return;
	mac_copy(event->destination_mac, data);
	mac_copy(event->source_mac, data + 6);
}

static __always_inline void event_fill_tuple(struct event *event, const struct packet *packet)
{
	__builtin_memcpy(event->source, &packet->now.source, 16);
	__builtin_memcpy(event->destination, &packet->now.destination, 16);
	event->source_port = bpf_ntohs(packet->now.source_port);
	event->destination_port = bpf_ntohs(packet->now.destination_port);
	if (packet->icmp_kind) {
		event->source_port = packet->icmp_type;
		event->destination_port = packet->icmp_code;
	}
	if (!packet->translated)
		return;
	__builtin_memcpy(event->original_source, &packet->original.source, 16);
	__builtin_memcpy(event->original_destination, &packet->original.destination, 16);
	event->original_source_port = bpf_ntohs(packet->original.source_port);
	event->original_destination_port = bpf_ntohs(packet->original.destination_port);
}

static __always_inline void event_fill_flow(struct event *event, const struct packet *packet)
{
	event->source_endpoint = packet->endpoint;
	event->destination_endpoint = packet->destination_endpoint;
	event->source_identity = packet->identity[SOURCE];
	event->destination_identity = packet->identity[DESTINATION];
	event->rule_set_egress = packet->rule_set[EGRESS_VERDICT];
	event->rule_set_ingress = packet->rule_set[INGRESS_VERDICT];
	event->match_egress = packet->match_type[EGRESS_VERDICT];
	event->match_ingress = packet->match_type[INGRESS_VERDICT];
	event->verdicts = packet->verdicts;
	event->ct_state = packet->ct_state;
	event->proxy_port = packet->proxy_port;
	event->direction = packet->direction;
	event->plugin_slot = packet->plugin_slot;
}

static __always_inline __u8 event_point(const struct packet *packet, __u8 kind)
{
	if (kind == EVENT_DROP)
		return packet->path == PATH_POD ? POINT_FROM_ENDPOINT : POINT_FROM_HOST;
	if (packet->proxy_port || packet->to_proxy)
		return POINT_TO_PROXY;
	if (packet->destination_endpoint)
		return POINT_TO_ENDPOINT;
	return packet->identity[DESTINATION] == IDENTITY_HOST ? POINT_TO_HOST : POINT_TO_STACK;
}

/* Whether this record wakes the drain. It reads the ring by its own clock (core/ciliate/batches.py): to be woken for every
 * record costs the sending CPU an interrupt to the other each time, 15 to 25 us a TCP connection (m). So only a few of those
 * that fill the ring beyond EVENTS_WAKE do, for a burst that would not wait. A CPU looks at every EVENTS_LOOK-th of its own;
 * the room in which it wakes is wider than that, as other CPUs fill the ring between its looks.
 */
#define EVENTS_WAKE (1024 * 1024)
#define EVENTS_LOOK 32
#define EVENTS_WAKE_ROOM (8 * EVENTS_LOOK * (sizeof(struct event) + BPF_RINGBUF_HDR_SZ))
static __always_inline __u64 event_wake(struct packet *packet)
{
	__u64 above;

	if (likely(++packet->events_sent % EVENTS_LOOK))
		return BPF_RB_NO_WAKEUP;
	above = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) - EVENTS_WAKE;
	return above < EVENTS_WAKE_ROOM ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* A function with this argument also puts the struct into BTF, by which it is compared with its dtype. */
__noinline int event_fill(struct __sk_buff *skb, struct packet *packet, struct event *event)
{
	if (!packet || !event)
		return 0;
	event->time = bpf_ktime_get_coarse_ns();
	event->protocol = packet->protocol;
	event->tcp_flags = packet->tcp_flags;
	event->file = packet->file;
	event->line = packet->line;
	event->ether_type = packet->ether_type;
	event->ifindex = skb->ifindex;
	event->length = packet->length;
	event->packets = packet->event_packets;
	event->socket_cookie = bpf_get_socket_cookie(skb);
	event_fill_tuple(event, packet);
	event_fill_flow(event, packet);
	event_fill_macs(event, skb);
	return 0;
}

/* One record; never waits, and counts what found no room. */
__noinline int event_send(struct __sk_buff *skb, struct packet *packet, __u32 kind, __u32 reason)
{
	struct event *event;
	__u32 zero = 0;
	__u64 *lost;

	if (!packet)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lost = bpf_map_lookup_elem(&events_lost, &zero);
		if (lost)
			(*lost)++;
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->point = event_point(packet, kind);
	event->reason = reason;
	event_fill(skb, packet, event);
	bpf_ringbuf_submit(event, event_wake(packet));
	return 0;
}

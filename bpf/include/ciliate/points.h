/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Points of a packet's path at which plugins' programs run: eight slots a point, called in order, each answering CONTINUE or
 * DROP. What is called is in a program array; which of its slots are in use, in `point_slots`; whether any is, in the mask
 * word of switches.h, so that a point which nobody uses costs one test of a bit.
 *
 * A tail call from a function returns to that function's caller. So each slot has a function of its own, which is all that a
 * plugin's program replaces. (With the slot's number constant the kernel patches in a direct jump.)
 */
#pragma once

#include "deliver.h"
#include "plugin.h"
#include "policy.h"
#include "switches.h"

#define POINT_SLOTS 8
#define SWITCH_POINT(point) (1U << (SWITCH_POINTS + (point)))

/* Slot to the plugin's program. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, POINT_SLOTS);
} from_pod_slots SEC(".maps");

/* Point to a mask of its slots in use. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, POINTS_MAX);
} point_slots SEC(".maps");

/* point * POINT_SLOTS + slot to what its program did. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct point_entry);
	__uint(max_entries, POINTS_MAX * POINT_SLOTS);
} point_stats SEC(".maps");

/* Of so many packets of a slot, the time of one is taken. */
#define POINT_SAMPLE 1024

static __always_inline struct point_entry *point_entry(__u32 point, __u32 slot)
{
	__u32 index = point * POINT_SLOTS + slot;

	return bpf_map_lookup_elem(&point_stats, &index);
}

/* Counts a packet; the time if it is to be taken of this one, else 0. */
static __always_inline __u64 point_begin(struct packet *packet, __u32 point, __u32 slot)
{
	struct point_entry *entry = point_entry(point, slot);

	packet->missed = 0;
	if (!entry || (entry->packets++ & (POINT_SAMPLE - 1)))
		return 0;
	return bpf_ktime_get_ns();
}

/* What the answer of a slot's program comes to. */
static __always_inline int point_end(struct packet *packet, __u32 point, __u32 slot, int answer, __u64 began)
{
	struct point_entry *entry = point_entry(point, slot);

	if (!entry)
		return 0;
	if (unlikely(packet->missed)) {
		entry->missed++;
		return 0;
	}
	if (unlikely(began)) {
		entry->samples++;
		entry->time += bpf_ktime_get_ns() - began;
	}
	if (likely(answer == CILIATE_CONTINUE))
		return 0;
	if (answer != CILIATE_DROP) {
		entry->invalid++;
		return 0;
	}
	entry->drops++;
	packet->plugin_slot = slot + 1;
	return DROP(packet, POINT, PLUGIN);
}

/* The compiler must not conclude that the answer is always what stands here. */
#define POINT_FUNCTION(point, slot)                                                                                            \
	static __noinline int point##_##slot(struct __sk_buff *skb, struct packet *packet)                                     \
	{                                                                                                                      \
		int answer = CILIATE_CONTINUE;                                                                                 \
                                                                                                                               \
		bpf_tail_call_static(skb, &point##_slots, slot);                                                               \
		packet->missed = 1;                                                                                            \
		barrier_var(answer);                                                                                           \
		return answer;                                                                                                 \
	}

#define POINT_STEP(point, number, slot)                                                                                        \
	if (slots & (1U << (slot))) {                                                                                          \
		__u64 began = point_begin(packet, number, slot);                                                               \
		int answer = point##_##slot(skb, packet);                                                                      \
		int reason = point_end(packet, number, slot, answer, began);                                                   \
                                                                                                                               \
		if (reason)                                                                                                    \
			return reason;                                                                                         \
	}

#define POINT_EACH_SLOT(macro, ...)                                                                                            \
	macro(__VA_ARGS__, 0) macro(__VA_ARGS__, 1) macro(__VA_ARGS__, 2) macro(__VA_ARGS__, 3)                                \
	macro(__VA_ARGS__, 4) macro(__VA_ARGS__, 5) macro(__VA_ARGS__, 6) macro(__VA_ARGS__, 7)

static __always_inline void point_describe(const struct packet *packet, __u32 endpoint, __u8 direction)
{
	struct endpoint_policy_entry *own = bpf_map_lookup_elem(&endpoint_policy, &endpoint);
	__u32 zero = 0;
	struct ciliate_packet *shown = bpf_map_lookup_elem(&point_packet, &zero);

	if (!shown)
		return;
	shown->version = CILIATE_PACKET_VERSION;
	shown->transport = packet->transport;
	shown->family = packet->ether_type == ETH_P_IP ? 4 : 6;
	shown->protocol = packet->protocol;
	shown->direction = direction;
	shown->fragment = packet->fragment;
	shown->tcp_flags = packet->tcp_flags;
	shown->icmp_type = packet->icmp_type;
	shown->icmp_code = packet->icmp_code;
	shown->length = packet->length;
	shown->endpoint = endpoint;
	shown->identity = own ? own->identity : 0;
	shown->source_port = bpf_ntohs(packet->now.source_port);
	shown->destination_port = bpf_ntohs(packet->now.destination_port);
	__builtin_memcpy(shown->source, &packet->now.source, 16);
	__builtin_memcpy(shown->destination, &packet->now.destination, 16);
}

POINT_EACH_SLOT(POINT_FUNCTION, from_pod)

/* What a pod sends, before anything of it is judged: 0, or the reason of the drop. */
__noinline int point_from_pod(struct __sk_buff *skb, struct packet *packet)
{
	__u32 point = PLUGIN_POINT_FROM_POD;
	__u32 *mask = bpf_map_lookup_elem(&point_slots, &point);
	__u32 slots = mask ? READ_ONCE(*mask) : 0;

	if (!packet)
		return 0;
	point_describe(packet, packet->endpoint, CILIATE_EGRESS);
	POINT_EACH_SLOT(POINT_STEP, from_pod, PLUGIN_POINT_FROM_POD)
	return 0;
}

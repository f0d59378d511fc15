/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
#include <ciliate/plugin.h>

/* A token bucket, kept as the time at which it will be full again: one word, which CPUs change without a lock. Times in ns. */
struct rate_bucket {
	__u64 interval; /* in which one packet's worth flows in */
	__u64 depth;    /* in which it fills up from empty */
	__u64 full_at;
	__u64 passed;
	__u64 dropped;
};

/* Endpoint id to its bucket. Who has none has no limit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct rate_bucket);
	__uint(max_entries, 4096);
} rate_buckets SEC(".maps");

SEC("tc")
int rate_limiter(struct __sk_buff *skb)
{
	const struct ciliate_packet *packet = ciliate_packet();
	__u32 endpoint = packet ? packet->endpoint : 0;
	struct rate_bucket *bucket = bpf_map_lookup_elem(&rate_buckets, &endpoint);
	__u64 now = bpf_ktime_get_ns();
	for (int attempt = 0; bucket && attempt < 8; attempt++) {
		__u64 full_at = *(volatile __u64 *)&bucket->full_at;
		__u64 then = (full_at > now ? full_at : now) + bucket->interval;
		if (then > now + bucket->depth) {
			__sync_fetch_and_add(&bucket->dropped, 1);
			return CILIATE_DROP;
		}
		if (__sync_val_compare_and_swap(&bucket->full_at, full_at, then) == full_at) {
			__sync_fetch_and_add(&bucket->passed, 1);
			return CILIATE_CONTINUE;
		}
	}
	return CILIATE_CONTINUE; /* no limit; or other CPUs were quicker eight times: this one packet is free */
}

char _license[] SEC("license") = "GPL";

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A program as a plugin from elsewhere ships it: it includes the public header and nothing else of Ciliate. */
#include <ciliate/plugin.h>

const volatile int answer = CILIATE_CONTINUE;

struct seen {
	__u64 packets;
	struct ciliate_packet last;
};

/* Slot 0: how many packets, and the last of them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct seen);
	__uint(max_entries, 1);
} stranger_seen SEC(".maps");

SEC("tc")
int note(struct __sk_buff *skb)
{
	const struct ciliate_packet *packet = ciliate_packet();
	__u32 zero = 0;
	struct seen *seen = bpf_map_lookup_elem(&stranger_seen, &zero);

	if (!packet || !seen)
		return CILIATE_CONTINUE;
	seen->packets++;
	seen->last = *packet;
	return answer;
}

char _license[] SEC("license") = "GPL";

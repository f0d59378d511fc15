// SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0)
/* The plainest policy there is: one rule, kept in one map entry, that names one UDP port. It stands in front of
 * tests/bench/programs/forward.bpf.c and proves that the traffic checker tells a rule that is late from one that is not.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PASS 0
#define ALLOW_ONE 1
#define DENY_ONE 2

/* Index 0 to the rule: its kind, and the UDP port that it names. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64); /* one word, so that it changes at once: kind << 32 | port */
} rule SEC(".maps");

SEC("tc")
int gate(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u32 zero = 0;
	__u64 *word = bpf_map_lookup_elem(&rule, &zero);

	if (!word || (void *)(udp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	__u64 now = *(volatile __u64 *)word;
	int named = bpf_ntohs(udp->dest) == (__u32)now;
	if ((now >> 32 == ALLOW_ONE && !named) || (now >> 32 == DENY_ONE && named))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";

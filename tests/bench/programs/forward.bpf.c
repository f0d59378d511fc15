// SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0)
/* The least that any data path of this kind must do: rewrite the MACs, hand the packet to the other pod.
 *
 * A peer for the benchmark, not a part of Ciliate. It joins two veths whose host ends have the indexes
 * FIRST and SECOND; the MACs of all four ends are built from the indexes (see spaces.py: 02:0c:00:00:END:INDEX).
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FIRST 101
#define SECOND 102
#define HOST_END 1
#define POD_END 2

/* Three stores of two bytes: one a byte, as the packed header asks for, would cost as much as the rest. */
static __always_inline void write_mac(__u8 *mac, __u8 end, __u8 index)
{
	__u16 *words = (void *)mac;

	words[0] = bpf_htons(0x020c);
	words[1] = 0;
	words[2] = bpf_htons(end << 8 | index);
}

SEC("tc")
int forward(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	__u32 peer = skb->ifindex == FIRST ? SECOND : FIRST;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	write_mac(eth->h_dest, POD_END, peer);
	write_mac(eth->h_source, HOST_END, peer);
	return bpf_redirect_peer(peer, 0);
}

char LICENSE[] SEC("license") = "GPL";

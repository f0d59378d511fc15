/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Settings of a program set: read-only data that the loader fills before the verifier sees the programs. */
#pragma once

#include <bpf/bpf_helpers.h>
#include <linux/types.h>

#define SETTING const volatile

/* Index and MAC of ciliate_host, through which the host's stack is reached. */
SETTING __u32 host_ifindex = 0;
SETTING __u8 host_mac[6] = {};

/* Families that are switched on; a packet of another one is dropped (reason 139). */
SETTING __u8 ipv4_enabled = 1;
SETTING __u8 ipv6_enabled = 1;

/* Identity of an address that the ipcache doesn't know. */
SETTING __u32 world_ipv4_identity = 2;
SETTING __u32 world_ipv6_identity = 2;

/* Source that a pod sees when it reaches itself through a service. IPv4 as ::ffff:a.b.c.d */
SETTING __u8 loopback_ipv4[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254, 42, 1};
SETTING __u8 loopback_ipv6[16] = {0xfd, 0xca, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42, 1};

/* All times are in ticks of the kernel (jiffies); the defaults are for 250 a second.
 * A flow without a packet for so long is over; its state and protocol say which applies.
 */
SETTING __u64 timeout_tcp = 8000 * 250;
SETTING __u64 timeout_any = 60 * 250;
SETTING __u64 timeout_syn = 60 * 250;
SETTING __u64 timeout_fin = 10 * 250;

/* At most one event for each flow in so long, unless a TCP flag is new. */
SETTING __u64 event_interval = 5 * 250;

/* Of the drops that look alike (addresses, ports, reason), so many are reported in each window; all are counted. */
SETTING __u32 drop_burst = 16;
SETTING __u64 drop_window = 250;

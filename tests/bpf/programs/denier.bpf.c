/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A stranger's program that drops what goes to one port. */
#include <ciliate/plugin.h>

const volatile __u16 denied_port = 0;

SEC("tc")
int deny_port(struct __sk_buff *skb)
{
	const struct ciliate_packet *packet = ciliate_packet();

	return packet && packet->destination_port == denied_port ? CILIATE_DROP : CILIATE_CONTINUE;
}

char _license[] SEC("license") = "GPL";

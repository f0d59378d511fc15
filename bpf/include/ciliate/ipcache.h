/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Address to identity, by longest prefix. User space writes, programs read. */
#pragma once

#include "config.h"
#include "packet.h"

/* Prefix to identity and node. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_entry);
	__uint(max_entries, 512000);
} ipcache SEC(".maps");

static __always_inline struct ipcache_entry *ipcache_lookup(const union address *address)
{
	struct ipcache_key key = {.prefixlen = 128};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&ipcache, &key);
}

static __always_inline __u32 world_identity(const union address *address)
{
	return address_is_ipv4(address) ? world_ipv4_identity : world_ipv6_identity;
}

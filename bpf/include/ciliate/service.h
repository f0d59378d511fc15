/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Service translation: a service's address and port to a backend's, and for replies back.
 *
 * A flow keeps its backend: the tuple as the client sends it names, in service_new and once answered in service_flows, what it
 * was translated to. Where the translated tuple is another flow's already, the client's port is replaced by a free one.
 */
#pragma once

#include "flow.h"

/* Address, port and protocol to service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct service_key);
	__type(value, struct service_entry);
	__uint(max_entries, 65536);
} services SEC(".maps");

/* Service and slot (1 to its count) to backend. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct backend_key);
	__type(value, struct backend_entry);
	__uint(max_entries, 262144);
} backends SEC(".maps");

/* Service to the address and port that its replies bear. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct backend_entry);
	__uint(max_entries, 65536);
} service_reverse SEC(".maps");

/* Untranslated tuple (a: client, b: service) of an answered flow to its translation. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct conntrack_key);
	__type(value, struct service_flow_entry);
	__uint(max_entries, 262144);
} service_flows SEC(".maps");

/* The same of a flow that nobody has answered yet. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct conntrack_key);
	__type(value, struct service_flow_entry);
	__uint(max_entries, 65536);
} service_new SEC(".maps");

#define PORT_TRIES 32
#define PORT_FIRST 1024

static __always_inline void service_flow_key(struct conntrack_key *key, const union address *client, __be16 client_port,
					     const union address *service, __be16 port, __u8 protocol)
{
	key->a = *client;
	key->b = *service;
	key->port_a = client_port;
	key->port_b = port;
	key->protocol = protocol;
	key->leg = 0;
	key->pad = 0;
}

static __always_inline __u32 tuple_hash(const struct packet *packet)
{
	const struct tuple *tuple = &packet->now;
	__u32 mixed = tuple->source.words[0] ^ tuple->source.words[1] ^ tuple->source.words[2] ^ tuple->source.words[3];

	mixed = mixed * 0x9E3779B1U + tuple->destination.words[3];
	mixed = (mixed ^ mixed >> 15) * 0x85EBCA6BU + ((__u32)tuple->source_port << 16 | tuple->destination_port);
	mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35U;
	return mixed ^ mixed >> 16;
}

/* Where the flow goes, by hash of its tuple: a repeated SYN goes where the first went. */
static __always_inline int service_select(struct packet *packet, const struct service_entry *service)
{
	struct service_flow_entry *flow = &packet->service_flow;
	struct backend_key key = {.service = service->service};
	struct backend_entry *backend;

	if (!service->count)
		return DROP(packet, SERVICE, SERVICE_BACKEND_NOT_FOUND);
	key.slot = 1 + tuple_hash(packet) % service->count;
	backend = bpf_map_lookup_elem(&backends, &key);
	if (!backend)
		return DROP(packet, SERVICE, SERVICE_BACKEND_NOT_FOUND);
	__builtin_memset(flow, 0, sizeof(*flow));
	__builtin_memcpy(&flow->backend, backend->address, 16);
	flow->port = backend->port;
	flow->source_port = packet->now.source_port;
	flow->service = service->service;
	flow->loopback = address_equal(&flow->backend, &packet->now.source);
	return 0;
}

/* packet->now becomes what packet->service_flow says. */
static __always_inline void service_apply(struct packet *packet)
{
	const struct service_flow_entry *flow = &packet->service_flow;

	packet->original = packet->now;
	packet->now.destination = flow->backend;
	packet->now.destination_port = flow->port;
	packet->now.source_port = flow->source_port;
	packet->service = flow->service;
	packet->loopback = flow->loopback;
	packet->translated = 1;
	if (!flow->loopback)
		return;
	if (address_is_ipv4(&flow->backend))
		__builtin_memcpy(&packet->now.source, (const void *)loopback_ipv4, 16);
	else
		__builtin_memcpy(&packet->now.source, (const void *)loopback_ipv6, 16);
}

/* Whether a live flow, not this one, has the translated tuple with this source port. */
static __always_inline int service_port_is_taken(struct packet *packet, __be16 port)
{
	struct conntrack_entry *entry;

	packet->now.source_port = port;
	packet->side = conntrack_key_of(&packet->key, &packet->now, packet->protocol, LEG_BOTH);
	entry = conntrack_find(packet);
	if (!entry)
		entry = bpf_map_lookup_elem(&conntrack_new, &packet->key);
	if (!entry || conntrack_is_over(entry, packet->protocol, bpf_jiffies64()))
		return 0;
	if (entry->origin != packet->side)
		return 1;
	return flow_is_clash(packet, entry);
}

/* A source port with which the translated tuple is this flow's alone: the client's own, if it can be. */
static __noinline int service_find_port(struct packet *packet)
{
	__u32 hash = tuple_hash(packet);
	__u32 i;

	if (!service_port_is_taken(packet, packet->original.source_port))
		return 0;
	for (i = 0; i < PORT_TRIES; i++) {
		/* a large odd step, so that neighbours in the hash don't try the same ports */
		__u16 port = PORT_FIRST + (hash + i * 7919) % (65536 - PORT_FIRST);

		if (!service_port_is_taken(packet, bpf_htons(port)))
			return 0;
	}
	return DROP(packet, SERVICE, TUPLE_CLASH);
}

/* The translation of this flow, if it has one. */
static __always_inline struct service_flow_entry *service_flow_find(struct packet *packet)
{
	struct service_flow_entry *flow = bpf_map_lookup_elem(&service_flows, &packet->other_key);

	return flow ? flow : bpf_map_lookup_elem(&service_new, &packet->other_key);
}

static __always_inline int service_flow_is_over(const struct packet *packet, const struct service_flow_entry *flow)
{
	return bpf_jiffies64() - flow->seen > conntrack_timeout(packet->protocol, STATE_ESTABLISHED);
}

/* Gives a flow its translation: the packet's, if it is known. */
static __always_inline int service_flow_use(struct packet *packet)
{
	struct service_flow_entry *flow = service_flow_find(packet);

	if (!flow || TCP_OPENS(packet) || service_flow_is_over(packet, flow))
		return FLOW_NOT_FOUND;
	flow->seen = bpf_jiffies64();
	packet->service_flow = *flow;
	service_apply(packet);
	return 0;
}

static __always_inline int service_flow_begin(struct packet *packet)
{
	int reason;

	service_apply(packet);
	reason = service_find_port(packet);
	if (reason)
		return reason;
	packet->service_flow.source_port = packet->now.source_port;
	packet->service_flow.seen = bpf_jiffies64();
	if (bpf_map_update_elem(&service_new, &packet->other_key, &packet->service_flow, BPF_ANY))
		return DROP(packet, SERVICE, CT_INSERTION_FAILED);
	return 0;
}

/* 0 (translated, or no service), or the reason of the drop. */
static __noinline int service_translate(struct packet *packet)
{
	const struct tuple *tuple = &packet->now;
	struct service_entry *service;
	struct service_key key = {};
	int reason;

	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		return 0;
	__builtin_memcpy(key.address, &tuple->destination, 16);
	key.port = tuple->destination_port;
	key.protocol = packet->protocol;
	service = bpf_map_lookup_elem(&services, &key);
	if (!service)
		return 0;
	service_flow_key(&packet->other_key, &tuple->source, tuple->source_port, &tuple->destination,
			 tuple->destination_port, packet->protocol);
	if (service_flow_use(packet) != FLOW_NOT_FOUND)
		return 0;
	reason = service_select(packet, service);
	return reason ? reason : service_flow_begin(packet);
}

/* An untranslated flow whose tuple a translated one has got: its source port gives way. */
static __always_inline int service_remap(struct packet *packet)
{
	const struct tuple *tuple = &packet->now;
	struct service_flow_entry *flow = &packet->service_flow;

	service_flow_key(&packet->other_key, &tuple->source, tuple->source_port, &tuple->destination,
			 tuple->destination_port, packet->protocol);
	if (service_flow_use(packet) != FLOW_NOT_FOUND)
		return 0;
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->backend = tuple->destination;
	flow->port = tuple->destination_port;
	flow->source_port = tuple->source_port;
	flow->service = SERVICE_DIRECT;
	return service_flow_begin(packet);
}

static __noinline int service_give_way(struct packet *packet)
{
	int reason = service_remap(packet);

	return reason ? reason : flow_track_again(packet);
}

/* The reply of a translated flow gets back the addresses and ports that its client knows. */
static __always_inline int service_untranslate(struct packet *packet)
{
	__u32 service = packet->reverse;
	struct backend_entry *face;

	packet->original = packet->now;
	packet->translated = 1;
	packet->now.destination_port = packet->original_port;
	if (packet->loopback)
		packet->now.destination = packet->now.source;
	if (service == SERVICE_DIRECT)
		return 0;
	face = bpf_map_lookup_elem(&service_reverse, &service);
	if (!face)
		return DROP(packet, SERVICE, NO_NAT_MAPPING);
	__builtin_memcpy(&packet->now.source, face->address, 16);
	packet->now.source_port = face->port;
	return 0;
}

/* The flow was answered just now: its translation is kept as long as the flow. */
static __noinline int service_promote(struct packet *packet)
{
	struct service_flow_entry *flow;

	service_flow_key(&packet->other_key, &packet->now.destination, packet->now.destination_port, &packet->now.source,
			 packet->now.source_port, packet->protocol);
	flow = bpf_map_lookup_elem(&service_new, &packet->other_key);
	if (!flow)
		return 0;
	packet->service_flow = *flow;
	if (bpf_map_update_elem(&service_flows, &packet->other_key, &packet->service_flow, BPF_ANY))
		return DROP(packet, SERVICE, CONNTRACK_FULL);
	bpf_map_delete_elem(&service_new, &packet->other_key);
	return 0;
}

static __noinline int service_restore(struct packet *packet)
{
	int reason = service_untranslate(packet);

	return !reason && packet->moved ? service_promote(packet) : reason;
}

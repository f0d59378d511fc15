// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
// What the core's own tests load: one map of each way of declaring, one program of each way of running.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct pair_key {
	__u32 prefixlen;
	__u8 address[16];
};

struct pair_value {
	__u32 identity;
	__be16 port;
	__u16 pad;
};

struct record {
	__u64 number;
	__u32 size;
	__u32 pad;
	__u8 body[152];
};

struct burst {
	__u64 first;
	__u32 count;
	__u32 lost;
};

// address prefix to identity
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 100);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pair_key);
	__type(value, struct pair_value);
} declared SEC(".maps");

// number of runs by CPU; no plugin declares it
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");

// records of `struct record`
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} records SEC(".maps");

volatile const __u32 mark = 7;
volatile const __u8 wanted[4];
volatile const __s16 offset;

SEC("tc")
int answer(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&runs, &zero);
	struct pair_key key = {.prefixlen = 128};
	struct pair_value *value = bpf_map_lookup_elem(&declared, &key);

	if (count)
		(*count)++;
	skb->mark = mark + offset;
	return value ? (int)value->identity : wanted[3];
}

SEC("tc")
int pass(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

SEC("syscall")
int emit(struct burst *burst)
{
	__u32 i;

	for (i = 0; i < 1000; i++) {
		struct record *record;

		if (i >= burst->count)
			break;
		record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
		if (!record) {
			burst->lost++;
			continue;
		}
		record->number = burst->first + i;
		record->size = sizeof(*record);
		record->body[0] = (__u8)i;
		if (i % 10 == 9)
			bpf_ringbuf_discard(record, 0);
		else
			bpf_ringbuf_submit(record, 0);
	}
	return 0;
}

// a record of another size, which a reader of fixed-size records steps over
SEC("syscall")
int emit_other(struct burst *burst)
{
	__u64 other = burst->first;

	return (int)bpf_ringbuf_output(&records, &other, sizeof(other), 0);
}

char _license[] SEC("license") = "GPL";

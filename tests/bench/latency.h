// SPDX-License-Identifier: Apache-2.0
/* Latencies: a histogram of fixed size, so that recording costs the same for the first and the last. */
#pragma once
#include <stdint.h>

#define SUB_BITS 6 /* a bucket is 1/64 of its power of two: 1.6 % */

static uint32_t histogram[64 << SUB_BITS];
static uint64_t done, slowest;

static void record(uint64_t ns)
{
	int shift = ns >> SUB_BITS ? 63 - __builtin_clzll(ns) - SUB_BITS : 0;
	histogram[((uint64_t)shift << SUB_BITS) + (ns >> shift)]++;
	slowest = ns > slowest ? ns : slowest;
	done++;
}

/* Of this process, softirqs that ran on its time included. */
static uint64_t cpu_time(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* In microseconds; 0 if nothing was recorded. */
static double percentile(double share)
{
	uint64_t wanted = share * done, seen = 0;
	for (uint64_t i = 0; i < sizeof(histogram) / sizeof(*histogram); i++) {
		seen += histogram[i];
		if (seen > wanted) {
			uint64_t shift = i >> SUB_BITS ? (i >> SUB_BITS) - 1 : 0;
			return ((double)(i - (shift << SUB_BITS)) + 0.5) * (1ull << shift) / 1000;
		}
	}
	return slowest / 1000.0;
}

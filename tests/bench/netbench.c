// SPDX-License-Identifier: Apache-2.0
/* netbench: a small load generator for TCP and UDP, for ratios between two paths, not for records.
 *
 *   netbench server [-u] -f 4|6 -p PORT [-P PORTS] [-n NETNS]... -t SECONDS
 *   netbench rr|crr|udp -d ADDRESS... [-s SOURCE]... -p PORT [-P PORTS] [-n NETNS] -t SECONDS [-N OPERATIONS]
 *
 * rr: one byte each way on one connection. crr: connect, one byte each way, reset; in turn to every address and port
 * (and from every source). udp: rr on a connected UDP socket. Everything ends after -t seconds. A server prints "ready", a client one line of JSON.
 * -c CPU pins the process. A server takes several -n: it listens in each, so that one process serves many pods.
 */
#define _GNU_SOURCE
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "../node/net.h"
#include "latency.h"

#define ERRORS_MAX 10

static struct {
	const char *netns[LIST_MAX];
	union address to[LIST_MAX], from[LIST_MAX];
	int netns_count, to_count, from_count, family, port, ports, udp;
	double seconds;
	uint64_t operations;
} opt = {.family = AF_INET, .port = 7000, .ports = 1, .seconds = 1, .operations = UINT64_MAX};

static uint64_t errors;

static int open_socket(int family, int type)
{
	struct timeval limit = {.tv_sec = 2};
	int on = 1, fd = socket(family, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

/* The nth of all pairs of address and port, in an order that visits each once before it repeats. */
static int dial(uint64_t nth, int type)
{
	uint64_t all = (uint64_t)opt.to_count * opt.ports, pick = nth * 1000003 % all;
	union address *to = &opt.to[pick % opt.to_count];
	int on = 1, fd = open_socket(to->any.sa_family, type);
	if (opt.from_count) {
		union address *from = &opt.from[nth % opt.from_count];
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
		if (bind(fd, &from->any, with_port(from, 0)))
			fail("bind to the source address");
	}
	if (connect(fd, &to->any, with_port(to, opt.port + pick / opt.to_count))) {
		close(fd);
		return -1;
	}
	return fd;
}

static int exchange(int fd)
{
	char byte = 'x';
	return write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1;
}

static void run_stream(int type, int anew)
{
	uint64_t start = now(), end = start + opt.seconds * 1e9, begun = start, after, cpu_start = cpu_time();
	int fd = anew ? -1 : dial(0, type);
	if (!anew && fd < 0)
		fail("connect");
	for (uint64_t nth = 0; begun < end && nth < opt.operations && errors < ERRORS_MAX; nth++, begun = after) {
		if (anew)
			fd = dial(nth, type);
		int good = fd >= 0 && exchange(fd);
		if (anew && fd >= 0)
			reset(fd);
		after = now();
		if (good)
			record(after - begun);
		else if (++errors == ERRORS_MAX)
			fprintf(stderr, "netbench: gave up after %d errors; the last: %s\n", ERRORS_MAX, strerror(errno));
	}
	double seconds = (now() - start) / 1e9, cpu = (cpu_time() - cpu_start) / 1e9;
	printf("{\"ops\": %lu, \"errors\": %lu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"rate\": %.2f, \"p50_us\": %.2f, "
	       "\"p95_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}\n", done, errors, seconds, cpu, done / seconds,
	       percentile(0.5), percentile(0.95), percentile(0.99), slowest / 1000.0);
}

static int listener(int port)
{
	union address any = {.any.sa_family = opt.family};
	int on = 1, fd = open_socket(opt.family, opt.udp ? SOCK_DGRAM : SOCK_STREAM);
	struct timeval none = {0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (opt.family == AF_INET6) /* a server of its own for each family, on the same port */
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, &any.any, with_port(&any, port)) || (!opt.udp && listen(fd, 1024)))
		fail("listen");
	return fd;
}

/* One connection or datagram at a time: the client has never more than one open, and blocking calls are the leanest. */
static void serve(int fd)
{
	union address from;
	socklen_t size = sizeof(from);
	char byte;
	if (opt.udp) {
		if (recvfrom(fd, &byte, 1, 0, &from.any, &size) >= 0)
			sendto(fd, &byte, 1, 0, &from.any, size);
		return;
	}
	int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC), on = 1;
	struct timeval limit = {.tv_sec = 2}; /* a client that vanished must not keep the next one out */
	setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	while (read(connection, &byte, 1) == 1 && write(connection, &byte, 1) == 1)
		;
	close(connection);
}

static void run_server(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC), count = 0, fd = -1;
	for (int space = 0; space < (opt.netns_count ? opt.netns_count : 1); space++) {
		if (opt.netns_count)
			enter(opt.netns[space]);
		for (int port = 0; port < opt.ports; port++, count++) {
			struct epoll_event event = {.events = EPOLLIN, .data.fd = fd = listener(opt.port + port)};
			if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
				fail("epoll_ctl");
		}
	}
	puts("ready");
	fflush(stdout);
	for (struct epoll_event event = {.data.fd = fd};;)
		if (count == 1 || epoll_wait(epoll, &event, 1, -1) == 1)
			serve(event.data.fd);
}

int main(int argc, char **argv)
{
	struct rlimit files = {65536, 65536};
	const char *mode = argc > 1 ? argv[1] : "";
	for (int c; (c = getopt(argc, argv, "uf:p:P:n:c:d:s:t:N:")) != -1;) {
		switch (c) {
		case 'u': opt.udp = 1; break;
		case 'f': opt.family = *optarg == '6' ? AF_INET6 : AF_INET; break;
		case 'p': opt.port = atoi(optarg); break;
		case 'P': opt.ports = atoi(optarg); break;
		case 'n': opt.netns[taken(&opt.netns_count)] = optarg; break;
		case 'd': parse_address(optarg, &opt.to[taken(&opt.to_count)]); break;
		case 's': parse_address(optarg, &opt.from[taken(&opt.from_count)]); break;
		case 't': opt.seconds = atof(optarg); break;
		case 'N': opt.operations = strtoull(optarg, NULL, 10); break;
		case 'c': pin(atoi(optarg)); break;
		default: return 2;
		}
	}
	setrlimit(RLIMIT_NOFILE, &files);
	alarm(opt.seconds + 10); /* whatever happens, it ends */
	if (!strcmp(mode, "server"))
		run_server();
	if (opt.netns_count)
		enter(opt.netns[0]);
	if (!opt.to_count)
		fprintf(stderr, "netbench: a client needs -d ADDRESS\n");
	else if (!strcmp(mode, "rr") || !strcmp(mode, "crr"))
		run_stream(SOCK_STREAM, *mode == 'c');
	else if (!strcmp(mode, "udp"))
		run_stream(SOCK_DGRAM, 0);
	else
		fprintf(stderr, "netbench: unknown mode %s\n", mode);
	return !done || errors >= ERRORS_MAX;
}

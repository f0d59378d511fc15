// SPDX-License-Identifier: Apache-2.0
/* traffic: packets that can be accounted for, one by one. Times are CLOCK_MONOTONIC: comparable in all processes.
 *
 *   traffic serve -f 4|6 -p PORT [-P PORTS] [-n NETNS]... [-e] -o FILE            until SIGTERM
 *   traffic send -d ADDRESS -p PORT [-P PORTS] [-F FLOWS] [-i SENDER] [-n NETNS] -r PER_SECOND -o FILE [-O FILE]
 *   traffic connect -d ADDRESS... -p PORT [-P PORTS] [-n NETNS] -r PER_SECOND -l LIMIT_MS -o FILE
 *
 * send: UDP from FLOWS sockets in turn, flow f to port PORT + f % PORTS; each packet carries sender, flow, number and time.
 * serve: records every packet (-e: and sends it back, which `send -O` records), answers every byte of every TCP connection.
 * connect: TCP, one byte each way, reset; target t is address t % addresses, port PORT + t / addresses; never waits
 * for one before it starts the next. -t SECONDS and -N RECORDS bound all; -c CPU pins. SIGTERM ends well: what is
 * queued is still taken. Records are of 24 bytes, as `struct record`. At the end one line of JSON.
 */
#define _GNU_SOURCE
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "net.h"

#define FILES_MAX 65536

struct record {
	union {
		struct { uint16_t sender, flow; uint32_t number; } packet;
		struct { uint32_t target; uint16_t outcome, error; } connection;
	};
	uint64_t begun; /* a packet's time of sending: travels in it */
	uint64_t ended; /* sent: when the call returned, 0 if it failed; received: when it was read */
};
enum outcome { ANSWERED = 1, REFUSED = 2, TIMED_OUT = 3, UNSENT = 4 };

static struct {
	const char *netns[LIST_MAX], *output, *echoes;
	union address to[LIST_MAX];
	int netns_count, to_count, family, port, ports, flows, sender, echo, limit_ms;
	double rate, seconds;
	uint64_t records;
} opt = {.family = AF_INET, .port = 7100, .ports = 1, .flows = 1, .limit_ms = 900, .rate = 100, .seconds = 600,
	 .records = 50000000};

static volatile sig_atomic_t stopped;
static uint64_t written, overflowed;
static FILE *output, *echoes;
static char kinds[FILES_MAX]; /* by fd, of serve: u UDP, l listening, c connection */
static struct record pending[FILES_MAX]; /* by fd, of connect: begun 0 is none */
static int highest; /* fd that was ever pending */

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static void note(FILE *file, const struct record *record)
{
	if (file && fwrite(record, sizeof(*record), 1, file) != 1)
		fail("write a record");
	if (++written >= opt.records)
		stopped = 1;
}

static FILE *open_output(const char *path)
{
	FILE *file = path ? fopen(path, "w") : NULL;
	if (path && !file)
		fail(path);
	if (file)
		setvbuf(file, NULL, _IOFBF, 1 << 20);
	return file;
}

static int open_socket(int family, int type)
{
	int size = 64 << 20, on = 1, fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || fd >= FILES_MAX)
		fail("socket");
	if (type == SOCK_DGRAM)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	else
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

/* Packets that a socket's queue had no room for: they were delivered, and are this program's own loss. */
static void count_overflow(int fd)
{
	uint32_t values[SK_MEMINFO_VARS] = {0};
	socklen_t size = sizeof(values);
	if (!getsockopt(fd, SOL_SOCKET, SO_MEMINFO, values, &size))
		overflowed += values[SK_MEMINFO_DROPS];
}

static void wait_until(uint64_t due)
{
	struct timespec until = {due / 1000000000, due % 1000000000};
	if (due > now())
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void take_packets(int fd, FILE *file, int back)
{
	union address from;
	struct record record;
	for (socklen_t size = sizeof(from);; size = sizeof(from)) {
		ssize_t length = recvfrom(fd, &record, sizeof(record), 0, &from.any, &size);
		if (length < 0 && errno == ECONNREFUSED)
			continue;
		if (length < 0)
			return;
		record.ended = now();
		if (length == sizeof(record))
			note(file, &record);
		if (back)
			sendto(fd, &record, length, 0, &from.any, size);
	}
}

static void run_send(void)
{
	int *fds = calloc(opt.flows, sizeof(int));
	uint32_t *numbers = calloc(opt.flows, sizeof(uint32_t));
	uint64_t start, failed = 0;
	for (int flow = 0; flow < opt.flows; flow++) {
		socklen_t size = with_port(&opt.to[0], opt.port + flow % opt.ports);
		fds[flow] = open_socket(opt.to[0].any.sa_family, SOCK_DGRAM);
		if (connect(fds[flow], &opt.to[0].any, size))
			fail("connect");
	}
	start = now();
	for (uint64_t i = 0; !stopped && now() - start < opt.seconds * 1e9; i++) {
		int flow = i % opt.flows;
		struct record record = {.packet = {opt.sender, flow, numbers[flow]++}};
		wait_until(start + i * (1e9 / opt.rate));
		record.begun = now();
		ssize_t sent = send(fds[flow], &record, sizeof(record), 0);
		if (sent < 0 && errno == ECONNREFUSED) /* of an earlier packet: this one has not been tried */
			sent = send(fds[flow], &record, sizeof(record), 0);
		record.ended = sent < 0 ? 0 : now();
		failed += sent < 0;
		note(output, &record);
		if (echoes)
			take_packets(fds[flow], echoes, 0);
	}
	for (uint64_t end = now() + 100000000; echoes && now() < end; wait_until(now() + 10000000)) /* the last echoes */
		for (int flow = 0; flow < opt.flows; flow++)
			take_packets(fds[flow], echoes, 0);
	printf("{\"records\": %lu, \"failed\": %lu, \"overflowed\": 0}\n", written, failed);
}

static void serve_one(int epoll, int fd)
{
	char bytes[64];
	ssize_t length;
	if (kinds[fd] == 'u') {
		take_packets(fd, output, opt.echo);
	} else if (kinds[fd] == 'l') {
		int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct epoll_event event = {.events = EPOLLIN, .data.fd = connection};
		if (connection >= FILES_MAX)
			reset(connection);
		else if (connection >= 0 && !epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event))
			kinds[connection] = 'c';
	} else if ((length = read(fd, bytes, sizeof(bytes))) <= 0 || write(fd, bytes, length) != length) {
		if (length == 0 || errno != EAGAIN)
			reset(fd);
	}
}

static int listen_on(int type, int port)
{
	union address any = {.any.sa_family = opt.family};
	int on = 1, fd = open_socket(opt.family, type);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (opt.family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, &any.any, with_port(&any, port)) || (type == SOCK_STREAM && listen(fd, 1024)))
		fail("listen");
	return fd;
}

static void run_serve(void)
{
	struct epoll_event events[64];
	int epoll = epoll_create1(EPOLL_CLOEXEC), last = 0, count;
	for (int space = 0; space < (opt.netns_count ? opt.netns_count : 1); space++) {
		if (opt.netns_count)
			enter(opt.netns[space]);
		for (int i = 0; i < 2 * opt.ports; i++) {
			last = listen_on(i % 2 ? SOCK_STREAM : SOCK_DGRAM, opt.port + i / 2);
			kinds[last] = i % 2 ? 'l' : 'u';
			struct epoll_event event = {.events = EPOLLIN, .data.fd = last};
			if (epoll_ctl(epoll, EPOLL_CTL_ADD, last, &event))
				fail("epoll_ctl");
		}
	}
	puts("ready");
	fflush(stdout);
	while (!stopped) {
		count = epoll_wait(epoll, events, 64, 1000);
		for (int i = 0; i < count; i++)
			serve_one(epoll, events[i].data.fd);
	}
	for (int fd = 0; fd <= last; fd++)
		if (kinds[fd] == 'u') {
			take_packets(fd, output, 0);
			count_overflow(fd);
		}
	printf("{\"records\": %lu, \"failed\": 0, \"overflowed\": %lu}\n", written, overflowed);
}

static void conclude(int fd, enum outcome outcome, int error)
{
	struct record record = pending[fd];
	record.connection.outcome = outcome;
	record.connection.error = error;
	record.ended = now();
	pending[fd].begun = 0;
	note(output, &record);
	reset(fd);
}

static void begin(int epoll, uint32_t target)
{
	union address *to = &opt.to[target % opt.to_count];
	int fd = open_socket(to->any.sa_family, SOCK_STREAM);
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
	highest = fd > highest ? fd : highest;
	pending[fd] = (struct record){.connection = {.target = target}, .begun = now()};
	if (connect(fd, &to->any, with_port(to, opt.port + target / opt.to_count)) && errno != EINPROGRESS)
		conclude(fd, errno == ECONNREFUSED ? REFUSED : UNSENT, errno);
	else if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
}

static void progress(int fd, uint32_t events)
{
	int error = 0;
	char byte = 'x';
	socklen_t size = sizeof(error);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error)
		conclude(fd, REFUSED, error);
	else if (events & EPOLLIN)
		conclude(fd, read(fd, &byte, 1) == 1 ? ANSWERED : REFUSED, 0);
	else if ((events & EPOLLOUT) && !pending[fd].connection.outcome) {
		pending[fd].connection.outcome = ANSWERED; /* so that a second EPOLLOUT writes no second byte */
		if (write(fd, &byte, 1) != 1)
			conclude(fd, REFUSED, errno);
	}
}

static int expire(uint64_t limit)
{
	int left = 0;
	for (int fd = 0; fd <= highest; fd++)
		if (pending[fd].begun && now() - pending[fd].begun > limit)
			conclude(fd, TIMED_OUT, 0);
		else
			left += pending[fd].begun != 0;
	return left;
}

static void run_connect(void)
{
	uint32_t targets = opt.to_count * opt.ports;
	uint64_t start = now(), limit = opt.limit_ms * 1000000ull, nth = 0, swept = start;
	int epoll = epoll_create1(EPOLL_CLOEXEC), ending = 0, count;
	struct epoll_event events[64];
	for (;;) {
		uint64_t due = start + nth * (1e9 / opt.rate), time = now();
		ending |= stopped || time - start > opt.seconds * 1e9;
		if (!ending && time >= due)
			begin(epoll, nth++ % targets);
		count = epoll_wait(epoll, events, 64, ending || due > time + 1000000 ? 1 : 0);
		for (int i = 0; i < count; i++)
			if (pending[events[i].data.fd].begun)
				progress(events[i].data.fd, events[i].events);
		if (now() - swept > 10000000) {
			swept = now();
			if (!expire(limit) && ending)
				break;
		}
	}
	printf("{\"records\": %lu, \"failed\": 0, \"overflowed\": 0}\n", written);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	for (int c; (c = getopt(argc, argv, "f:p:P:n:c:d:t:N:F:i:r:l:o:O:e")) != -1;)
		switch (c) {
		case 'f': opt.family = *optarg == '6' ? AF_INET6 : AF_INET; break;
		case 'p': opt.port = atoi(optarg); break;
		case 'P': opt.ports = atoi(optarg); break;
		case 'n': opt.netns[taken(&opt.netns_count)] = optarg; break;
		case 'c': pin(atoi(optarg)); break;
		case 'd': parse_address(optarg, &opt.to[taken(&opt.to_count)]); break;
		case 't': opt.seconds = atof(optarg); break;
		case 'N': opt.records = strtoull(optarg, NULL, 10); break;
		case 'F': opt.flows = atoi(optarg); break;
		case 'i': opt.sender = atoi(optarg); break;
		case 'r': opt.rate = atof(optarg); break;
		case 'l': opt.limit_ms = atoi(optarg); break;
		case 'o': opt.output = optarg; break;
		case 'O': opt.echoes = optarg; break;
		case 'e': opt.echo = 1; break;
		default: return 2;
		}
	int serving = !strcmp(mode, "serve");
	if ((!serving && !opt.to_count) || opt.rate <= 0)
		return fprintf(stderr, "traffic: wants -d ADDRESS, and -r above 0\n"), 2;
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){FILES_MAX, FILES_MAX});
	prctl(PR_SET_TIMERSLACK, 1000);
	sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
	alarm(opt.seconds + 30);
	output = open_output(opt.output);
	echoes = open_output(opt.echoes);
	if (!serving && opt.netns_count)
		enter(opt.netns[0]);
	if (serving)
		run_serve();
	else if (!strcmp(mode, "send"))
		run_send();
	else if (!strcmp(mode, "connect"))
		run_connect();
	else
		return fprintf(stderr, "traffic: unknown mode %s\n", mode), 2;
	if ((output && fclose(output)) || (echoes && fclose(echoes)))
		fail("write the records");
	return 0;
}

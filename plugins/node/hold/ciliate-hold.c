/*
 * ciliate-hold: keeps listening sockets open while the process that uses them is started anew.
 *
 *   ciliate-hold CONTROL PROTOCOL:ADDRESS:PORT...      as tcp:127.0.0.1:53 udp:[::1]:53
 *
 * Whoever connects to the Unix socket CONTROL as root gets one message: the names above, separated by newlines, with
 * the sockets attached (SCM_RIGHTS) in the same order. Queries that come meanwhile wait in the sockets' queues.
 * "ready\n" on standard output says that all are bound. Exit status 2: bad arguments; 1: a socket can't be had.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { SOCKETS_MOST = 64, NAMES_MOST = 4096, BACKLOG = 1024 };

static void refuse(int status, const char *what, const char *which)
{
	fprintf(stderr, "ciliate-hold: %s: %s%s%s\n", which, what, status == 1 ? ": " : "",
		status == 1 ? strerror(errno) : "");
	exit(status);
}

/* Opens what a name says. */
static int open_named(const char *name)
{
	char host[128];
	int one = 1, fd;
	struct addrinfo *found, wanted = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE };
	const char *address = name + 4, *colon = strrchr(name, ':');
	size_t length = colon > address ? (size_t)(colon - address) : 0;

	if (strncmp(name, "tcp:", 4) == 0)
		wanted.ai_socktype = SOCK_STREAM;
	else if (strncmp(name, "udp:", 4) == 0)
		wanted.ai_socktype = SOCK_DGRAM;
	else
		refuse(2, "must be tcp:ADDRESS:PORT or udp:ADDRESS:PORT", name);
	if (length > 2 && address[0] == '[' && address[length - 1] == ']') {
		address++;
		length -= 2;
	}
	if (length == 0 || length >= sizeof(host))
		refuse(2, "has no address", name);
	memcpy(host, address, length);
	host[length] = 0;
	if (getaddrinfo(host, colon + 1, &wanted, &found) != 0)
		refuse(2, "is no numeric address and port", name);
	fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		refuse(1, "socket", name);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (found->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, found->ai_addr, found->ai_addrlen) < 0)
		refuse(1, "bind", name);
	if (found->ai_socktype == SOCK_STREAM && listen(fd, BACKLOG) < 0)
		refuse(1, "listen", name);
	freeaddrinfo(found);
	return fd;
}

/* Listens at a Unix socket; one that a dead process left is replaced. */
static int open_control(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		refuse(2, "the path is too long for a Unix socket", path);
	strcpy(address.sun_path, path);
	if (fd < 0)
		refuse(1, "socket", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		refuse(2, "another process holds it", path);
	close(fd);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	unlink(path);
	umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 16) < 0)
		refuse(1, "listen", path);
	return fd;
}

static void hand_out(int peer, char *names, size_t length, const int *sockets, size_t count)
{
	union {
		char room[CMSG_SPACE(sizeof(int) * SOCKETS_MOST)];
		struct cmsghdr aligned;
	} control = { 0 };
	struct iovec text = { .iov_base = names, .iov_len = length };
	struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * count) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	struct ucred who;
	socklen_t size = sizeof(who);

	if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 || who.uid != 0)
		return;
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * count);
	memcpy(CMSG_DATA(rights), sockets, sizeof(int) * count);
	if (sendmsg(peer, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		perror("ciliate-hold: handing out");
}

int main(int argc, char **argv)
{
	static int sockets[SOCKETS_MOST];
	static char names[NAMES_MOST];
	size_t count = (size_t)(argc > 2 ? argc - 2 : 0), length = 0;
	int control;

	if (count == 0 || count > SOCKETS_MOST)
		refuse(2, "usage: ciliate-hold CONTROL PROTOCOL:ADDRESS:PORT...", "arguments");
	for (size_t i = 0; i < count; i++) {
		const char *name = argv[i + 2];

		if (length + strlen(name) + 1 > sizeof(names))
			refuse(2, "too many names", name);
		sockets[i] = open_named(name);
		memcpy(names + length, name, strlen(name));
		length += strlen(name);
		names[length++] = '\n';
	}
	control = open_control(argv[1]);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int peer = accept(control, NULL, NULL);

		if (peer < 0)
			continue;
		hand_out(peer, names, length, sockets, count);
		close(peer);
	}
}

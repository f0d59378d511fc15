// SPDX-License-Identifier: Apache-2.0
/*
 * ciliate-cni: what a container runtime calls as CNI plugin. It decides nothing: it carries the call to the agent
 * and the agent's answer back.
 *
 * The frame, both ways (ciliate_cni/wire.py is its twin): 4 bytes "CNI\1", 4 bytes length of the body (big endian), body.
 *   request body: fields, each 4 bytes length (big endian) and bytes, in this order: CNI_COMMAND, CNI_CONTAINERID,
 *                 CNI_NETNS, CNI_IFNAME, CNI_ARGS, CNI_PATH, the errno of opening CNI_NETNS in decimal, stdin.
 *                 The opened CNI_NETNS goes with the frame's first byte (SCM_RIGHTS): a path under /proc or in another
 *                 mount namespace means the same to the agent as to the runtime.
 *   answer body:  1 byte exit status, then what is printed.
 *
 * Without an agent: VERSION is answered here; DEL is written to <run_dir>/delete-queue/ (the request's frame) and
 * succeeds, the agent carries it out when it starts; STATUS is 50; all else fails at once with 11, "try again later".
 * The socket is the configuration's top-level key "socket", or $CILIATE_CNI_SOCKET, or the default; run_dir its folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/ciliate/cni.sock"
#define LATEST_VERSION "1.1.0"
#define CONFIG_MAX (1 << 20)
#define FIELD_MAX (64 << 10)
#define HEADER 8

enum { ENVIRONMENT = 4, DECODING = 6, CONFIGURATION = 7, TRY_AGAIN = 11, UNAVAILABLE = 50 };

static const char *const VARIABLES[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"};
#define VARIABLES_COUNT (sizeof VARIABLES / sizeof *VARIABLES)

static char config[CONFIG_MAX + 1];
static size_t config_length;
static char frame[HEADER + VARIABLES_COUNT * (4 + FIELD_MAX) + 4 + 16 + 4 + CONFIG_MAX];
static size_t frame_length = HEADER;
static char version[32] = LATEST_VERSION;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static char run_dir[sizeof address.sun_path];

static int write_all(int fd, const char *bytes, size_t length)
{
	while (length) {
		ssize_t done = write(fd, bytes, length);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		bytes += done;
		length -= (size_t)done;
	}
	return 0;
}

/* Print a CNI error and end. The text must need no escapes in JSON. */
__attribute__((noreturn, format(printf, 2, 3))) static void fail(int code, const char *format, ...)
{
	char message[1024], out[1280];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	int length = snprintf(out, sizeof out, "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\"}\n", version, code, message);
	write_all(STDOUT_FILENO, out, (size_t)length);
	exit(1);
}

static size_t skip_space(size_t at)
{
	while (at < config_length && strchr(" \t\r\n", config[at]) && config[at])
		at++;
	return at;
}

/* Position after the string that begins at the quote `at`; config_length if it never ends. */
static size_t skip_string(size_t at)
{
	for (at++; at < config_length && config[at] != '"'; at++)
		if (config[at] == '\\')
			at++;
	return at < config_length ? at + 1 : config_length;
}

/* Copy the string value of a key of the top-level object, if it is one of plain printable characters that fits.
 * Garbage around it does no harm: the agent is the one that refuses it. */
static int top_level_string(const char *key, char *out, size_t room)
{
	int depth = 0, at_key = 0;

	for (size_t at = 0; at < config_length;) {
		char c = config[at];
		if (c == '"') {
			size_t end = skip_string(at);
			int wanted = depth == 1 && at_key && end - at == strlen(key) + 2 && !memcmp(config + at + 1, key, strlen(key));
			at_key = 0;
			at = skip_space(end);
			if (!wanted || at >= config_length || config[at] != ':')
				continue;
			at = skip_space(at + 1);
			if (at >= config_length || config[at] != '"')
				return 0;
			end = skip_string(at++);
			if (end > config_length || end <= at || end - 1 - at >= room || end - 1 == at)
				return 0;
			for (size_t i = at; i < end - 1; i++)
				if (config[i] < ' ' || config[i] > '~' || config[i] == '\\')
					return 0;
			memcpy(out, config + at, end - 1 - at);
			out[end - 1 - at] = 0;
			return 1;
		}
		if (c == '{' || c == '[')
			at_key = ++depth == 1 && c == '{';
		else if (c == '}' || c == ']')
			depth--;
		else if (c == ',' && depth == 1)
			at_key = 1;
		at++;
	}
	return 0;
}

static void read_config(void)
{
	while (config_length < sizeof config) {
		ssize_t got = read(STDIN_FILENO, config + config_length, sizeof config - config_length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail(5, "reading the network configuration from standard input: %s", strerror(errno));
		if (got == 0)
			break;
		config_length += (size_t)got;
	}
	top_level_string("cniVersion", version, sizeof version);
	if (strspn(version, "0123456789.") != strlen(version))
		strcpy(version, LATEST_VERSION);
	if (config_length > CONFIG_MAX)
		fail(DECODING, "the network configuration on standard input is larger than %d bytes", CONFIG_MAX);
}

static void find_socket(void)
{
	char path[PATH_MAX] = DEFAULT_SOCKET;
	const char *environment = getenv("CILIATE_CNI_SOCKET");

	if (!top_level_string("socket", path, sizeof path) && environment && *environment)
		snprintf(path, sizeof path, "%s", environment);
	if (strlen(path) >= sizeof address.sun_path)
		fail(CONFIGURATION, "the agent's socket path has %zu characters; at most %zu are possible", strlen(path),
		     sizeof address.sun_path - 1);
	if (path[0] != '/' || strpbrk(path, "\"\\"))
		fail(CONFIGURATION, "the agent's socket path is not an absolute path");
	strcpy(address.sun_path, path);
	strcpy(run_dir, path);
	*strrchr(run_dir, '/') = 0;
}

static void put_number(char *at, size_t number)
{
	for (int i = 3; i >= 0; i--, number >>= 8)
		at[i] = (char)(number & 0xff);
}

static void add_field(const char *bytes, size_t length)
{
	put_number(frame + frame_length, length);
	memcpy(frame + frame_length + 4, bytes, length);
	frame_length += 4 + length;
}

static const char *variable(const char *name)
{
	const char *value = getenv(name);
	return value ? value : "";
}

/* Build the request; answer the opened namespace, or -1. */
static int build_frame(void)
{
	const char *path = variable("CNI_NETNS");
	int netns = *path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	char error[16];

	snprintf(error, sizeof error, "%d", *path && netns < 0 ? errno : 0);
	for (size_t i = 0; i < VARIABLES_COUNT; i++) {
		const char *value = variable(VARIABLES[i]);
		if (strlen(value) > FIELD_MAX)
			fail(ENVIRONMENT, "%s is longer than %d bytes", VARIABLES[i], FIELD_MAX);
		add_field(value, strlen(value));
	}
	add_field(error, strlen(error));
	add_field(config, config_length);
	memcpy(frame, "CNI\1", 4);
	put_number(frame + 4, frame_length - HEADER);
	return netns;
}

/* A connected socket whose every wait has a limit, or -1. */
static int call_agent(int seconds)
{
	struct timeval limit = {.tv_sec = seconds};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return connect(fd, (struct sockaddr *)&address, sizeof address) ? -1 : fd;
}

static int send_frame(int fd, int netns)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec part = {.iov_base = frame, .iov_len = frame_length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (netns >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof control;
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &netns, sizeof netns);
	}
	ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	while (sent > 0 && (size_t)sent < frame_length) {
		ssize_t more = send(fd, frame + sent, frame_length - (size_t)sent, MSG_NOSIGNAL);
		if (more <= 0)
			return -1;
		sent += more;
	}
	return sent > 0 ? 0 : -1;
}

static int receive(int fd, char *out, size_t length)
{
	while (length) {
		ssize_t got = recv(fd, out, length, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			errno = got ? errno : ECONNRESET;
			return -1;
		}
		out += got;
		length -= (size_t)got;
	}
	return 0;
}

/* Print the agent's answer and end, or return if there is none. */
static void print_answer(int fd)
{
	static char answer[2 * CONFIG_MAX];
	unsigned char header[HEADER];

	if (receive(fd, (char *)header, HEADER) || memcmp(header, "CNI\1", 4))
		return;
	size_t length = (size_t)header[4] << 24 | (size_t)header[5] << 16 | (size_t)header[6] << 8 | header[7];
	if (length < 1 || length > sizeof answer || receive(fd, answer, length))
		return;
	exit(write_all(STDOUT_FILENO, answer + 1, length - 1) ? 1 : answer[0]);
}

/* One file for each attachment, so that a repeated DEL takes no more room. */
static uint64_t attachment_hash(void)
{
	uint64_t hash = 0xcbf29ce484222325;
	const char *parts[] = {variable("CNI_CONTAINERID"), variable("CNI_IFNAME")};

	for (int i = 0; i < 2; i++)
		for (const char *c = parts[i];; c++) {
			hash = (hash ^ (unsigned char)*c) * 0x100000001b3;
			if (!*c)
				break;
		}
	return hash;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -1 : fsync(fd);
}

static void queue_deletion(int reason)
{
	char folder[sizeof run_dir + 32], name[sizeof folder + 32], temporary[sizeof folder + 48];
	uint64_t hash = attachment_hash();

	snprintf(folder, sizeof folder, "%s/delete-queue", run_dir);
	snprintf(name, sizeof name, "%s/%016llx.del", folder, (unsigned long long)hash);
	snprintf(temporary, sizeof temporary, "%s/.%016llx.%d", folder, (unsigned long long)hash, (int)getpid());
	mkdir(run_dir, 0755);
	mkdir(folder, 0700);
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write_all(fd, frame, frame_length) || fsync(fd) || rename(temporary, name) || sync_folder(folder)) {
		int error = errno;
		unlink(temporary);
		fail(TRY_AGAIN, "the agent does not answer at %s (%s), and the deletion could not be queued in %s: %s",
		     address.sun_path, strerror(reason), folder, strerror(error));
	}
	exit(0);
}

int main(void)
{
	const char *command = variable("CNI_COMMAND");

	if (!*command)
		fail(ENVIRONMENT, "CNI_COMMAND is not set: this program is called by a container runtime, as a CNI plugin");
	read_config();
	if (!strcmp(command, "VERSION")) {
		printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n", version);
		return 0;
	}
	find_socket();
	int netns = build_frame();
	int fd = call_agent(!strcmp(command, "STATUS") ? 5 : 30);
	if (fd >= 0 && !send_frame(fd, netns))
		print_answer(fd);
	int reason = errno;
	if (!strcmp(command, "DEL"))
		queue_deletion(reason);
	fail(!strcmp(command, "STATUS") ? UNAVAILABLE : TRY_AGAIN,
	     "the ciliate agent does not answer at %s (%s); try again when it runs", address.sun_path, strerror(reason));
}

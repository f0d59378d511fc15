// SPDX-License-Identifier: Apache-2.0
/* cnirun: calls a CNI plugin as a runtime does, and times it: a process for each call, from its start to its end.
 *
 *   cnirun BINARY COMMAND CONFIG OUTPUT PARALLEL < jobs          a job: CONTAINERID NETNS
 *
 * CNI_PATH and CNI_IFNAME come from the environment. At most PARALLEL calls run at once. What the plugin of job n says goes
 * to OUTPUT/n. Prints one line a job, in order: status, nanoseconds from the call's own start, nanoseconds at which it ended
 * after the first call's start. In C, so that the caller's own start of a process does not hide the plugin's.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 4096
#define LIMIT_SECONDS 120

extern char **environ;

static struct job {
	char container[128], netns[256];
	pid_t pid;
	uint64_t begun, ended;
	int status;
} jobs[JOBS_MAX];

static uint64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void start(struct job *job, char **argv)
{
	char output[512], *command[] = {argv[1], NULL};
	posix_spawn_file_actions_t files;
	snprintf(output, sizeof(output), "%s/%d", argv[4], (int)(job - jobs));
	setenv("CNI_CONTAINERID", job->container, 1);
	setenv("CNI_NETNS", job->netns, 1);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, argv[3], O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	posix_spawn_file_actions_adddup2(&files, 1, 2);
	job->begun = now();
	int error = posix_spawn(&job->pid, argv[1], &files, NULL, command, environ);
	posix_spawn_file_actions_destroy(&files);
	if (error) {
		fprintf(stderr, "cnirun: cannot start %s: %s\n", argv[1], strerror(error));
		exit(1);
	}
}

static void finish(int count)
{
	int status;
	pid_t pid = wait(&status);
	for (int i = 0; i < count; i++)
		if (jobs[i].pid == pid && !jobs[i].ended) {
			jobs[i].ended = now();
			jobs[i].status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
}

int main(int argc, char **argv)
{
	int count = 0, running = 0;
	if (argc != 6)
		return fprintf(stderr, "cnirun: BINARY COMMAND CONFIG OUTPUT PARALLEL\n"), 2;
	setenv("CNI_COMMAND", argv[2], 1);
	while (count < JOBS_MAX && scanf("%127s %255s", jobs[count].container, jobs[count].netns) == 2)
		count++;
	alarm(LIMIT_SECONDS);
	for (int i = 0; i < count; i++) {
		if (running == atoi(argv[5])) {
			finish(i);
			running--;
		}
		start(&jobs[i], argv);
		running++;
	}
	for (; running; running--)
		finish(count);
	for (int i = 0; i < count; i++)
		printf("%d %lu %lu\n", jobs[i].status, jobs[i].ended - jobs[i].begun, jobs[i].ended - jobs[0].begun);
	return 0;
}

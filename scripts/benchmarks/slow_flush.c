/* slow_flush MICROSECONDS COMMAND [ARGUMENT...]: run a command as if every flush took so much longer.
 *
 * Each fsync, fdatasync, sync and syncfs of the command, and of whatever it runs, waits before it begins; one after the
 * other, as a medium does it. By seccomp's notifications (seccomp_unotify(2)): no other call is slower. Ends with the
 * status of the command.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTIFY_IF(number) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)

static struct sock_filter filter[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	NOTIFY_IF(__NR_fsync), NOTIFY_IF(__NR_fdatasync), NOTIFY_IF(__NR_sync), NOTIFY_IF(__NR_syncfs),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static void fail(const char *what)
{
	perror(what);
	exit(126);
}

/* Let one call wait, then go on. That its process is gone meanwhile is no failure. */
static void delay_one(int listener, unsigned int microseconds)
{
	struct seccomp_notif call = { 0 };
	struct seccomp_notif_resp answer = { .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) {
		if (errno == ENOENT || errno == EINTR)
			return;
		fail("receive");
	}
	usleep(microseconds);
	answer.id = call.id;
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) != 0 && errno != ENOENT)
		fail("send");
}

static int supervise(int listener, pid_t command, unsigned int microseconds)
{
	struct pollfd waiting[] = {
		{ .fd = listener, .events = POLLIN },
		{ .fd = (int)syscall(SYS_pidfd_open, command, 0), .events = POLLIN },
	};
	int status;

	if (waiting[1].fd < 0)
		fail("pidfd_open");
	while (!waiting[1].revents) {
		if (poll(waiting, 2, -1) < 0 && errno != EINTR)
			fail("poll");
		if (waiting[0].revents & POLLIN)
			delay_one(listener, microseconds);
	}
	if (waitpid(command, &status, 0) != command)
		fail("wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int count, char **words)
{
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
	int listener;
	pid_t command;

	if (count < 3) {
		fputs("usage: slow_flush MICROSECONDS COMMAND [ARGUMENT...]\n", stderr);
		return 126;
	}
	listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (listener < 0)
		fail("seccomp");
	command = fork();
	if (command < 0)
		fail("fork");
	if (command == 0) {
		close(listener);
		execvp(words[2], words + 2);
		fail(words[2]);
	}
	return supervise(listener, command, (unsigned int)atoi(words[1]));
}

/* Runs a program and writes what it cost to a file: measure FILE PROGRAM [ARGUMENT...]
 *
 *     seconds user_seconds system_seconds resident_kib status
 *
 * resident_kib is the peak of the largest single process among the program and its descendants. This has to
 * be a small program of its own: the kernel counts what a process had in memory *before* it called exec, so
 * a large parent would be measured instead of a small child.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double seconds_of(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

int main(int count, char **arguments)
{
	struct rusage usage;
	FILE *report;
	double started, ended;
	int status;
	pid_t child;

	if (count < 3) {
		fprintf(stderr, "usage: measure FILE PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	started = now();
	child = fork();
	if (child == 0) {
		execvp(arguments[2], arguments + 2);
		perror(arguments[2]);
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, &usage) != child) {
		perror("measure");
		return 1;
	}
	ended = now();
	status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	report = fopen(arguments[1], "w");
	if (report == NULL || fprintf(report, "%.6f %.6f %.6f %ld %d\n", ended - started, seconds_of(usage.ru_utime),
				      seconds_of(usage.ru_stime), usage.ru_maxrss, status) < 0 ||
	    fclose(report) != 0) {
		perror(arguments[1]);
		return 1;
	}
	return status;
}

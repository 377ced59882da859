/* The real root's init in the boot benchmark: leaves its mark in the kernel's log, prints the log from
 * "Run /init" on, lets go of the disk and switches the machine off.
 *
 * Both ends of the measured time are stamps of the kernel's own clock, in one log: no serial line and no
 * reader on the host is in between. The log is printed only after the mark has been made.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#define MARK "bench: first line of the real root\n" /* without the line end the kernel waits for more */
#define BEGIN "Run /init as init process"
#define RECORD_BYTES_MAX 8192

/* As at the end of any OS: what was mounted read-write is clean for the next boot. */
static void let_go_of(const char *place)
{
	sync();
	mount(NULL, place, NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

static void fail(const char *what)
{
	perror(what);
	reboot(RB_POWER_OFF);
}

/* A record reads "priority,sequence,microseconds,flags;text", then continuation lines. */
static void print_record(char *record)
{
	unsigned long long microseconds;
	char *text = strchr(record, ';');

	if (text == NULL || sscanf(record, "%*u,%*u,%llu", &microseconds) != 1)
		return;
	text++;
	text[strcspn(text, "\n")] = '\0';
	printf("bench-log: %llu %s\n", microseconds, text);
}

static void print_log(int log)
{
	char record[RECORD_BYTES_MAX];
	ssize_t length;
	int begun = 0;

	while ((length = read(log, record, sizeof(record) - 1)) > 0) {
		record[length] = '\0';
		begun = begun || strstr(record, BEGIN) != NULL;
		if (begun)
			print_record(record);
	}
	printf("bench-end\n");
	fflush(stdout);
}

int main(void)
{
	int log, console;

	if (access("/dev/kmsg", F_OK) != 0)
		mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	log = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (log < 0 || write(log, MARK, strlen(MARK)) < 0)
		fail("/dev/kmsg");
	console = open("/dev/console", O_RDWR);
	for (int standard = 0; console >= 0 && standard < 3; standard++)
		dup2(console, standard);
	print_log(log);
	let_go_of("/");
	let_go_of("/data");
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

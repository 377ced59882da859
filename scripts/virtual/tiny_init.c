/* The tiny OS: one program that is its init and everything else. It says that it is up, confirms the boot
 * with the device's own command and waits. What goes wrong with it is read from /etc/misbehave, which an
 * overlay may change; what it does at the end from /etc/after-good, or `tiny.after=` on the kernel's
 * command line, and `tiny.unbrick=` there runs the device's command with these words, which `tiny.kill=` ends after so
 * many milliseconds; `reboot-until-done` is over when that command finds nothing left to do. Statically linked; needs
 * no other file but /usr/lib/unbrick/unbrick.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNBRICK "/usr/lib/unbrick/unbrick"
#define TEXT_BYTES_MAX 4096
#define WORDS_MAX 8
#define NOTHING_TO_CONFIRM 2
#define NOTHING_LEFT 2

struct behaviour {
	const char *name;
	void (*run)(void);
};

static char version[TEXT_BYTES_MAX];
static int ended_with = -1; /* the exit status of what `tiny.unbrick=` asked for */

static void say(const char *text, const char *detail)
{
	printf("tiny-os: %s%s\n", text, detail);
	fflush(stdout);
}

/* The first line of a file, or "" where there is none. */
static void read_line(const char *path, char *line)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? 0 : read(file, line, TEXT_BYTES_MAX - 1);

	line[length < 0 ? 0 : length] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (file >= 0)
		close(file);
}

static void write_text(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		say("cannot write ", path);
	if (file >= 0)
		close(file);
}

/* User data is a mount of its own; in a pristine boot there is none. */
static void say_where_user_data_is(void)
{
	struct stat root, data;

	if (stat("/", &root) == 0 && stat("/data", &data) == 0 && root.st_dev != data.st_dev)
		say("user data at ", "/data");
	else
		say("no user data", "");
}

static void mount_unless_there(const char *kind, const char *target, const char *witness)
{
	if (access(witness, F_OK) != 0 && mount(kind, target, kind, 0, NULL) != 0)
		say("cannot mount ", target);
}

static void use_console(void)
{
	int console = open("/dev/console", O_RDWR);

	for (int standard = 0; console >= 0 && standard < 3; standard++)
		dup2(console, standard);
	if (console > 2)
		close(console);
}

/* Wait for ever, reaping. Where the image was told to own the watchdog, pet it: /etc/watchdog names it. */
static void idle(void)
{
	char device[TEXT_BYTES_MAX];
	int watchdog;

	read_line("/etc/watchdog", device);
	watchdog = device[0] ? open(device, O_WRONLY | O_CLOEXEC) : -1;
	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (watchdog >= 0 && write(watchdog, "1", 1) < 0)
			say("cannot pet ", device);
		sleep(1);
	}
}

static void hang(void)
{
	for (;;)
		pause();
}

static void end_with(int command)
{
	sync();
	reboot(command);
	hang();
}

static void power_off(void) { end_with(RB_POWER_OFF); }
static void restart(void) { end_with(RB_AUTOBOOT); }
static void leave(void) { exit(1); }

static void restart_until_done(void)
{
	end_with(ended_with == NOTHING_LEFT ? RB_POWER_OFF : RB_AUTOBOOT);
}

static void panic(void)
{
	write_text("/proc/sys/kernel/sysrq", "1");
	write_text("/proc/sysrq-trigger", "c");
	exit(1); /* a panic as well: the kernel does not live without its init */
}

static const struct behaviour behaviours[] = {
	{ "panic", panic },   { "exit", leave },         { "hang", hang },
	{ "never-good", idle }, { "poweroff", power_off }, { "reboot", restart },
	{ "reboot-until-done", restart_until_done },
	{ NULL, NULL },
};

static void behave(const char *name)
{
	for (const struct behaviour *known = behaviours; known->name; known++) {
		if (strcmp(known->name, name) == 0) {
			say("does on purpose: ", name);
			known->run();
		}
	}
}

/* The value of an option on the kernel's command line, in `line`; NULL where it is not there. */
static char *option(const char *name, char *line)
{
	char *found;

	read_line("/proc/cmdline", line);
	found = strstr(line, name);
	if (found) {
		found += strlen(name);
		found[strcspn(found, " ")] = '\0';
	}
	return found;
}

/* The value of `tiny.after=` on the kernel's command line, or the marker file's. */
static void read_ending(char *ending)
{
	char line[TEXT_BYTES_MAX];
	char *found = option("tiny.after=", line);

	read_line("/etc/after-good", ending);
	if (found)
		strcpy(ending, found);
}

/* The exit status of `unbrick mark-good` (2: nothing to confirm); 127 where it cannot be run. */
static int mark_good(void)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		execl(UNBRICK, "unbrick", "mark-good", (char *)NULL);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* End a program after the milliseconds of `tiny.kill=` on the kernel's command line, as nothing can prevent. */
static void kill_in_time(pid_t program)
{
	char line[TEXT_BYTES_MAX];
	char *milliseconds = option("tiny.kill=", line);

	if (!milliseconds)
		return;
	usleep(atoi(milliseconds) * 1000);
	kill(program, SIGKILL);
}

/* Run the device's command with the words of `tiny.unbrick=` on the kernel's command line, set apart by commas. */
static void run_unbrick(void)
{
	char line[TEXT_BYTES_MAX], text[16];
	char *words[WORDS_MAX + 2] = { "unbrick" };
	char *rest = option("tiny.unbrick=", line);
	int count = 1, status = 0;
	pid_t child;

	if (!rest)
		return;
	while (count <= WORDS_MAX && (words[count] = strsep(&rest, ",")))
		count++;
	child = fork();
	if (child == 0) {
		execv(UNBRICK, words);
		_exit(127);
	}
	if (child > 0)
		kill_in_time(child);
	if (child > 0 && waitpid(child, &status, 0) == child) {
		ended_with = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		snprintf(text, sizeof(text), "%d", ended_with);
		say("unbrick ended with ", text);
	}
}

static void confirm(void)
{
	char text[16];
	int status = mark_good();

	if (status == 0 || status == NOTHING_TO_CONFIRM) {
		say("good", "");
		return;
	}
	snprintf(text, sizeof(text), "%d", status);
	say("mark-good failed with status ", text);
}

int main(void)
{
	char word[TEXT_BYTES_MAX];

	mount_unless_there("devtmpfs", "/dev", "/dev/console");
	mount_unless_there("proc", "/proc", "/proc/cmdline");
	mount_unless_there("sysfs", "/sys", "/sys/class");
	use_console();
	read_line("/etc/version", version);
	printf("tiny-os: version %s up\n", version);
	say_where_user_data_is();
	read_line("/etc/misbehave", word);
	behave(word);
	confirm();
	run_unbrick();
	read_ending(word);
	behave(word);
	idle();
	return 1;
}

/* Mounts, modules, the end of all processes, and reboot. Every wait here has a bound. */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    ENDING_MILLISECONDS_MAX = 10000,
    POLL_MILLISECONDS = 1,
    MODULE_LIST_BYTES_MAX = 65536,
};

static const char MODULE_LIST[] = "/etc/unbrick/modules.boot";

void say(const char *format, ...)
{
    char line[512] = "unbrick: ";
    size_t length = strlen(line);
    va_list values;

    va_start(values, format);
    vsnprintf(line + length, sizeof line - length - 1, format, values);
    va_end(values);
    strcat(line, "\n");
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return; /* there is nobody left to tell */
}

long long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

void sleep_milliseconds(int milliseconds)
{
    poll(NULL, 0, milliseconds);
}

/* Fills buffer with the start of a file and a final zero; "" if it cannot be read. */
static void read_start(const char *path, char *buffer, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = 0;

    while (file >= 0 && length < size - 1 && (got = read(file, buffer + length, size - 1 - length)) > 0)
        length += got;
    buffer[length] = 0;
    if (file >= 0)
        close(file);
}

static void mount_system(const char *filesystem, const char *target, unsigned long flags, const char *data)
{
    mkdir(target, 0755);
    if (mount(filesystem, target, filesystem, flags, data) && errno != EBUSY)
        say("cannot mount %s: %s", target, strerror(errno));
}

void prepare_machine(int descriptor_last)
{
    mount_system("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
    mount_system("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_system("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_system("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");

    int console = open("/dev/console", O_RDWR | O_NOCTTY);
    if (console < 0)
        console = open("/dev/null", O_RDWR);
    for (int descriptor = 0; descriptor <= descriptor_last; descriptor++)
        if (descriptor != console)
            dup3(console, descriptor, descriptor > STDERR_FILENO ? O_CLOEXEC : 0);
    if (console > descriptor_last)
        close(console);
}

int seconds_option(const char *name, int otherwise)
{
    char command_line[COMMAND_LINE_BYTES_MAX];

    read_start("/proc/cmdline", command_line, sizeof command_line);
    const char *found = strstr(command_line, name);
    long value = found ? strtol(found + strlen(name), NULL, 10) : 0;
    return value >= 1 && value <= SECONDS_MAX ? (int)value : otherwise;
}

/* Loads one `PATH [PARAMETERS]`. A module that is already there is no failure. */
static int load_module(char *line)
{
    char *path = strsep(&line, " ");
    int file = open(path, O_RDONLY | O_CLOEXEC);
    int loaded = file >= 0 && (syscall(SYS_finit_module, file, line ? line : "", 0) == 0 || errno == EEXIST);

    if (!loaded)
        say("E906 module-not-loaded %s: %s", path, strerror(errno));
    if (file >= 0)
        close(file);
    return loaded;
}

int load_modules(void)
{
    static char list[MODULE_LIST_BYTES_MAX];
    char *rest = list, *line;
    int loaded = 1;

    read_start(MODULE_LIST, list, sizeof list);
    while ((line = strsep(&rest, "\n")))
        if (*line)
            loaded &= load_module(line);
    return loaded;
}

void unblock_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int end_all_processes(void)
{
    long long deadline = now() + ENDING_MILLISECONDS_MAX;
    pid_t ended;

    do {
        kill(-1, SIGKILL);
        while ((ended = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (ended < 0)
            return 1;
        sleep_milliseconds(POLL_MILLISECONDS);
    } while (now() < deadline);
    return 0;
}

/* In a process of its own: a dead disk may hold it up for ever. */
static void sync_bounded(void)
{
    long long deadline = now() + ENDING_MILLISECONDS_MAX;
    pid_t process = fork();

    if (process == 0) {
        sync();
        _exit(0);
    }
    while (process > 0 && waitpid(process, NULL, WNOHANG) == 0 && now() < deadline)
        sleep_milliseconds(POLL_MILLISECONDS);
}

void stop_machine(int command)
{
    end_all_processes();
    sync_bounded();
    reboot(command);
    say("the machine does not stop: %s", strerror(errno));
}

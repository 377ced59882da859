/* What PID 1 does to the machine. Nothing here knows of Python. */
#ifndef UNBRICK_MACHINE_H
#define UNBRICK_MACHINE_H

#include <stddef.h>

enum { COMMAND_LINE_BYTES_MAX = 4096, SECONDS_MAX = 3600 };

/* One line on the console. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Milliseconds since some moment before this program started. */
long long now(void);
void sleep_milliseconds(int milliseconds);

/* Mounts /dev, /proc, /sys, /run and makes the console, or /dev/null, descriptors 0 to descriptor_last. */
void prepare_machine(int descriptor_last);

/* The whole number of seconds, 1 to SECONDS_MAX, after `name` on the kernel's command line. */
int seconds_option(const char *name, int otherwise);

/* Loads the modules that /etc/unbrick/modules.boot lists, in its order. 0: at least one failed. */
int load_modules(void);

void unblock_signals(void);

/* Kills every other process and waits until they are gone. 0: one did not go in time. */
int end_all_processes(void);

/* Ends all processes, syncs, and gives `command` to reboot(2). Returns only if the machine refuses. */
void stop_machine(int command);

/* Moves into the file system mounted at root, frees the initramfs, and becomes init. `leave` is called
 * last of all. What fails before that has a reason; the machine is rebooted after the pause. Never returns. */
void hand_over(const char *root, const char *init, char **arguments, void (*leave)(void), int pause_seconds)
    __attribute__((noreturn));

#endif

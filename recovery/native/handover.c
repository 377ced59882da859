/* From the initramfs to the real root: what switch_root does, in the process that becomes init. */
#define _GNU_SOURCE
#include "machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
    DIRECTORY_DEPTH_MAX = 32,
};

static const char *const SYSTEM_MOUNTS[] = {"/dev", "/proc", "/sys", "/run"};

/* PID 1 must not end. Where the attempt is counted in the journal, the pause lets a person read the reason,
 * and rebooting is no endless loop; where it is not, the pause is a rest. */
static void __attribute__((noreturn)) give_up(const char *reason, const char *what, int pause_seconds)
{
    say("%s %s: %s; the next start is in %d s", reason, what, strerror(errno), pause_seconds);
    for (;;) {
        sleep_milliseconds(pause_seconds * 1000L);
        stop_machine(RB_AUTOBOOT);
    }
}

/* A mount that the root has no place for is let go: it must not keep the initramfs alive. */
static void move_system_mounts(const char *root)
{
    char target[PATH_MAX];

    for (size_t index = 0; index < sizeof SYSTEM_MOUNTS / sizeof *SYSTEM_MOUNTS; index++) {
        snprintf(target, sizeof target, "%s%s", root, SYSTEM_MOUNTS[index]);
        if (mount(SYSTEM_MOUNTS[index], target, NULL, MS_MOVE, NULL)) {
            say("cannot move %s to %s: %s", SYSTEM_MOUNTS[index], target, strerror(errno));
            umount2(SYSTEM_MOUNTS[index], MNT_DETACH);
        }
    }
}

/* Deletes what is below an open directory and on its own file system. Takes the descriptor. */
static void remove_below(int directory, dev_t device, int depth)
{
    DIR *entries = fdopendir(directory);
    struct dirent *entry;

    if (!entries) {
        close(directory);
        return;
    }
    while ((entry = readdir(entries))) {
        struct stat status;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) || status.st_dev != device)
            continue;
        if (S_ISDIR(status.st_mode) && depth < DIRECTORY_DEPTH_MAX) {
            int below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0)
                remove_below(below, device, depth + 1);
        }
        unlinkat(directory, entry->d_name, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0);
    }
    closedir(entries);
}

/* Gives the memory of the initramfs back. Anything but a file system in memory is left alone. */
static void free_initramfs(int directory)
{
    struct stat status;
    struct statfs filesystem;

    if (fstat(directory, &status) == 0 && fstatfs(directory, &filesystem) == 0 &&
        (filesystem.f_type == RAMFS_MAGIC || filesystem.f_type == TMPFS_MAGIC))
        remove_below(directory, status.st_dev, 0);
}

void hand_over(const char *root, const char *init, char **arguments, void (*leave)(void), int pause_seconds)
{
    struct stat here, there;
    int old_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (!end_all_processes())
        say("a process does not end; going on without waiting for it");
    errno = ENOTDIR;
    if (old_root < 0 || fstat(old_root, &here) || stat(root, &there) || here.st_dev == there.st_dev)
        give_up("E905 handover-failed", root, pause_seconds);
    move_system_mounts(root);
    if (chdir(root) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        give_up("E905 handover-failed", root, pause_seconds);
    free_initramfs(old_root);
    say("E900 handover %s %s", root, init);
    leave();
    unblock_signals();
    const char *slash = strrchr(init, '/');
    arguments[0] = (char *)(slash ? slash + 1 : init);
    execv(init, arguments);
    give_up("E904 init-not-executable", init, pause_seconds);
}

/* A stand-in for the recovery image, to boot the virtual operating systems without it: load the modules that
 * /modules lists, put an overlay on the slot's partition with its upper on the data partition, start the OS.
 * The file system of the slot is given as `slot=` on the kernel's command line. No journal, no verification.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOT "/dev/vda2"
#define DATA "/dev/vda3"

static void check(int result, const char *what)
{
	if (result < 0) {
		printf("stop-gap: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void mount_at(const char *source, const char *target, const char *kind, unsigned long flags, const char *options)
{
	mkdir(target, 0755);
	check(mount(source, target, kind, flags, options), target);
}

static void load(char *line)
{
	char *parameters = strchr(line, ' ');
	int module;

	if (parameters)
		*parameters++ = '\0';
	module = open(line, O_RDONLY | O_CLOEXEC);
	/* an accelerated checksum may not be possible on this processor */
	if (module < 0 || syscall(SYS_finit_module, module, parameters ? parameters : "", 0) < 0)
		printf("stop-gap: %s: %s\n", line, strerror(errno));
	close(module);
}

static void load_all(void)
{
	char line[256];
	FILE *list = fopen("/modules", "r");

	while (list && fgets(line, sizeof(line), list)) {
		line[strcspn(line, "\n")] = '\0';
		load(line);
	}
}

static void move(const char *place)
{
	char target[64];

	snprintf(target, sizeof(target), "/newroot%s", place);
	check(mount(place, target, NULL, MS_MOVE, NULL), target);
}

int main(void)
{
	char line[1024] = "";
	char kind[32] = "squashfs";
	FILE *command_line;
	char *found;

	mount_at("dev", "/dev", "devtmpfs", 0, "");
	mount_at("proc", "/proc", "proc", 0, "");
	mount_at("sys", "/sys", "sysfs", 0, "");
	load_all();
	command_line = fopen("/proc/cmdline", "r");
	if (command_line && fgets(line, sizeof(line), command_line) && (found = strstr(line, "slot=")))
		sscanf(found, "slot=%31s", kind);
	mount_at(SLOT, "/lower", kind, MS_RDONLY, "");
	mount_at(DATA, "/data", "ext4", 0, "");
	mkdir("/data/upper", 0755);
	mkdir("/data/work", 0755);
	mount_at("overlay", "/newroot", "overlay", 0, "lowerdir=/lower,upperdir=/data/upper,workdir=/data/work");
	printf("stop-gap: hands over\n");
	move("/dev");
	move("/proc");
	move("/sys");
	check(chdir("/newroot"), "chdir");
	check(mount(".", "/", NULL, MS_MOVE, NULL), "move the root");
	check(chroot("."), "chroot");
	execl("/sbin/init", "/sbin/init", (char *)NULL);
	check(-1, "/sbin/init");
}

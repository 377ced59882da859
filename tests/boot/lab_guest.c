/* The whole user space of the lab's guests: /init, one thing to do, chosen by lab=... on the kernel's
 * command line. Says what it sees on the console and then waits for its power to be cut. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK = 4096, SECTOR = 512, POLL_MICROSECONDS = 20000 };

static void load_modules(void)
{
    char line[256];
    FILE *list = fopen("/modules", "r");
    while (list && fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = 0;
        char *parameters = strchr(line, ' ');
        if (parameters) *parameters++ = 0;
        int module = open(line, O_RDONLY);
        if (module < 0 || syscall(SYS_finit_module, module, parameters ? parameters : "", 0))
            printf("lab: module %s: %s\n", line, strerror(errno));
        close(module);
    }
    if (list) fclose(list);
}

static int open_when_there(const char *path, int flags)
{
    int file;
    while ((file = open(path, flags)) < 0) usleep(POLL_MICROSECONDS);
    return file;
}

/* Past the page cache, so the write reaches the disk at once, and without a flush. */
static int write_block(int disk, char content, off_t sector)
{
    static char block[BLOCK] __attribute__((aligned(BLOCK)));
    memset(block, content, sizeof block);
    return pwrite(disk, block, sizeof block, sector * SECTOR) == BLOCK ? 0 : errno;
}

static void hello(void)
{
    char line[64];
    printf("lab: hello\nname? ");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin)) printf("lab: hello %s", line);
    reboot(RB_POWER_OFF);
}

static void write_and_flush(void)
{
    int disk = open_when_there("/dev/vda", O_RDWR | O_DIRECT);
    write_block(disk, 'F', 0);
    int flushed = fsync(disk);
    write_block(disk, 'U', 8);
    write_block(disk, 'U', 16);
    printf("lab: flush %d, three blocks written\n", flushed);
}

static void write_five(void)
{
    int disk = open_when_there("/dev/vda", O_RDWR | O_DIRECT);
    for (int number = 1; number <= 5; number++) printf("lab: write %d errno %d\n", number, write_block(disk, 'W', 8 * number));
    printf("lab: flush errno %d\n", fsync(disk) ? errno : 0);
}

static char first_letter(int disk)
{
    static char block[BLOCK] __attribute__((aligned(BLOCK)));
    return pread(disk, block, sizeof block, 0) == BLOCK ? block[0] : '!';
}

/* Reads nothing and loads nothing before it is told to: its state can be saved until then. */
static void wait_for_word(void)
{
    char word[64];
    printf("lab: waiting\n");
    fflush(stdout);
    if (!fgets(word, sizeof word, stdin)) return;
    load_modules();
    printf("lab: the disk says %c\n", first_letter(open_when_there("/dev/vda", O_RDWR | O_DIRECT)));
}

static void read_stick(void)
{
    char content[16] = "";
    printf("lab: plug it in\n");
    int stick = open_when_there("/dev/sda", O_RDONLY);
    if (read(stick, content, sizeof content - 1) < 0) perror("lab: read");
    printf("lab: the stick says %s\n", content);
    close(stick);
    while (access("/dev/sda", F_OK) == 0) usleep(POLL_MICROSECONDS);
    printf("lab: the stick is gone\n");
}

static int key_is_down(int keyboard)
{
    unsigned char keys[KEY_MAX / 8 + 1] = {0};
    ioctl(keyboard, EVIOCGKEY(sizeof keys), keys);
    return keys[KEY_R / 8] >> KEY_R % 8 & 1;
}

static void watch_key(void)
{
    int keyboard = open_when_there("/dev/input/event0", O_RDONLY);
    for (int before = 0;; usleep(POLL_MICROSECONDS)) {
        int now = key_is_down(keyboard);
        if (now != before) printf("lab: the key is %s\n", now ? "down" : "up");
        before = now;
    }
}

static void hang_under_watchdog(void)
{
    open_when_there("/dev/watchdog0", O_WRONLY);
    printf("lab: the watchdog runs\n");
}

static const struct { const char *name; void (*run)(void); } things[] = {
    {"hello", hello}, {"write", write_and_flush}, {"write-five", write_five}, {"stick", read_stick},
    {"key", watch_key}, {"watchdog", hang_under_watchdog}, {"wait", wait_for_word},
};

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    const char *wanted = getenv("lab") ? getenv("lab") : "";
    if (strcmp(wanted, "wait")) load_modules();
    for (size_t index = 0; index < sizeof things / sizeof *things; index++)
        if (!strcmp(wanted, things[index].name)) things[index].run();
    for (;;) pause();
}

/* PID 1. Stays small and in C, so that nothing that goes wrong in Python is a kernel panic.
 *
 * It mounts what Python needs, starts Python as a child, loads the boot modules beside it, and then
 * only listens: it reaps, pets the watchdog while Python reports progress, kills a silent Python,
 * restarts a dead one a bounded number of times and then rests, never in a reboot loop. Its last act
 * is the hand-over, which replaces this program by the real root's init.
 *
 * Python's argument is the number of its crashes before this start. On descriptor 4 it reads one byte when
 * the boot modules are loaded ('1', or '0' if one failed), on descriptor 3 it writes lines of words:
 *     .                          progress
 *     watchdog DEVICE SECONDS    open it, and pet it from now on
 *     handover ROOT INIT OWNER PAUSE
 *                                end all processes and run INIT in ROOT; OWNER of the watchdog from then
 *                                on: `none` (it is stopped) or `systemd` (it is left ticking);
 *                                where that fails: seconds until the reboot
 *     reboot | poweroff
 * Started as any other process, this program is the command `unbrick`.
 *
 * Reasons: E900 handover, E502 watchdog-missing, E901 python-exited, E902 python-silent, E903 recovery-crashed, E904
 * init-not-executable, E905 handover-failed, E906 module-not-loaded, E907 message-not-understood.
 * On the kernel's command line, for tests: unbrick.retry-seconds=N, unbrick.silence-seconds=N.
 */
#define _GNU_SOURCE
#include "machine.h"
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PROGRESS_DESCRIPTOR = 3,
    MODULES_DESCRIPTOR = 4,
    RESTARTS_MAX = 3,
    SILENCE_SECONDS_MAX = 120,
    RETRY_SECONDS = 30,
    RETRY_SECONDS_MAX = SECONDS_MAX,
    TICK_MILLISECONDS = 500,
    PETS_PER_TIMEOUT = 4,
    LINE_BYTES_MAX = 1024,
    WORDS_MAX = 5,
    PAUSE_SECONDS_MIN = 3,
    PAUSE_SECONDS_MAX = SECONDS_MAX,
    WATCHDOG_SECONDS_MAX = SECONDS_MAX,
    OUT_OF_MEMORY_SCORE = 1000, /* the kernel ends Python before anything else */
};

static char **arguments_of_kernel;
static int signals = -1;
static int silence_seconds;

static struct {
    pid_t process;
    int crashes;
    int progress; /* our end of the pipe, -1 when it is closed */
    int killed;   /* and not yet gone */
    long long progress_at;
    char line[LINE_BYTES_MAX];
    size_t line_length;
} python = {.progress = -1};

static struct {
    int device; /* -1 when there is none */
    int seconds;
    int runs_on; /* after the hand-over */
    long long petted_at;
} watchdog = {.device = -1};

static void open_watchdog(char **words)
{
    int seconds = atoi(words[2]);

    if (watchdog.device < 0)
        watchdog.device = open(words[1], O_WRONLY | O_CLOEXEC);
    if (watchdog.device < 0 || seconds < 1 || seconds > WATCHDOG_SECONDS_MAX) {
        say("E502 watchdog-missing: %s of %s s: %s", words[1], words[2], strerror(errno));
        return;
    }
    ioctl(watchdog.device, WDIOC_SETTIMEOUT, &seconds); /* answers with what the hardware took */
    ioctl(watchdog.device, WDIOC_KEEPALIVE, 0);
    watchdog.seconds = seconds;
    watchdog.petted_at = now();
}

static void pet_watchdog(void)
{
    if (watchdog.device >= 0 && now() - watchdog.petted_at >= watchdog.seconds * 1000LL / PETS_PER_TIMEOUT) {
        ioctl(watchdog.device, WDIOC_KEEPALIVE, 0);
        watchdog.petted_at = now();
    }
}

static void leave_watchdog(void)
{
    if (watchdog.device < 0)
        return;
    ioctl(watchdog.device, WDIOC_KEEPALIVE, 0);
    if (!watchdog.runs_on && write(watchdog.device, "V", 1) != 1)
        say("the watchdog does not stop: %s", strerror(errno));
    close(watchdog.device);
}

static void note_progress(char **words)
{
    (void)words; /* its time has been noted, as that of every message */
}

static void begin_handover(char **words)
{
    int pause = atoi(words[4]);

    watchdog.runs_on = strcmp(words[3], "none") != 0;
    pause = pause < PAUSE_SECONDS_MIN ? PAUSE_SECONDS_MIN : pause > PAUSE_SECONDS_MAX ? PAUSE_SECONDS_MAX : pause;
    hand_over(words[1], words[2], arguments_of_kernel, leave_watchdog, pause);
}

static void begin_reboot(char **words)
{
    stop_machine(strcmp(words[0], "poweroff") == 0 ? RB_POWER_OFF : RB_AUTOBOOT);
}

static const struct {
    const char *word;
    int words;
    void (*act)(char **words);
} MESSAGES[] = {
    {".", 1, note_progress},           {"watchdog", 3, open_watchdog}, {"handover", 5, begin_handover},
    {"reboot", 1, begin_reboot},       {"poweroff", 1, begin_reboot},
};

static void act_on_message(char *line)
{
    char *words[WORDS_MAX + 1], *rest = line;
    int count = 0;

    while (count <= WORDS_MAX && (words[count] = strsep(&rest, " ")))
        count++;
    for (size_t index = 0; index < sizeof MESSAGES / sizeof *MESSAGES; index++)
        if (count == MESSAGES[index].words && strcmp(words[0], MESSAGES[index].word) == 0) {
            python.progress_at = now();
            MESSAGES[index].act(words);
            return;
        }
    say("E907 message-not-understood of %d words: %.40s", count, words[0]);
}

/* 1 if there was something to read, so there may be more. */
static int read_messages(void)
{
    char *end;

    if (python.progress < 0)
        return 0;
    ssize_t got = read(python.progress, python.line + python.line_length, sizeof python.line - python.line_length);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        close(python.progress);
        python.progress = -1;
    }
    python.line_length += got > 0 ? got : 0;
    while ((end = memchr(python.line, '\n', python.line_length))) {
        size_t used = end + 1 - python.line;
        *end = 0;
        act_on_message(python.line);
        python.line_length -= used;
        memmove(python.line, end + 1, python.line_length);
    }
    if (python.line_length == sizeof python.line) {
        say("E907 message-not-understood, longer than %d bytes", LINE_BYTES_MAX);
        python.line_length = 0;
    }
    return got > 0;
}

static void start_module_loader(int answer)
{
    if (fork() == 0) { /* a process of its own: a driver may hang */
        unblock_signals();
        char byte = load_modules() ? '1' : '0';
        _exit(write(answer, &byte, 1) == 1 ? 0 : 1);
    }
}

static void become_python(int progress, int modules)
{
    char text[16];
    char *arguments[] = {"unbrick", text, NULL};
    int file = open("/proc/self/oom_score_adj", O_WRONLY);

    if (file < 0 || write(file, text, snprintf(text, sizeof text, "%d", OUT_OF_MEMORY_SCORE)) < 0)
        say("oom_score_adj: %s", strerror(errno));
    snprintf(text, sizeof text, "%d", python.crashes);
    dup2(progress, PROGRESS_DESCRIPTOR);
    dup2(modules, MODULES_DESCRIPTOR);
    close_range(MODULES_DESCRIPTOR + 1, ~0U, 0);
    unblock_signals();
    exit(run_python("recovery.main", 2, arguments));
}

static void start_python(void)
{
    int progress[2] = {-1, -1}, modules[2] = {-1, -1};

    if (pipe2(progress, O_CLOEXEC) || pipe2(modules, O_CLOEXEC))
        say("no pipe: %s", strerror(errno));
    fcntl(progress[0], F_SETFL, O_NONBLOCK);
    python.progress = progress[0];
    python.line_length = 0;
    python.killed = 0;
    python.progress_at = now();
    python.process = fork();
    if (python.process == 0)
        become_python(progress[1], modules[0]);
    start_module_loader(modules[1]);
    close(progress[1]);
    close(modules[0]);
    close(modules[1]);
}

static void say_how_it_ended(int status)
{
    if (!python.killed)
        say("E901 python-exited: %s %d", WIFSIGNALED(status) ? "signal" : "status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void reap(void)
{
    struct signalfd_siginfo ignored;
    pid_t ended;
    int status;

    while (read(signals, &ignored, sizeof ignored) > 0)
        ;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
        if (ended == python.process) {
            while (read_messages()) /* its last words may be the hand-over */
                ;
            say_how_it_ended(status);
            python.process = 0;
        }
}

/* One look at everything. The watchdog is not petted while a killed Python is still there: what cannot
 * be killed hangs in the kernel, and only a reset helps. */
static void listen(void)
{
    struct pollfd sources[] = {{python.progress, POLLIN, 0}, {signals, POLLIN, 0}};

    poll(sources, 2, TICK_MILLISECONDS);
    read_messages();
    reap();
    if (python.process > 0 && !python.killed && now() - python.progress_at > silence_seconds * 1000LL) {
        say("E902 python-silent for %d s", silence_seconds);
        python.killed = 1;
        kill(python.process, SIGKILL);
    }
    if (!python.killed || python.process <= 0)
        pet_watchdog();
}

static void run_python_once(void)
{
    start_python();
    if (python.process < 0)
        say("E901 python-exited: cannot fork: %s", strerror(errno));
    while (python.process > 0)
        listen();
    if (python.progress >= 0)
        close(python.progress);
    python.progress = -1;
    end_all_processes(); /* what it had started must not write beside its successor */
    python.crashes++;
}

static void rest(int seconds)
{
    long long until = now() + seconds * 1000LL;

    say("E903 recovery-crashed %d times; the next try is in %d s, or switch off and on", python.crashes, seconds);
    while (now() < until)
        listen();
}

static void __attribute__((noreturn)) supervise(void)
{
    int retry_seconds = seconds_option("unbrick.retry-seconds=", RETRY_SECONDS);

    silence_seconds = seconds_option("unbrick.silence-seconds=", SILENCE_SECONDS_MAX);
    for (;;) {
        run_python_once();
        if (python.crashes > RESTARTS_MAX) {
            rest(retry_seconds);
            retry_seconds = retry_seconds * 2 < RETRY_SECONDS_MAX ? retry_seconds * 2 : RETRY_SECONDS_MAX;
        }
    }
}

int main(int count, char **arguments)
{
    sigset_t child;

    if (getpid() != 1)
        return run_python("recovery.cli", count, arguments);
    arguments_of_kernel = arguments;
    prepare_machine(MODULES_DESCRIPTOR); /* so no pipe gets a number that Python is promised */
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    supervise();
}

/* Process 1 of a sandbox: follows the recipe, starts the command, reaps, ends with it. */

#include "shim.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK 65536

extern int gateway_listener;

static int shim = -1;
static volatile pid_t command;
static bool ready;

static void tell(char word, const int64_t *numbers, int count, const char *text, int fd)
{
    uint8_t body[1200];
    size_t used = 0, length = text ? strlen(text) + 1 : 0;
    body[used++] = (uint8_t)word;
    memcpy(body + used, numbers, sizeof *numbers * (size_t)count);
    used += sizeof *numbers * (size_t)count;
    if (length > sizeof body - used)
        length = sizeof body - used;
    if (length) {
        memcpy(body + used, text, length);
        used += length;
        body[used - 1] = 0;
    }
    if (!frame_send(shim, body, used, &fd, fd >= 0))
        _exit(0); /* the shim is gone: so is the sandbox */
}

static void tell_failure(int number, const char *text)
{
    int64_t what = number;
    tell(WORD_ERROR, &what, 1, text, -1);
}

static void await_shim(void)
{
    struct frame frame;
    if (!frame_receive(shim, &frame))
        _exit(0);
    frame_close(&frame);
}

struct start {
    char **arguments;
    char **environment;
    const char *path;
    const int *stdio;
    sigset_t mask;
    volatile int error;
};

static int search(const struct start *start)
{
    const char *name = start->arguments[0];
    int kept = ENOENT;
    if (strchr(name, '/')) {
        execve(name, start->arguments, start->environment);
        return errno;
    }
    for (const char *at = start->path; at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL) {
        char full[4096];
        size_t length = strcspn(at, ":");
        if ((size_t)snprintf(full, sizeof full, "%.*s/%s", (int)length, at, name) >= sizeof full)
            continue;
        execve(full, start->arguments, start->environment);
        if (errno == EACCES)
            kept = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return errno;
    }
    return kept;
}

/* In a process that shares this one's memory until it executes the command. */
static int begin(void *given)
{
    struct start *start = given;
    sigprocmask(SIG_SETMASK, &start->mask, NULL);
    start->error = setsid() < 0 ? errno : search(start);
    _exit(127);
}

/* The standard descriptors go on 0, 1 and 2 here first: the process that becomes the command then has only to exec. */
static void take_stdio(const int *fds)
{
    for (int number = 0; number < 3; number++)
        if (dup2(fds[number], number) < 0)
            fail("stdio", NULL);
}

static pid_t spawn(struct start *start, const char *name)
{
    uint8_t *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        fail("stack", NULL);
    take_stdio(start->stdio);
    pid_t pid = clone(begin, stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, start);
    if (pid < 0)
        fail("clone", NULL);
    munmap(stack, STACK);
    if (start->error)
        fatal(start->error, "command", name);
    return pid;
}

/* The agent's pipes end when the agent's own processes have closed them, though this one still runs. */
static void let_go_of_stdio(void)
{
    for (int number = 0; number < 3; number++)
        close(number);
}

static void forward(int number)
{
    int kept = errno;
    if (command > 0)
        kill(command, number);
    errno = kept;
}

_Noreturn static void reap(void)
{
    uint8_t ending[2] = {255, 0};
    for (;;) {
        int status;
        pid_t pid = wait(&status);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0)
            break;
        if (pid != command)
            continue;
        ending[0] = (uint8_t)(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        ending[1] = (uint8_t)(WIFSIGNALED(status) ? WTERMSIG(status) : 0);
        break;
    }
    /* Not by send: this process is itself under a filter that may escalate sendto. */
    struct iovec part = {ending, sizeof ending};
    sendmsg(shim, &(struct msghdr){.msg_iov = &part, .msg_iovlen = 1}, MSG_NOSIGNAL | MSG_DONTWAIT);
    _exit(ending[0]);
}

static char **words(struct reader *fields)
{
    int64_t count = take_int(fields);
    if (count < 0 || count > MAX_WORDS)
        fatal(E2BIG, "recipe", NULL);
    char **list = mmap(NULL, sizeof(char *) * ((size_t)count + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (list == MAP_FAILED)
        fail("memory", NULL);
    for (int64_t index = 0; index < count; index++)
        list[index] = (char *)take_string(fields);
    return list;
}

_Noreturn static void run_command(struct reader *fields, struct frame *given, const struct probes *seen)
{
    static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    struct start start = {.error = 0};
    int64_t probed[2] = {seen->done ? seen->root : 0, seen->done ? seen->port : 0};
    char name[512];
    start.path = take_string(fields);
    start.arguments = words(fields);
    start.environment = words(fields);
    if (!start.arguments[0] || given->count < 3)
        fatal(EBADMSG, "recipe", "a command without a name or without descriptors");
    start.stdio = given->fds;
    snprintf(name, sizeof name, "%s", start.arguments[0]);
    int listener = held_listener();
    tell(WORD_PREPARED, probed, 2, canaries_placed(), listener);
    if (listener >= 0)
        close(listener); /* the shim alone keeps it: whoever takes this process over finds no listener in it */
    await_shim(); /* what holds has been observed from outside: the command may start */
    struct sigaction action = {.sa_handler = forward, .sa_flags = SA_RESTART};
    sigset_t held;
    sigemptyset(&held);
    for (size_t index = 0; index < sizeof forwarded / sizeof *forwarded; index++) {
        sigaction(forwarded[index], &action, NULL);
        sigaddset(&held, forwarded[index]);
    }
    sigprocmask(SIG_BLOCK, &held, &start.mask); /* until it is known whom to forward to */
    command = spawn(&start, name);
    sigprocmask(SIG_SETMASK, &start.mask, NULL);
    frame_close(given);
    let_go_of_stdio();
    int64_t pid = command;
    tell(WORD_STARTED, &pid, 1, NULL, -1);
    reap();
}

/* Follows operations until they end or one of them is READY; the last of a job is EXEC and never returns. */
static void follow(struct reader ops, struct frame *given)
{
    struct probes seen = {0};
    struct reader fields;
    uint16_t op;
    while (take_op(&ops, &op, &fields)) {
        if (op == OP_WAIT)
            await_shim();
        else if (op == OP_READY) {
            tell(WORD_READY, NULL, 0, NULL, gateway_listener);
            close(gateway_listener);
            gateway_listener = -1;
            ready = true;
        } else if (op == OP_EXEC)
            run_command(&fields, given, &seen);
        else if (!op_tree(op, &fields, given) && !op_restrict(op, &fields, &seen))
            fatal(ENOSYS, "recipe", "an operation that this program does not know");
        if (op != OP_WAIT && op != OP_READY && fields.at != fields.end)
            fatal(EBADMSG, "recipe", "an operation with more than it needs");
    }
}

_Noreturn void init_run(int sock, struct reader ops, struct frame *given)
{
    shim = sock;
    on_failure = tell_failure;
    /* What this process was born with is its own: through a folder of the host left open, a command could climb out. */
    if (call(NR_close_range, 3, (long)~0u, CLOSE_ON_EXEC, 0, 0) < 0)
        fail("close_range", NULL);
    prctl(PR_SET_NAME, "clawback-init", 0, 0, 0);
    umask(022);
    follow(ops, given);
    if (!ready)
        fatal(EBADMSG, "recipe", "a cage that is never ready");
    frame_close(given);
    if (!frame_receive(shim, given))
        _exit(0);
    follow((struct reader){given->bytes, given->bytes + given->length}, given);
    fatal(EBADMSG, "recipe", "a job without a command");
}

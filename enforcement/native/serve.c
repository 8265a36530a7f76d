/* The shim's long part: keep the output, give out the listener, answer for an absent supervisor, write down the end. */

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_LIMIT (1u << 20) /* as in sandbox/output.py */

static uint64_t room = OUTPUT_LIMIT, dropped;

/* Bound through the folder's descriptor: a socket's path may have 107 bytes at most. */
void serve_door(struct shim *shim)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/shim.sock", shim->folder);
    shim->door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before = umask(0177);
    if (shim->door < 0 || bind(shim->door, (struct sockaddr *)&address, sizeof address) || listen(shim->door, 8))
        fail("shim.sock", NULL);
    umask(before);
}

/* Without root an agent has our own user id, in a user namespace that it cannot leave. */
static bool at_home(pid_t pid)
{
    struct stat theirs, ours;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    if (stat(path, &theirs))
        return errno == EACCES || errno == EPERM; /* it has more rights than this process: no agent's */
    return !stat("/proc/self/ns/user", &ours) && theirs.st_ino == ours.st_ino;
}

/* Root and our own user get what they ask for, nobody else anything. One line is asked: see sandbox/door.py. */
static void answer_door(struct shim *shim)
{
    struct timeval patience = {.tv_sec = 1};
    struct ucred peer;
    socklen_t size = sizeof peer;
    char line[17] = {0};
    int sock = accept4(shim->door, NULL, NULL, SOCK_CLOEXEC);
    if (sock < 0)
        return;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &size) || (peer.uid != 0 && peer.uid != getuid())
        || (peer.uid == getuid() && !at_home(peer.pid))
        || setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience)
        || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience)
        || recv(sock, line, sizeof line - 1, 0) <= 0) {
        close(sock);
        return;
    }
    if (!strcmp(line, "supervise\n") && escalate_fd() >= 0) {
        escalate_attach(sock);
        return;
    }
    if (!strcmp(line, "supervise\n"))
        send_json(sock, -1, "{\"escalates\":false}");
    else if (!strcmp(line, "gateway\n"))
        send_json(sock, shim->listener, "{}");
    close(sock);
}

/* Takes what is there now; false at the end of it. The agent never blocks on it and never fills the disk. */
static bool copy_output(struct shim *shim)
{
    static char part[65536];
    ssize_t got = read(shim->output, part, sizeof part);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    size_t kept = (uint64_t)got < room ? (size_t)got : (size_t)room;
    if (write_all(shim->log, part, kept))
        kept = 0; /* a full disk: what is not kept counts as dropped */
    room -= kept;
    dropped += (uint64_t)got - kept;
    return got > 0;
}

static void drain_output(struct shim *shim)
{
    struct pollfd ready = {shim->output, POLLIN, 0};
    while (poll(&ready, 1, 0) == 1 && copy_output(shim))
        ;
}

/* What the first process said of itself goes to the core; its listener, if it has one, is served from here on. */
static void prepared(struct shim *shim, struct frame *frame)
{
    int64_t seen[2];
    char placed[MAX_CANARIES + 1];
    if (frame->length < 1 + sizeof seen)
        fatal(EBADMSG, "an unexpected word from the sandbox's first process", NULL);
    memcpy(seen, frame->bytes + 1, sizeof seen);
    json_escape((char *)frame->bytes + 1 + sizeof seen, placed, sizeof placed); /* a zero byte follows every frame */
    if (frame->count == 1) {
        escalate_begin(frame->fds[0]);
        frame->count = 0;
    }
    shim->phase = ASKING;
    if (!send_json(shim->core, -1, "{\"prepared\":{\"root\":%d,\"port\":%d,\"canaries\":\"%s\",\"escalates\":%s}}",
                   (int)seen[0], (int)seen[1], placed, escalate_fd() >= 0 ? "true" : "false"))
        fatal(ECANCELED, "the core withdrew the launch", NULL);
}

/* What is left to do needs no right over anything but what is open already and what is our user's own. */
static void give_up_rights(void)
{
    drop_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail("no_new_privs", NULL);
}

static void hear_init(struct shim *shim)
{
    struct frame frame;
    if (!frame_receive(shim->init, &frame))
        fatal(ECHILD, "the sandbox's first process died while it was being set up", NULL);
    char word = frame.length ? (char)frame.bytes[0] : 0;
    if (word == WORD_ERROR && frame.length > 9) {
        int64_t number;
        memcpy(&number, frame.bytes + 1, sizeof number);
        if (on_failure)
            on_failure((int)number, (char *)frame.bytes + 9);
        _exit(70);
    }
    if (word == WORD_PREPARED && shim->phase == PREPARING)
        prepared(shim, &frame);
    else if (word == WORD_STARTED && shim->phase == STARTING) {
        give_up_rights();
        shim->phase = RUNNING;
        on_failure = NULL; /* from here on the tree is an agent, and is not taken down for a failure of ours */
        send_json(shim->core, shim->listener, "{\"started\":%d}", shim->pid);
    } else
        fatal(EBADMSG, "an unexpected word from the sandbox's first process", NULL);
    frame_close(&frame);
}

/* It is on disk and watched by the core before the command starts; without the core's word nothing does. */
static void hear_core(struct shim *shim)
{
    struct frame frame;
    if (!frame_receive(shim->core, &frame))
        fatal(ECANCELED, "the core withdrew the launch", NULL);
    frame_close(&frame);
    shim->phase = STARTING;
    if (!frame_send(shim->init, "", 0, NULL, 0))
        fatal(ECHILD, "the sandbox's first process died", NULL);
}

void serve(struct shim *shim)
{
    for (;;) {
        struct pollfd ready[] = {
            {shim->pidfd, POLLIN, 0},
            {shim->door, POLLIN, 0},
            {shim->output, POLLIN, 0},
            {shim->phase == RUNNING ? -1 : shim->init, POLLIN, 0},
            {shim->phase == ASKING ? shim->core : -1, POLLIN, 0},
            {escalate_fd(), POLLIN, 0},
        };
        if (poll(ready, sizeof ready / sizeof *ready, -1) < 0) {
            if (errno == EINTR)
                continue;
            fail("poll", NULL);
        }
        if (ready[3].revents)
            hear_init(shim);
        if (ready[4].revents)
            hear_core(shim);
        if (ready[2].revents && !copy_output(shim)) {
            close(shim->output);
            shim->output = -1;
        }
        if (ready[5].revents)
            escalate_ready(ready[5].revents);
        if (ready[1].revents)
            answer_door(shim);
        if (ready[0].revents)
            return;
    }
}

/* (status, signal) of the command: by the first process's own word where it could still give it. */
static void ending_of(struct shim *shim, int *code, int *number)
{
    int status = 0;
    uint8_t word[2];
    while (waitpid(shim->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status)) {
        *code = 128 + WTERMSIG(status);
        *number = WTERMSIG(status);
    } else if (recv(shim->init, word, sizeof word, MSG_DONTWAIT) == sizeof word) {
        *code = word[0];
        *number = word[1];
    } else {
        *code = WEXITSTATUS(status);
        *number = 0;
    }
}

static void remove_leaves(const char *const *leaves, int count)
{
    for (int try = 0; try < 1000; try++) {
        int left = 0;
        for (int index = 0; index < count; index++)
            if (rmdir(leaves[index]) && errno == EBUSY) /* a process in it is dead and not yet reaped */
                left++;
        if (!left)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

void finish(struct shim *shim, const char *const *leaves, int count)
{
    int code, number;
    struct timespec now;
    char text[256];
    if (shim->output >= 0)
        drain_output(shim);
    ending_of(shim, &code, &number);
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(text, sizeof text, "{\"status\":%d,\"signal\":%d,\"ended_ns\":%lld,\"output_dropped\":%llu}", code,
                          number, (long long)now.tv_sec * 1000000000 + now.tv_nsec, (unsigned long long)dropped);
    /* Under its own name it says that the agent has ended: a reader sees all of it or none. */
    if (write_all(shim->ending, text, (size_t)length) || renameat(shim->folder, ".exit.json", shim->folder, "exit.json"))
        fail("exit.json", NULL);
    send_json(shim->core, -1, "{\"exit\":%s}", text); /* the core may be long gone */
    unlinkat(shim->folder, "shim.sock", 0);
    remove_leaves(leaves, count);
}

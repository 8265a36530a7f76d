/* clawback-shim: the parent of one sandbox. Makes it by a recipe, outlives the core, reaps it, says its end.
 *
 *     clawback-shim CORE CAGE     numbers of two inherited descriptors: the socket to the core, and a file with
 *                                 what the sandbox is made of before its command is known (sandbox/recipe.py)
 *     clawback-shim --version     the recipe that this program follows
 */

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLAWBACK_RECIPE
#define CLAWBACK_RECIPE "unknown"
#endif
#define MAX_LEAVES 16

struct cage {
    uint64_t flags;
    int group; /* the v2 leaf, open; -1 without */
    const char *uid_map, *gid_map;
    const char *about; /* JSON for the core */
    const char *leaves[MAX_LEAVES];
    int count;
    struct frame given; /* descriptors that the operations name by index */
    struct reader ops;
};

static struct shim self = {.core = -1, .init = -1, .listener = -1, .pidfd = -1, .folder = -1,
                           .ending = -1, .door = -1, .output = -1, .log = -1};
static struct cage cage;
static const char *stage = "create";

/* The folder of an agent that never was: nothing in it, and itself where it lies by now. */
static void remove_folder(void)
{
    static const char *const names[] = {"shim.sock", "agent.json", "restrictions.json", "output.log", ".exit.json"};
    char link[64], path[4096];
    if (self.folder < 0)
        return;
    for (size_t index = 0; index < sizeof names / sizeof *names; index++)
        unlinkat(self.folder, names[index], 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", self.folder);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        rmdir(path);
    }
}

/* Ends the sandbox, leaves nothing of it behind, and tells the core why there is none. */
static void give_up(int number, const char *text)
{
    char safe[2048];
    if (self.pid > 0) {
        kill(self.pid, SIGKILL);
        while (waitpid(self.pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    for (int index = 0; index < cage.count; index++)
        for (int try = 0; try < 1000 && rmdir(cage.leaves[index]) && errno == EBUSY; try++)
            usleep(2000);
    remove_folder();
    json_escape(text, safe, sizeof safe);
    if (self.core >= 0)
        send_json(self.core, -1, "{\"error\":\"%s\",\"stage\":\"%s\",\"errno\":%d}", safe, stage, number);
}

static void read_cage(int fd)
{
    struct stat file;
    if (fstat(fd, &file) || file.st_size <= 0 || file.st_size > MAX_FRAME)
        fail("recipe", NULL);
    uint8_t *bytes = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        fail("recipe", NULL);
    struct reader from = {bytes, bytes + file.st_size};
    cage.flags = (uint64_t)take_int(&from);
    cage.group = (int)take_int(&from);
    cage.uid_map = take_string(&from);
    cage.gid_map = take_string(&from);
    cage.about = take_string(&from);
    int64_t count = take_int(&from);
    if (count < 0 || count > MAX_LEAVES)
        fatal(E2BIG, "recipe", NULL);
    while (cage.count < count)
        cage.leaves[cage.count++] = take_string(&from);
    count = take_int(&from);
    if (count < 0 || count > MAX_FDS)
        fatal(E2BIG, "recipe", NULL);
    while (cage.given.count < count)
        cage.given.fds[cage.given.count++] = (int)take_int(&from);
    cage.ops = from;
}

static void put(pid_t pid, const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write_all(fd, text, strlen(text)))
        fail(name, NULL);
    close(fd);
}

static void clone_init(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        fail("socketpair", NULL);
    uint64_t arguments[11] = {cage.flags | CLONE_PIDFD, (uint64_t)(uintptr_t)&self.pidfd, 0, 0, SIGCHLD};
    if (cage.group >= 0) {
        arguments[0] |= CLONE_INTO_CGROUP;
        arguments[10] = (uint64_t)cage.group;
    }
    pid_t pid = (pid_t)call(NR_clone3, (long)arguments, sizeof arguments, 0, 0, 0);
    if (pid < 0)
        fail("clone3", NULL);
    if (pid == 0) {
        /* What the recipe names and the socket to here; nothing else of what this process has, folders of the host least. */
        int born_with[MAX_FDS + 1];
        memcpy(born_with, cage.given.fds, sizeof(int) * (size_t)cage.given.count);
        born_with[cage.given.count] = pair[1];
        keep_only(born_with, cage.given.count + 1);
        init_run(pair[1], cage.ops, &cage.given);
    }
    self.pid = pid;
    self.init = pair[0];
    int kept[] = {self.core, self.init, self.pidfd};
    keep_only(kept, 3);
    put(pid, "setgroups", "deny");
    put(pid, "uid_map", cage.uid_map);
    put(pid, "gid_map", cage.gid_map);
    if (!frame_send(self.init, "", 0, NULL, 0))
        fatal(ECHILD, "the sandbox's first process died", NULL);
}

/* Held open: taking these down, which the kernel waits for, does not come between the last process's end and the word of it. */
static void hold_namespaces(void)
{
    static const char *const kinds[] = {"mnt", "net"};
    for (int index = 0; index < 2; index++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/ns/%s", self.pid, kinds[index]);
        if (open(path, O_RDONLY | O_CLOEXEC) < 0)
            fail("namespace", kinds[index]);
    }
}

/* The first process's next word; what it failed with ends this process too. */
static void expect(char word, struct frame *frame)
{
    if (!frame_receive(self.init, frame))
        fatal(ECHILD, "the sandbox's first process died while it was being set up", NULL);
    char said = frame->length ? (char)frame->bytes[0] : 0;
    if (said == WORD_ERROR && frame->length > 9) {
        int64_t number;
        memcpy(&number, frame->bytes + 1, sizeof number);
        give_up((int)number, (char *)frame->bytes + 9);
        _exit(70);
    }
    if (said != word)
        fatal(EBADMSG, "an unexpected word from the sandbox's first process", NULL);
}

/* A pipe whose reading end goes to a bounded file, for a command without standard descriptors of its own. */
static void own_stdio(int *stdio)
{
    int pipe[2];
    stdio[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (stdio[0] < 0 || pipe2(pipe, O_CLOEXEC) || fcntl(pipe[0], F_SETFL, O_NONBLOCK))
        fail("output", NULL);
    self.output = pipe[0];
    stdio[1] = pipe[1];
    stdio[2] = fcntl(pipe[1], F_DUPFD_CLOEXEC, 3);
    if (stdio[2] < 0)
        fail("output", NULL);
}

/* The job: whether standard descriptors come along, then the operations. Descriptors: the folder, .exit.json, output.log
 * (only without standard ones), the standard three, mounts to show. */
static void hand_over(struct frame *job)
{
    struct reader from = {job->bytes, job->bytes + job->length};
    int taken = 0, fds[MAX_FDS + 3], count = 0;
    bool given = take_int(&from);
    if (job->count < (given ? 5 : 3))
        fatal(EBADMSG, "job", "descriptors are missing");
    self.folder = job->fds[taken++];
    self.ending = job->fds[taken++];
    if (!given) {
        self.log = job->fds[taken++];
        own_stdio(fds);
        count = 3;
    }
    for (int index = taken; index < job->count; index++)
        fds[count++] = job->fds[index];
    if (count > MAX_FDS)
        fatal(E2BIG, "job", "too many descriptors");
    serve_door(&self);
    if (!frame_send(self.init, from.at, (size_t)(from.end - from.at), fds, count))
        fatal(ECHILD, "the sandbox's first process died", NULL);
    for (int index = 0; index < count; index++)
        close(fds[index]);
    job->count = 0;
    frame_drop(job);
}

int main(int argc, char **argv)
{
    static struct frame job;
    if (argc == 2 && !strcmp(argv[1], "--version"))
        return puts(CLAWBACK_RECIPE) == EOF;
    if (argc != 3)
        return 64;
    for (int number = 1; number <= SIGRTMAX; number++)
        signal(number, SIG_DFL); /* what is ignored stays ignored across an exec */
    self.core = atoi(argv[1]);
    on_failure = give_up;
    setsid();
    umask(077);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_NAME, "clawback-shim", 0, 0, 0);
    fcntl(self.core, F_SETFD, FD_CLOEXEC);

    struct frame frame;
    read_cage(atoi(argv[2]));
    clone_init();
    expect(WORD_READY, &frame);
    if (frame.count != 1)
        fatal(EBADMSG, "no gateway socket", NULL);
    self.listener = frame.fds[0];
    frame_drop(&frame);
    hold_namespaces();
    if (!send_json(self.core, -1, "{\"ready\":%d,\"shim\":%d,\"about\":%s}", self.pid, getpid(), cage.about))
        fatal(ECANCELED, "the core is gone", NULL);
    if (!frame_receive(self.core, &job)) {
        on_failure = NULL;
        give_up(0, "");
        return 0;
    }
    stage = "launch";
    hand_over(&job);
    serve(&self);
    finish(&self, cage.leaves, cage.count);
    return 0;
}

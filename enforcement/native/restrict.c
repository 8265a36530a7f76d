/* What the first process gives up for good: capabilities, Landlock, seccomp; and the decoys, which need Landlock rules. */

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RULE_PATH_BENEATH 1
#define RULE_NET_PORT 2

static int ruleset = -1, listener = -1;
static char placed[MAX_CANARIES + 1];
static int canaries;

char *canaries_placed(void)
{
    return placed;
}

int held_listener(void)
{
    return listener;
}

/* Needs CAP_SETPCAP: must come before the ids are changed. */
static void drop_bounding(struct reader *fields)
{
    unsigned long securebits = (unsigned long)take_int(fields);
    for (int capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)) {
            if (errno == EINVAL) /* past the last one this kernel knows */
                break;
            fail("drop the bounding set", NULL);
        }
    if (prctl(PR_SET_SECUREBITS, securebits, 0, 0, 0))
        fail("secure bits", NULL);
}

void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {0x20080522, 0};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) || syscall(SYS_capset, &header, none))
        fail("drop capabilities", NULL);
}

static void landlock_path(const char *path, uint64_t folder, uint64_t file)
{
    struct __attribute__((packed)) {
        uint64_t access;
        int32_t fd;
    } rule;
    struct stat there;
    int fd;
    if (ruleset < 0)
        return;
    fd = open_path(path, false);
    if (fd < 0 && errno == ENOENT) /* a path that is not in the tree needs no rule: nothing can be opened there */
        return;
    if (fd < 0 || fstat(fd, &there))
        fail("landlock", path);
    rule.access = S_ISDIR(there.st_mode) ? folder : file;
    rule.fd = fd;
    if (call(NR_landlock_add_rule, ruleset, RULE_PATH_BENEATH, (long)&rule, 0, 0))
        fail("landlock", path);
    close(fd);
}

static void landlock(struct reader *fields)
{
    uint64_t attributes[3];
    for (int index = 0; index < 3; index++)
        attributes[index] = (uint64_t)take_int(fields);
    size_t size = (size_t)take_int(fields);
    if (size > sizeof attributes)
        fatal(EBADMSG, "recipe", "landlock");
    ruleset = (int)call(NR_landlock_create_ruleset, (long)attributes, (long)size, 0, 0, 0);
    if (ruleset < 0)
        fail("landlock", NULL);
}

static void landlock_port(struct reader *fields)
{
    uint64_t rule[2];
    rule[0] = (uint64_t)take_int(fields);
    rule[1] = (uint64_t)take_int(fields);
    if (call(NR_landlock_add_rule, ruleset, RULE_NET_PORT, (long)rule, 0, 0))
        fail("landlock port", NULL);
}

static void landlock_enforce(struct reader *fields)
{
    long flags = (long)take_int(fields);
    if (call(NR_landlock_restrict_self, ruleset, flags, 0, 0, 0))
        fail("landlock", NULL);
    close(ruleset);
    ruleset = -1;
}

/* The deepest folder of a path that is there; false where the path is too long. */
static bool existing(const char *path, char *into, size_t room, struct stat *there)
{
    size_t length = strlen(path);
    if (length >= room)
        return false;
    memcpy(into, path, length + 1);
    while (stat(into, there) || !S_ISDIR(there->st_mode)) {
        char *last = strrchr(into, '/');
        if (!last)
            return false;
        if (last == into)
            last++;
        *last = 0;
    }
    return true;
}

/* An empty readable file, on a file system of the sandbox's own only: nothing is ever created on the host's disks. */
static bool place(const char *root, const char *path, uint64_t folder, uint64_t file)
{
    char deepest[4096], parent[4096];
    struct stat own, there;
    const char *last = strrchr(path, '/');
    if (!last || (size_t)(last - path) >= sizeof parent)
        return false;
    memcpy(parent, path, (size_t)(last - path));
    parent[last - path] = 0;
    if (stat(*root ? root : "/", &own))
        fail("canary", root);
    if (!existing(parent, deepest, sizeof deepest, &there) || there.st_dev != own.st_dev || !lstat(path, &there))
        return false;
    for (char *at = parent + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            if (mkdir(parent, 0755) && errno != EEXIST)
                fail("canary", path);
            *at = '/';
        }
    if (mkdir(parent, 0755) && errno != EEXIST)
        fail("canary", path);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
    if (fd < 0)
        fail("canary", path);
    close(fd);
    landlock_path(parent, folder, file);
    landlock_path(path, folder, file);
    return true;
}

static void canary(struct reader *fields)
{
    const char *root = take_string(fields), *path = take_string(fields);
    uint64_t folder = (uint64_t)take_int(fields);
    uint64_t file = (uint64_t)take_int(fields);
    if (canaries == MAX_CANARIES)
        fatal(E2BIG, "canaries", NULL);
    placed[canaries++] = place(root, path, folder, file) ? '1' : '0';
}

/* The root itself is in no rule, and port 1 neither: without Landlock one opens and one is refused otherwise. */
static void probe(struct probes *seen)
{
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    seen->root = fd < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(0x7f000001)};
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        fail("probe", NULL);
    seen->port = connect(sock, (struct sockaddr *)&nowhere, sizeof nowhere) ? errno : 0;
    close(sock);
    seen->done = true;
}

static int install(struct reader *fields)
{
    static struct sock_filter aligned[BPF_MAXINSNS];
    unsigned flags = (unsigned)take_int(fields);
    struct text code = take_bytes(fields);
    if (!code.length || code.length % sizeof *aligned || code.length > sizeof aligned)
        fatal(E2BIG, "seccomp", NULL);
    memcpy(aligned, code.bytes, code.length);
    struct sock_fprog program = {(unsigned short)(code.length / sizeof *aligned), aligned};
    int result = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (result < 0)
        fail("seccomp", NULL);
    return result;
}

bool op_restrict(uint16_t op, struct reader *fields, struct probes *probes)
{
    switch (op) {
    case OP_BOUNDING: drop_bounding(fields); return true;
    case OP_LANDLOCK: landlock(fields); return true;
    case OP_LANDLOCK_PATH: {
        const char *path = take_string(fields);
        uint64_t folder = (uint64_t)take_int(fields);
        landlock_path(path, folder, (uint64_t)take_int(fields));
        return true;
    }
    case OP_LANDLOCK_PORT: landlock_port(fields); return true;
    case OP_CANARY: canary(fields); return true;
    case OP_PRCTL: {
        long words[5];
        for (int index = 0; index < 5; index++)
            words[index] = (long)take_int(fields);
        if (prctl((int)words[0], words[1], words[2], words[3], words[4]) < 0)
            fail("prctl", NULL);
        return true;
    }
    case OP_DROP_CAPABILITIES: drop_capabilities(); return true;
    case OP_LANDLOCK_ENFORCE: landlock_enforce(fields); return true;
    case OP_PROBE: probe(probes); return true;
    case OP_SECCOMP: install(fields); return true;
    case OP_NOTIFY:
        /* From here on whatever it marks is held until somebody answers: only sendmsg and recvmsg come before that. */
        if (listener >= 0)
            fatal(EBADMSG, "recipe", "a second listener");
        listener = install(fields);
        return true;
    default: return false;
    }
}

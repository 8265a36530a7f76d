/* The operations that make a sandbox: groups, ids, network, and the tree of files. Each fails by `fail` or has been done. */

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPEN_TREE_CLONE_FLAG 1
#define RECURSIVE 0x8000
#define EMPTY_PATH 0x1000
#define MOVE_FROM_EMPTY_PATH 4
#define MOVE_TO_EMPTY_PATH 0x40

int gateway_listener = -1;

static const char *or_null(const char *text)
{
    return *text ? text : NULL;
}

static void ids(struct reader *fields)
{
    uid_t uid = (uid_t)take_int(fields);
    gid_t gid = (gid_t)take_int(fields);
    if (setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        fail("setresuid", NULL);
}

static void do_mount(struct reader *fields)
{
    const char *source = take_string(fields), *target = take_string(fields), *kind = take_string(fields);
    unsigned long flags = (unsigned long)take_int(fields);
    const char *data = take_string(fields);
    if (mount(or_null(source), target, or_null(kind), flags, or_null(data)))
        fail("mount", target);
}

static void loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0 || ioctl(control, SIOCGIFFLAGS, &request))
        fail("loopback", NULL);
    request.ifr_flags |= IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &request))
        fail("loopback", NULL);
    close(control);
}

/* One socket for IPv4 and IPv6; only loopback exists here, so any address is loopback. */
static void listen_for_gateway(struct reader *fields)
{
    uint16_t port = (uint16_t)take_int(fields);
    int backlog = (int)take_int(fields), yes = 1, no = 0, bound;
    int sock = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0 && errno == EAFNOSUPPORT) {
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
        sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes))
            fail("gateway socket", NULL);
        bound = bind(sock, (struct sockaddr *)&any, sizeof any);
    } else {
        struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        if (sock < 0 || setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no)
            || setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes))
            fail("gateway socket", NULL);
        bound = bind(sock, (struct sockaddr *)&any, sizeof any);
    }
    if (bound || listen(sock, backlog))
        fail("gateway socket", NULL);
    gateway_listener = sock;
}

static void make_file(const char *path, mode_t mode, struct text data)
{
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0 || write_all(fd, data.bytes, data.length))
        fail("write", path);
    close(fd);
}

static void attach(int tree, const char *target)
{
    int place = open_path(target, false);
    if (place < 0)
        fail("open", target);
    if (call(NR_move_mount, tree, (long)"", place, (long)"", MOVE_FROM_EMPTY_PATH | MOVE_TO_EMPTY_PATH))
        fail("move_mount", target);
    close(place);
}

static void bind_tree(struct reader *fields)
{
    const char *source = take_string(fields), *target = take_string(fields);
    uint64_t attributes[4] = {(uint64_t)take_int(fields), 0, 0, 0};
    bool if_folder = take_int(fields);
    struct stat there;
    if (if_folder && (stat(source, &there) || !S_ISDIR(there.st_mode)))
        return;
    int from = open_path(source, false);
    if (from < 0)
        fail("open", source);
    int tree = (int)call(NR_open_tree, from, (long)"", OPEN_TREE_CLONE_FLAG | O_CLOEXEC | RECURSIVE | EMPTY_PATH, 0, 0);
    if (tree < 0)
        fail("open_tree", source);
    if (call(NR_mount_setattr, tree, (long)"", EMPTY_PATH | RECURSIVE, (long)attributes, sizeof attributes))
        fail("mount_setattr", source);
    attach(tree, target);
    close(tree);
    close(from);
}

/* Hide a file behind the null device or a folder behind an empty read-only file system; what is not there needs none. */
static void mask(struct reader *fields)
{
    const char *target = take_string(fields), *null = take_string(fields), *data = take_string(fields);
    unsigned long flags = (unsigned long)take_int(fields);
    struct stat there;
    if (stat(target, &there)) {
        if (errno != ENOENT)
            fail("mask", target);
        return;
    }
    if (S_ISDIR(there.st_mode) ? mount("tmpfs", target, "tmpfs", flags, data) : mount(null, target, NULL, MS_BIND, NULL))
        fail("mask", target);
}

static void pivot(const char *root)
{
    if (chdir(root) || syscall(SYS_pivot_root, ".", "."))
        fail("pivot_root", root);
    /* Both roots are now stacked at "."; the old one lies on top and is what this detaches. */
    if (umount2(".", MNT_DETACH) || chdir("/"))
        fail("pivot_root", root);
}

static void limit(struct reader *fields)
{
    int which = (int)take_int(fields);
    struct rlimit now, wanted;
    wanted.rlim_cur = (rlim_t)take_int(fields);
    wanted.rlim_max = (rlim_t)take_int(fields);
    if (getrlimit(which, &now))
        fail("getrlimit", NULL);
    if (wanted.rlim_cur > now.rlim_max)
        wanted.rlim_cur = now.rlim_max;
    if (wanted.rlim_max > now.rlim_max)
        wanted.rlim_max = now.rlim_max;
    if (setrlimit(which, &wanted))
        fail("setrlimit", NULL);
}

static void join(int fd)
{
    /* 0 is the writer itself; a thread that moves itself waits for no grace period. */
    if (write_all(fd, "0", 1))
        fail("join a group", NULL);
}

static int given_fd(struct reader *fields, const struct frame *given)
{
    int64_t index = take_int(fields);
    if (!given || index < 0 || index >= given->count)
        fatal(EBADMSG, "recipe", "a descriptor that was not given");
    return given->fds[index];
}

bool op_tree(uint16_t op, struct reader *fields, const struct frame *given)
{
    const char *path;
    switch (op) {
    case OP_JOIN: join(given_fd(fields, given)); return true;
    case OP_UNSHARE:
        if (unshare((int)take_int(fields)))
            fail("unshare", NULL);
        return true;
    case OP_IDS: ids(fields); return true;
    case OP_HOSTNAME:
        path = take_string(fields);
        if (sethostname(path, strlen(path)))
            fail("sethostname", NULL);
        return true;
    case OP_MOUNT: do_mount(fields); return true;
    case OP_LOOPBACK: loopback(); return true;
    case OP_LISTEN: listen_for_gateway(fields); return true;
    case OP_MKDIR:
        path = take_string(fields);
        if (mkdir(path, (mode_t)take_int(fields)))
            fail("mkdir", path);
        return true;
    case OP_MKDIRS: make_folders(take_string(fields)); return true;
    case OP_TOUCH: touch(take_string(fields)); return true;
    case OP_SYMLINK:
        path = take_string(fields);
        if (symlink(path, take_string(fields)))
            fail("symlink", path);
        return true;
    case OP_FILE: {
        path = take_string(fields);
        mode_t mode = (mode_t)take_int(fields);
        make_file(path, mode, take_bytes(fields));
        return true;
    }
    case OP_ATTACH: {
        int tree = given_fd(fields, given);
        attach(tree, take_string(fields));
        return true;
    }
    case OP_BIND: bind_tree(fields); return true;
    case OP_MASK: mask(fields); return true;
    case OP_PIVOT: pivot(take_string(fields)); return true;
    case OP_CHDIR:
        path = take_string(fields);
        if (chdir(path))
            fail("chdir", path);
        return true;
    case OP_RLIMIT: limit(fields); return true;
    default: return false;
    }
}

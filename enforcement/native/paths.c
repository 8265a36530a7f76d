/* Paths whose components an agent may exchange at any moment: each is opened by itself, and none may be a link. */

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One component; a folder that is not there is made where `make` says so. */
static int step(int folder, const char *name, bool make)
{
    struct stat there;
    int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && make && (!mkdirat(folder, name, 0755) || errno == EEXIST))
        fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &there) || S_ISLNK(there.st_mode))) {
        close(fd);
        errno = ELOOP;
        return -1;
    }
    return fd;
}

int open_path(const char *path, bool make)
{
    char name[256];
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0) {
        path += strspn(path, "/");
        if (!*path)
            return fd;
        size_t length = strcspn(path, "/");
        int next = -1;
        if (length < sizeof name) {
            memcpy(name, path, length);
            name[length] = 0;
            next = step(fd, name, make);
        } else {
            errno = ENAMETOOLONG;
        }
        int number = errno;
        close(fd);
        errno = number;
        fd = next;
        path += length;
    }
    return -1;
}

void make_folders(const char *path)
{
    int fd = open_path(path, true);
    if (fd < 0)
        fail("mkdir", path);
    close(fd);
}

void touch(const char *path)
{
    char parent[4096];
    struct stat there;
    const char *last = strrchr(path, '/');
    if (!last || (size_t)(last - path) >= sizeof parent)
        fatal(ENAMETOOLONG, "write", path);
    memcpy(parent, path, (size_t)(last - path));
    parent[last - path] = 0;
    int folder = open_path(parent, true);
    if (folder < 0)
        fail("mkdir", parent);
    if (fstatat(folder, last + 1, &there, AT_SYMLINK_NOFOLLOW)) {
        int fd = openat(folder, last + 1, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0 && errno != EEXIST)
            fail("write", path);
        if (fd >= 0)
            close(fd);
    }
    close(folder);
}

/* Bytes in and out: the bounded reader, frames with descriptors as in sandbox/wire.py, and failures as text. */

#include "shim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

void (*on_failure)(int number, const char *text);

_Noreturn void fatal(int number, const char *what, const char *subject)
{
    char text[1024];
    snprintf(text, sizeof text, "%s: %s%s%.700s", what, strerror(number), subject && *subject ? ": " : "",
             subject ? subject : "");
    if (on_failure)
        on_failure(number, text);
    _exit(70);
}

_Noreturn void fail(const char *what, const char *subject)
{
    fatal(errno, what, subject);
}

static const uint8_t *take(struct reader *from, size_t count)
{
    if ((size_t)(from->end - from->at) < count)
        fatal(EBADMSG, "recipe", "it ends within a field");
    const uint8_t *found = from->at;
    from->at += count;
    return found;
}

int64_t take_int(struct reader *from)
{
    int64_t value;
    memcpy(&value, take(from, sizeof value), sizeof value);
    return value;
}

struct text take_bytes(struct reader *from)
{
    uint32_t length;
    memcpy(&length, take(from, sizeof length), sizeof length);
    struct text text = {(const char *)take(from, (size_t)length + 1), length};
    if (text.bytes[length] != 0)
        fatal(EBADMSG, "recipe", "a text without an end");
    return text;
}

const char *take_string(struct reader *from)
{
    struct text text = take_bytes(from);
    if (strlen(text.bytes) != text.length)
        fatal(EBADMSG, "recipe", "a zero byte within a text");
    return text.bytes;
}

bool take_op(struct reader *from, uint16_t *op, struct reader *fields)
{
    if (from->at == from->end)
        return false;
    uint32_t length;
    memcpy(op, take(from, sizeof *op), sizeof *op);
    memcpy(&length, take(from, sizeof length), sizeof length);
    fields->at = take(from, length);
    fields->end = fields->at + length;
    return true;
}

int write_all(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length) {
        ssize_t done = write(fd, at, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        at += done;
        length -= (size_t)done;
    }
    return 0;
}

static bool read_exactly(int sock, uint8_t *into, size_t length)
{
    while (length) {
        ssize_t got = read(sock, into, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        into += got;
        length -= (size_t)got;
    }
    return true;
}

bool frame_receive(int sock, struct frame *frame)
{
    uint8_t head[4];
    union {
        char room[CMSG_SPACE(sizeof(int) * MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec part = {head, sizeof head};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memset(frame, 0, offsetof(struct frame, fds));
    frame->count = 0;
    ssize_t got;
    do
        got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return false;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (count > (size_t)(MAX_FDS - frame->count))
            return false;
        memcpy(frame->fds + frame->count, CMSG_DATA(item), count * sizeof(int));
        frame->count += (int)count;
    }
    if (got < 4 && !read_exactly(sock, head + got, 4 - (size_t)got))
        return false;
    uint32_t length;
    memcpy(&length, head, sizeof length);
    length = ntohl(length);
    if (length > MAX_FRAME || (message.msg_flags & MSG_CTRUNC))
        return false;
    frame->length = length;
    frame->bytes = mmap(NULL, length + 1u, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (frame->bytes == MAP_FAILED) {
        frame->bytes = NULL;
        return false;
    }
    return read_exactly(sock, frame->bytes, length);
}

/* By sendmsg alone: a sandbox's first process reports while it is itself under a filter that may escalate sendto. */
bool frame_send(int sock, const void *bytes, size_t length, const int *fds, int count)
{
    union {
        char room[CMSG_SPACE(sizeof(int) * MAX_FDS)];
        struct cmsghdr align;
    } control;
    uint32_t head = htonl((uint32_t)length);
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)bytes, length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (count) {
        size_t size = sizeof(int) * (size_t)count;
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(size);
        memset(&control, 0, message.msg_controllen);
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(item), fds, size);
    }
    ssize_t sent;
    do
        sent = sendmsg(sock, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < (ssize_t)sizeof head)
        return false;
    size_t done = (size_t)sent - sizeof head;
    while (done < length) {
        struct iovec rest = {(char *)bytes + done, length - done};
        sent = sendmsg(sock, &(struct msghdr){.msg_iov = &rest, .msg_iovlen = 1}, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        done += (size_t)sent;
    }
    return true;
}

void frame_drop(struct frame *frame)
{
    if (!frame->bytes)
        return;
    explicit_bzero(frame->bytes, frame->length); /* secrets were in it */
    munmap(frame->bytes, frame->length + 1);
    frame->bytes = NULL;
}

void frame_close(struct frame *frame)
{
    for (int index = 0; index < frame->count; index++)
        if (frame->fds[index] >= 0)
            close(frame->fds[index]);
    frame->count = 0;
    frame_drop(frame);
}

void json_escape(const char *text, char *into, size_t room)
{
    size_t used = 0;
    for (const unsigned char *at = (const unsigned char *)text; *at && used + 7 < room; at++) {
        if (*at < 0x20 || *at > 0x7e || *at == '"' || *at == '\\')
            used += (size_t)snprintf(into + used, room - used, "\\u%04x", *at);
        else
            into[used++] = (char)*at;
    }
    into[used] = 0;
}

bool send_json(int sock, int fd, const char *format, ...)
{
    char text[8192];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text)
        return false;
    return frame_send(sock, text, (size_t)length, &fd, fd >= 0);
}

static int ascending(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

void keep_only(int *fds, int count)
{
    unsigned first = 3;
    qsort(fds, (size_t)count, sizeof *fds, ascending);
    for (int index = 0; index < count; index++) {
        if (fds[index] < (int)first)
            continue;
        if (fds[index] > (int)first)
            call(NR_close_range, first, fds[index] - 1, 0, 0, 0);
        first = (unsigned)fds[index] + 1;
    }
    if (call(NR_close_range, first, (long)~0u, 0, 0, 0) < 0)
        fail("close_range", NULL);
}

int64_t call(long number, long a, long b, long c, long d, long e)
{
    return syscall(number, a, b, c, d, e);
}

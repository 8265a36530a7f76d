/* What the parts of the shim share: the recipe's operations, bounded reading, frames, and constants that old headers lack. */

#ifndef CLAWBACK_SHIM_H
#define CLAWBACK_SHIM_H

#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_FDS 253       /* what the kernel passes with one message */
#define MAX_FRAME (64u << 20)
#define MAX_WORDS 65536   /* of a command line or an environment */
#define MAX_CANARIES 256

/* Numbers as in sandbox/recipe.py; a test compares the two lists. */
enum op {
    OP_WAIT = 1,
    OP_JOIN = 2,
    OP_UNSHARE = 3,
    OP_IDS = 4,
    OP_BOUNDING = 5,
    OP_HOSTNAME = 6,
    OP_MOUNT = 7,
    OP_LOOPBACK = 8,
    OP_LISTEN = 9,
    OP_MKDIR = 10,
    OP_MKDIRS = 11,
    OP_TOUCH = 12,
    OP_SYMLINK = 13,
    OP_FILE = 14,
    OP_ATTACH = 16,
    OP_BIND = 17,
    OP_MASK = 18,
    OP_PIVOT = 20,
    OP_LANDLOCK = 21,
    OP_LANDLOCK_PATH = 22,
    OP_LANDLOCK_PORT = 23,
    OP_CANARY = 24,
    OP_CHDIR = 25,
    OP_RLIMIT = 26,
    OP_PRCTL = 27,
    OP_DROP_CAPABILITIES = 28,
    OP_LANDLOCK_ENFORCE = 29,
    OP_PROBE = 30,
    OP_SECCOMP = 31,
    OP_NOTIFY = 32,
    OP_READY = 33,
    OP_EXEC = 34,
};

/* Words from the first process to the shim: one byte, then what is said here. */
enum word {
    WORD_READY = 'R',    /* the listener comes along */
    WORD_PREPARED = 'P', /* i64 errno of opening /, i64 errno of connecting, text of 0 and 1: canaries; a listener */
    WORD_STARTED = 'S',  /* i64 pid, as the first process numbers it */
    WORD_ERROR = 'E',    /* i64 errno, text */
};

/* A cursor over bytes from the core. Every read is checked; a failed one ends the process by `fatal`. */
struct reader {
    const uint8_t *at;
    const uint8_t *end;
};

struct text {
    const char *bytes; /* ends with a zero byte that is not counted */
    size_t length;
};

int64_t take_int(struct reader *from);
struct text take_bytes(struct reader *from); /* may hold zero bytes */
const char *take_string(struct reader *from); /* holds none */
bool take_op(struct reader *from, uint16_t *op, struct reader *fields);

/* One message with its descriptors. `bytes` is mapped memory, wiped and given back by `frame_drop`. */
struct frame {
    uint8_t *bytes;
    size_t length;
    int fds[MAX_FDS];
    int count;
};

bool frame_receive(int sock, struct frame *frame); /* false at the end of the stream or on an error */
bool frame_send(int sock, const void *bytes, size_t length, const int *fds, int count);
void frame_drop(struct frame *frame);              /* the descriptors stay open */
void frame_close(struct frame *frame);             /* closes what is left of them */
bool send_json(int sock, int fd, const char *format, ...) __attribute__((format(printf, 3, 4)));
void json_escape(const char *text, char *into, size_t room);

/* The process that reports failures: where to, and what it was doing. `fatal` never returns. */
extern void (*on_failure)(int number, const char *text);
_Noreturn void fatal(int number, const char *what, const char *subject);
_Noreturn void fail(const char *what, const char *subject); /* with errno */

int write_all(int fd, const void *bytes, size_t length);
void keep_only(int *fds, int count); /* closes every other descriptor from 3 on; sorts */
int64_t call(long number, long a, long b, long c, long d, long e);

/* ops.c: the tree, the network, the ids */
bool op_tree(uint16_t op, struct reader *fields, const struct frame *given);

/* paths.c: no component of a path may be a link */
int open_path(const char *path, bool make); /* O_PATH; folders that are not there are made. -1 with errno */
void make_folders(const char *path);
void touch(const char *path); /* an empty file, if nothing is there; with all above it */

/* restrict.c: what is given up for good */
struct probes {
    int root;
    int port;
    bool done;
};
bool op_restrict(uint16_t op, struct reader *fields, struct probes *probes);
void drop_capabilities(void); /* all but the bounding set */
char *canaries_placed(void);
int held_listener(void); /* of the filter that escalates, -1 without */

/* init.c */
_Noreturn void init_run(int shim, struct reader ops, struct frame *given);

/* serve.c */
enum phase { PREPARING, ASKING, STARTING, RUNNING };

struct shim {
    enum phase phase;
    int core;     /* socket to whoever launched */
    int init;     /* socket to the first process */
    int listener; /* the gateway's */
    int pidfd;
    pid_t pid;
    int folder;
    int ending;   /* .exit.json, open */
    int door;     /* shim.sock */
    int output;   /* reading end, -1 without */
    int log;      /* output.log */
};
void serve_door(struct shim *shim);
void serve(struct shim *shim); /* returns when the first process has ended; failures before the start are reported */
void finish(struct shim *shim, const char *const *leaves, int count);

/* escalated.c */
void escalate_begin(int listener);
void escalate_attach(int peer);           /* takes over the connection */
int escalate_fd(void);                    /* what to poll, -1 where nothing escalates */
void escalate_ready(short events);

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

/* The same on x86-64 and aarch64, as all numbers from 424 on. */
#define NR_pidfd_send_signal 424
#define NR_open_tree 428
#define NR_move_mount 429
#define NR_clone3 435
#define NR_close_range 436
#define CLOSE_ON_EXEC 4 /* CLOSE_RANGE_CLOEXEC */
#define NR_mount_setattr 442
#define NR_landlock_create_ruleset 444
#define NR_landlock_add_rule 445
#define NR_landlock_restrict_self 446

#endif

/* The shim's part in escalation: keeps the filter's listener, and refuses every held call while nobody supervises.
 * The same as sandbox/escalated.py, where the ledger is described.
 */

#include "shim.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define WORD_LAST 0
#define WORD_REFUSED 1
#define FIRST 8
#define SLOTS 64
#define AHEAD 4096

static int listener = -1, supervisor = -1, ledger = -1;
static volatile uint64_t *page;

int escalate_fd(void)
{
    return supervisor >= 0 ? supervisor : listener;
}

void escalate_begin(int fd)
{
    ledger = memfd_create("clawback-ledger", MFD_CLOEXEC);
    if (ledger < 0 || ftruncate(ledger, PAGE))
        fail("ledger", NULL);
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ledger, 0);
    if (page == MAP_FAILED)
        fail("ledger", NULL);
    listener = fd;
}

static bool refuse(uint64_t id)
{
    struct seccomp_notif_resp answer = {.id = id, .error = -EPERM};
    return !ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

/* The supervisor is gone: whatever it had in hand is refused. */
static void leave(void)
{
    uint64_t last, count = 0;
    if (supervisor < 0)
        return;
    close(supervisor);
    supervisor = -1;
    for (int slot = FIRST; slot < FIRST + SLOTS; slot++)
        if (page[slot]) {
            count += refuse(page[slot]);
            page[slot] = 0;
        }
    /* It may have died between taking a call and noting it: that one is the oldest after the last noted. */
    last = page[WORD_LAST];
    for (uint64_t id = last + 1; last && id != last + 1 + AHEAD; id++)
        if (refuse(id)) {
            count++;
            break;
        }
    page[WORD_REFUSED] += count;
}

void escalate_attach(int peer)
{
    static const char text[] = "{\"escalates\":true}";
    int both[2] = {listener, ledger};
    leave();
    if (frame_send(peer, text, sizeof text - 1, both, 2))
        supervisor = peer;
    else
        close(peer);
}

/* Nobody is under the filter any more. */
static void forget(void)
{
    close(listener);
    close(ledger);
    munmap((void *)page, PAGE);
    listener = ledger = -1;
}

void escalate_ready(short events)
{
    if (supervisor >= 0) {
        leave(); /* it never speaks: this is its end */
        return;
    }
    if (!(events & POLLIN)) {
        forget();
        return;
    }
    struct seccomp_notif held;
    memset(&held, 0, sizeof held); /* the kernel refuses anything but zeros */
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &held)) {
        if (errno != ENOENT && errno != EINTR)
            forget(); /* closed, it lets every held call fail with ENOSYS */
        return;
    }
    if (refuse(held.id))
        page[WORD_REFUSED]++;
}

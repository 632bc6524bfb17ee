/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io_uring: reads and writes of a descriptor, submitted in batches (one system call for each
 * eng_uring_kick()), ended by an eventfd. One ring for each queue, used by one thread.
 *
 * Never more than the completion ring's size is in flight, so that it cannot overflow; the rest
 * waits in `backlog`. Whatever ends unusually (short, interrupted) is not pursued here, but handed
 * back for the synchronous path, which continues it: one place knows how.
 */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "block/eng_int.h"

struct eng_uring {
    struct io_uring ring;
    int event_fd;
    unsigned max;      /* pieces in flight at most */
    unsigned inflight; /* handed to the ring, not reaped */
    struct eng_list backlog;
};

/* A ring is beside the system call filter: whoever took the process over could have it open files
 * and connections. So it carries nothing but reads and writes, for ever (Linux 5.10; an older host
 * gets workers in place of a ring). */
static int restrict_ring(struct io_uring *ring)
{
    struct io_uring_restriction only[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP,  .sqe_op = IORING_OP_READV },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
    };
    /* liburing 2.3 declares functions for both and exports neither. */
    long rc = syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, only,
                      ARRAY_LEN(only));
    if (rc == 0) {
        rc = syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    }
    return rc < 0 ? -errno : 0;
}

int eng_uring_new(unsigned depth, int event_fd, struct eng_uring **ret_eng)
{
    struct eng_uring *eng = calloc(1, sizeof(*eng));
    if (eng == NULL) {
        return -ENOMEM;
    }
    eng->event_fd = event_fd;
    STAILQ_INIT(&eng->backlog);
    int rc = io_uring_queue_init(depth, &eng->ring, IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED);
    if (rc < 0) {
        free(eng);
        return rc;
    }
    rc = io_uring_register_eventfd(&eng->ring, event_fd);
    rc = rc < 0 ? rc : restrict_ring(&eng->ring);
    if (rc < 0) {
        io_uring_queue_exit(&eng->ring);
        free(eng);
        return rc;
    }
    eng->max = *eng->ring.cq.kring_entries;
    *ret_eng = eng;
    return 0;
}

void eng_uring_free(struct eng_uring *eng)
{
    if (eng == NULL) {
        return;
    }
    assert(eng->inflight == 0 && STAILQ_EMPTY(&eng->backlog));
    io_uring_queue_exit(&eng->ring);
    free(eng);
}

void eng_uring_push(struct eng_uring *eng, struct eng_piece *piece)
{
    STAILQ_INSERT_TAIL(&eng->backlog, piece, link);
}

static void prepare(struct io_uring_sqe *sqe, struct eng_piece *p)
{
    int fd = p->map.fd;
    uint64_t offset = p->map.offset;
    unsigned n = (unsigned)p->niov;
    if (p->op == BLK_OP_WRITE) {
        io_uring_prep_writev(sqe, fd, p->iov, n, offset);
    } else {
        io_uring_prep_readv(sqe, fd, p->iov, n, offset);
    }
    io_uring_sqe_set_data(sqe, p);
}

/* Hands the prepared entries to the kernel. False when it takes none now (out of memory). */
static bool submit(struct eng_uring *eng)
{
    static const uint64_t one = 1;
    int rc;
    do {
        rc = io_uring_submit(&eng->ring);
    } while (rc == -EINTR);
    if (rc < 0) {
        /* They stay prepared; the next kick tries again. See to it that there is one. */
        log_debug("block", "io_uring_submit", "errno='%d'", -rc);
        (void)!write(eng->event_fd, &one, sizeof(one)); /* only full at 2^64 - 2: still readable */
        return false;
    }
    return true;
}

void eng_uring_kick(struct eng_uring *eng)
{
    while (!STAILQ_EMPTY(&eng->backlog) && eng->inflight < eng->max) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&eng->ring);
        if (sqe == NULL) {
            if (!submit(eng)) {
                return;
            }
            continue;
        }
        struct eng_piece *p = STAILQ_FIRST(&eng->backlog);
        STAILQ_REMOVE_HEAD(&eng->backlog, link);
        prepare(sqe, p);
        eng->inflight++;
    }
    if (io_uring_sq_ready(&eng->ring) > 0) {
        (void)submit(eng); /* false: it has asked for another kick */
    }
}

void eng_uring_reap(struct eng_uring *eng, struct eng_list *out)
{
    struct io_uring_cqe *cqe;
    unsigned head;
    unsigned seen = 0;
    io_uring_for_each_cqe(&eng->ring, head, cqe)
    {
        struct eng_piece *p = io_uring_cqe_get_data(cqe);
        eng_piece_conclude(p, cqe->res);
        STAILQ_INSERT_TAIL(out, p, link);
        seen++;
    }
    io_uring_cq_advance(&eng->ring, seen);
    assert(seen <= eng->inflight);
    eng->inflight -= seen;
}

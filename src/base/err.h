/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors that a person or an API client caused, or that the host gave us.
 *
 * The caller owns a `struct err` on its stack and passes it down; it is never NULL. The place that
 * knows the fault fills it once with err_set(); callers on the way up may only err_prefix() it.
 * The text names the object, the bad value, the allowed range and what to do next.
 *
 *     struct err err = ERR_INIT;
 *     if (blk_open(&blk, "disk.qcow2", ..., &err) < 0) {
 *         fprintf(stderr, "posada: %s\n", err.msg);
 *     }
 *
 * `fmt` is English and is translated here (gettext), so callers need no markers: xgettext knows
 * these functions (po/).
 *
 * Guest errors are not errors of ours (see vmm/dev/dev.h: dev_guest_bug), and bugs of ours are
 * asserts.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/bits.h"

#define ERR_MSG_MAX 1024

struct err {
    int code; /* negative errno; 0 while nothing is set */
    char msg[ERR_MSG_MAX];
};

#define ERR_INIT                                                                                   \
    {                                                                                              \
        .code = 0                                                                                  \
    }

/* Fills `err` with `code` (a negative errno) and the text. Returns `code`. Overwrites. */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* As err_set, and appends ": " and the text of errno value -code. Returns `code`. */
int err_set_errno(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts a text in front of the present one ("disk 'a.raw': " + old). Returns err->code. */
int err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Empties `err` for another use. */
void err_clear(struct err *err);

#endif

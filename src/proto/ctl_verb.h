/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The requests of the control protocol as people write and read them: verbs with an argument, and
 * replies as text. Shared by `posada ctl` and the control prompt of a console. No state, any
 * thread.
 */
#ifndef PROTO_CTL_VERB_H
#define PROTO_CTL_VERB_H

#include <stdio.h>

#include "base/err.h"
#include "proto/wire.h"

struct ctl_verb {
    const char *name;
    uint16_t request, reply; /* types of the messages */
    const char *arg;         /* name of its argument, in brackets when optional; NULL = none */
    const char *summary;     /* English, one line */
};

/* NULL when there is no such verb. */
const struct ctl_verb *ctl_verb_find(const char *name);
/* One line a verb. */
void ctl_verb_help(FILE *out);

/* Makes the request of `verb` in `ret_msg`; `arg` is NULL when none was given. -EINVAL when it is
 * no argument of this verb. */
MUST_USE int ctl_verb_request(const struct ctl_verb *verb, const char *arg,
                              struct wire_msg *ret_msg, struct err *err);
/* The reply for people, each line ended; nothing for an ok, the text for an error. */
void ctl_verb_print(const struct wire_msg *reply, FILE *out);

#endif

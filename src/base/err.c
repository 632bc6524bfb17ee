/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/err.h"

#include <assert.h>
#include <libintl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
    assert(code < 0);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->msg, sizeof(err->msg), gettext(fmt), ap);
    va_end(ap);
    err->code = code;
    return code;
}

int err_set_errno(struct err *err, int code, const char *fmt, ...)
{
    assert(code < 0);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->msg, sizeof(err->msg), gettext(fmt), ap);
    va_end(ap);
    size_t len = strlen(err->msg);
    (void)snprintf(err->msg + len, sizeof(err->msg) - len, ": %s",
                   dgettext("libc", strerrordesc_np(-code)));
    err->code = code;
    return code;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    char old[ERR_MSG_MAX];
    memcpy(old, err->msg, sizeof(old));
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->msg, sizeof(err->msg), gettext(fmt), ap);
    va_end(ap);
    size_t len = strlen(err->msg);
    (void)snprintf(err->msg + len, sizeof(err->msg) - len, "%s", old);
    return err->code;
}

void err_clear(struct err *err)
{
    err->code = 0;
    err->msg[0] = '\0';
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

/* The one process-wide setting (style.md: global state lives in main files and here). */
static _Atomic int log_threshold = LOG_WARN;

static const char *const log_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn",   [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug", [LOG_TRACE] = "trace",
};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_threshold, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

int log_level_parse(const char *name, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_LEN(log_names); i++) {
        if (strcmp(name, log_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void log_write(enum log_level level, const char *component, const char *text, const char *fmt, ...)
{
    char line[LOG_LINE_MAX];
    int len = snprintf(line, sizeof(line) - 1, "%s %s: %s%s", log_names[level], component, text,
                       fmt[0] != '\0' ? " " : "");
    if (len < 0) {
        return;
    }
    size_t used = MIN((size_t)len, sizeof(line) - 2);
    va_list ap;
    va_start(ap, fmt);
    len = vsnprintf(line + used, sizeof(line) - 1 - used, fmt, ap);
    va_end(ap);
    if (len > 0) {
        used = MIN(used + (size_t)len, sizeof(line) - 2);
    }
    line[used++] = '\n';
    /* A log line that cannot be written has nowhere else to go. */
    (void)!write(STDERR_FILENO, line, used);
}

bool log_limit_pass(struct log_limit *limit)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t second = (uint64_t)now.tv_sec;
    uint64_t seen = atomic_load_explicit(&limit->second, memory_order_relaxed);
    if (seen != second &&
        atomic_compare_exchange_strong_explicit(&limit->second, &seen, second, memory_order_relaxed,
                                                memory_order_relaxed)) {
        atomic_store_explicit(&limit->in_window, 0, memory_order_relaxed);
    }
    if (atomic_fetch_add_explicit(&limit->in_window, 1, memory_order_relaxed) < LOG_BURST) {
        return true;
    }
    atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
    return false;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log lines on stderr: level, component, short lower-case text, key='value' pairs.
 *
 *     log_warn("virtio-blk", "request out of range", "sector='%" PRIu64 "'", sector);
 *
 * error = someone must act, warn = we went on, info = state change, debug = flow, trace = each
 * access. Libraries (levels 0 to 2) return errors and log only debug. What a guest can trigger
 * goes through log_limited(): at most LOG_BURST lines a source and second, the rest are counted.
 * Any thread; each line is one write(2).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>

#include "base/bits.h"

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG,
    LOG_TRACE,
};

#define LOG_BURST 5

struct log_limit {
    _Atomic uint64_t second; /* CLOCK_MONOTONIC second of the current window */
    _Atomic uint32_t in_window;
    _Atomic uint64_t suppressed;
};

/* Lines above `level` are dropped. Process-wide; default LOG_WARN. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* Parses "error".."trace". Returns 0, or -EINVAL. */
int log_level_parse(const char *name, enum log_level *ret_level);

void log_write(enum log_level level, const char *component, const char *text, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* True when a line may be written now; counts it either way. */
bool log_limit_pass(struct log_limit *limit);

#define log_at(level, component, text, ...)                                                        \
    do {                                                                                           \
        if ((level) <= log_get_level()) {                                                          \
            log_write((level), (component), (text), "" __VA_ARGS__);                               \
        }                                                                                          \
    } while (0)

#define log_error(component, text, ...) log_at(LOG_ERROR, component, text, __VA_ARGS__)
#define log_warn(component, text, ...)  log_at(LOG_WARN, component, text, __VA_ARGS__)
#define log_info(component, text, ...)  log_at(LOG_INFO, component, text, __VA_ARGS__)
#define log_debug(component, text, ...) log_at(LOG_DEBUG, component, text, __VA_ARGS__)
#define log_trace(component, text, ...) log_at(LOG_TRACE, component, text, __VA_ARGS__)

/* The guest-triggered form: `limit` is a struct log_limit * in the object concerned. */
#define log_limited(limit, level, component, text, ...)                                            \
    do {                                                                                           \
        if ((level) <= log_get_level() && log_limit_pass(limit)) {                                 \
            log_write((level), (component), (text), "" __VA_ARGS__);                               \
        }                                                                                          \
    } while (0)

#endif

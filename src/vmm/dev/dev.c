/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/dev/dev.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int dev_new(struct dev_env *env, const struct dev_class *cls, const char *id, const void *params,
            struct dev **ret_dev, struct err *err)
{
    struct dev *dev = calloc(1, sizeof(*dev));
    void *state = calloc(1, MAX(cls->state_size, (size_t)1));
    if (dev == NULL || state == NULL) {
        free(dev);
        free(state);
        return err_set(err, -ENOMEM, "%s: out of memory", id);
    }
    dev->cls = cls;
    dev->env = env;
    dev->state = state;
    (void)snprintf(dev->id, sizeof(dev->id), "%s", id);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&dev->lock, &attr);
    pthread_mutexattr_destroy(&attr);

    int rc = cls->init(dev, params, err);
    if (rc < 0) {
        pthread_mutex_destroy(&dev->lock);
        free(state);
        free(dev);
        return err_prefix(err, "%s: ", id);
    }
    TAILQ_INSERT_TAIL(&env->devs, dev, link);
    *ret_dev = dev;
    return 0;
}

void dev_free(struct dev *dev)
{
    if (dev == NULL) {
        return;
    }
    TAILQ_REMOVE(&dev->env->devs, dev, link);
    if (dev->cls->done != NULL) {
        dev->cls->done(dev);
    }
    pthread_mutex_destroy(&dev->lock);
    free(dev->state);
    free(dev);
}

static void dev_call(struct dev *dev, void (*fn)(struct dev *dev))
{
    if (fn == NULL) {
        return;
    }
    bool serial = dev->cls->threading == DEV_SERIAL;
    if (serial) {
        dev_lock(dev);
    }
    fn(dev);
    if (serial) {
        dev_unlock(dev);
    }
}

void dev_reset(struct dev *dev)
{
    dev_call(dev, dev->cls->reset);
}

void dev_stop(struct dev *dev)
{
    dev_call(dev, dev->cls->stop);
}

void dev_start(struct dev *dev)
{
    dev_call(dev, dev->cls->start);
}

void dev_guest_bug(struct dev *dev, const char *fmt, ...)
{
    char text[256];
    dev->guest_bugs++;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_limited(&dev->bug_limit, LOG_WARN, dev->id, "guest error", "what='%s'", text);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>

int thread_start(pthread_t *ret_thread, const char *name, int cpu, void *(*fn)(void *),
                 void *opaque, struct err *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        if (cpu >= CPU_SETSIZE) {
            pthread_attr_destroy(&attr);
            return err_set(err, -EINVAL, "thread '%s': host CPU %d is out of range (0 to %d)", name,
                           cpu, CPU_SETSIZE - 1);
        }
        CPU_SET(cpu, &set);
        pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
    }
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t thread;
    int rc = pthread_create(&thread, &attr, fn, opaque);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        return err_set_errno(err, -rc, "cannot start thread '%s'%s", name,
                             cpu >= 0 ? " (is the host CPU it is pinned to online?)" : "");
    }
    char cut[16];
    (void)snprintf(cut, sizeof(cut), "%s", name);
    pthread_setname_np(thread, cut);
    *ret_thread = thread;
    return 0;
}

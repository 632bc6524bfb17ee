/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

/* Below the size of a huge page: a stack of the usual 8 MiB, where it happens to be aligned, gets 2
 * MiB of memory at its first touch. */
#define THREAD_STACK (1024 * 1024)

struct thread_start_args {
    char name[16];
    void *(*fn)(void *);
    void *opaque;
};

/* The thread names itself: from outside that takes a file of /proc, which a sandbox may not open.
 */
static void *thread_main(void *opaque)
{
    struct thread_start_args args = *(struct thread_start_args *)opaque;
    free(opaque);
    (void)prctl(PR_SET_NAME, args.name, 0, 0, 0);
    return args.fn(args.opaque);
}

int thread_start(pthread_t *ret_thread, const char *name, int cpu, void *(*fn)(void *),
                 void *opaque, struct err *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
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
    struct thread_start_args *args = malloc(sizeof(*args));
    if (args == NULL) {
        pthread_attr_destroy(&attr);
        return err_set(err, -ENOMEM, "thread '%s': out of memory", name);
    }
    *args = (struct thread_start_args){ .fn = fn, .opaque = opaque };
    (void)snprintf(args->name, sizeof(args->name), "%s", name);
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t thread;
    int rc = pthread_create(&thread, &attr, thread_main, args);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        free(args);
        return err_set_errno(err, -rc, "cannot start thread '%s'%s", name,
                             cpu >= 0 ? " (is the host CPU it is pinned to online?)" : "");
    }
    *ret_thread = thread;
    return 0;
}

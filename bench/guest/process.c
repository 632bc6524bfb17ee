/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several processes: fork, exec, a pipe between two, switches; and two processors at once. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

enum {
    PROCESS_THREADS = 2,
    PROCESS_PIPE_ROUNDS = 50,
    PROCESS_WORK = 200000,
};

static uint64_t process_fork(uint64_t *sum)
{
    pid_t child = fork();
    if (child < 0) {
        bench_die("fork");
    }
    if (child == 0) {
        _exit(0);
    }
    waitpid(child, NULL, 0);
    *sum = 0;
    return 1;
}

static uint64_t process_exec(uint64_t *sum)
{
    pid_t child = fork();
    int status;
    if (child < 0) {
        bench_die("fork");
    }
    if (child == 0) {
        execl("/proc/self/exe", "bench", "exit", (char *)NULL);
        _exit(1);
    }
    waitpid(child, &status, 0);
    *sum = (uint64_t)status;
    return 1;
}

static pid_t process_peer;
static int process_there[2], process_back[2];
static cpu_set_t process_before;

/* Both ends of what follows run on one CPU. */
static void process_one_cpu(void)
{
    cpu_set_t one;
    sched_getaffinity(0, sizeof(process_before), &process_before);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &process_before)) {
            CPU_SET(i, &one);
            break;
        }
    }
    sched_setaffinity(0, sizeof(one), &one);
}

static int process_pipe_setup(void)
{
    process_one_cpu();
    if (pipe(process_there) < 0 || pipe(process_back) < 0) {
        bench_die("pipe");
    }
    process_peer = fork();
    if (process_peer < 0) {
        bench_die("fork");
    }
    if (process_peer == 0) {
        char c;
        close(process_there[1]);
        while (read(process_there[0], &c, 1) == 1 && write(process_back[1], &c, 1) == 1) {
        }
        _exit(0);
    }
    return 0;
}

static uint64_t process_pipe(uint64_t *sum)
{
    char c = 'x';
    for (int i = 0; i < PROCESS_PIPE_ROUNDS; i++) {
        if (write(process_there[1], &c, 1) != 1 || read(process_back[0], &c, 1) != 1) {
            bench_die("pipe");
        }
    }
    *sum = (uint64_t)c;
    return PROCESS_PIPE_ROUNDS;
}

static void process_pipe_stop(void)
{
    for (int i = 0; i < 2; i++) {
        close(process_there[i]);
        close(process_back[i]);
    }
    waitpid(process_peer, NULL, 0);
    sched_setaffinity(0, sizeof(process_before), &process_before);
}

static int process_yield_setup(void)
{
    process_one_cpu();
    process_peer = fork();
    if (process_peer < 0) {
        bench_die("fork");
    }
    while (process_peer == 0) {
        sched_yield();
    }
    return 0;
}

/* Two processes on one CPU that each give way to the other. */
static uint64_t process_yield(uint64_t *sum)
{
    for (int i = 0; i < 100; i++) {
        sched_yield();
    }
    *sum = 0;
    return 100;
}

static void process_yield_stop(void)
{
    kill(process_peer, SIGKILL);
    waitpid(process_peer, NULL, 0);
    sched_setaffinity(0, sizeof(process_before), &process_before);
}

static void *process_worker(void *sum)
{
    uint64_t x = bench_opaque(1);
    for (int i = 0; i < PROCESS_WORK * 10; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x *= 0x9e3779b97f4a7c15u;
    }
    *(uint64_t *)sum = x;
    return NULL;
}

static uint64_t process_parallel(uint64_t *sum)
{
    pthread_t threads[PROCESS_THREADS];
    uint64_t sums[PROCESS_THREADS];
    for (int i = 0; i < PROCESS_THREADS; i++) {
        if (pthread_create(&threads[i], NULL, process_worker, &sums[i]) != 0) {
            bench_die("pthread_create");
        }
    }
    for (int i = 0; i < PROCESS_THREADS; i++) {
        pthread_join(threads[i], NULL);
        *sum ^= sums[i] + (uint64_t)i;
    }
    return PROCESS_THREADS * PROCESS_WORK * 10;
}

const struct bench_program bench_process[] = {
    {.name = "fork",         .chunk = process_fork },
    { .name = "fork-exec",                     .chunk = process_exec },
    { .name = "pipe",
     .setup = process_pipe_setup,
     .chunk = process_pipe,
     .stop = process_pipe_stop },
    { .name = "yield",
     .setup = process_yield_setup,
     .chunk = process_yield,
     .stop = process_yield_stop },
    { .name = "parallel",  .chunk = process_parallel },
    { 0                    },
};

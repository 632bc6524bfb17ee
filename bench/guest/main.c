/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest benchmark: init of its initrd, or a process of the host. docs/performance.md.
 *
 *   bench                  says READY, then for each line "NAME MILLISECONDS" of standard input
 * runs the program about so long and prints DONE NAME OPERATIONS NANOSECONDS CPU-NANOSECONDS SUM or
 * "SKIP NAME"; ends (as init: resets the machine) with the input or "quit" bench NAME [MS] one
 * program bench list             their names bench exit             does nothing: what the program
 * `exec` executes
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static const struct bench_program *const main_tables[] = {
    bench_integer, bench_memory, bench_float, bench_rep, bench_fresh, bench_system, bench_process,
};

#define MAIN_TABLES (sizeof(main_tables) / sizeof(main_tables[0]))

_Noreturn void bench_die(const char *what)
{
    printf("FAILED %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

void *bench_memory_of(size_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        bench_die("mmap");
    }
    memset(p, 1, bytes);
    return p;
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* CPU time of this process and of its children that were waited for. */
static uint64_t cpu_ns(void)
{
    struct rusage r;
    getrusage(RUSAGE_CHILDREN, &r);
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID) +
           (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000u;
}

static void run(const struct bench_program *p, uint64_t ms)
{
    uint64_t ops = 0;
    uint64_t first = 0;
    uint64_t cpu = cpu_ns();
    uint64_t began = clock_ns(CLOCK_MONOTONIC);
    uint64_t now = began;
    for (int chunks = 0; chunks == 0 || now < began + ms * 1000000u; chunks++) {
        uint64_t sum = 0;
        ops += p->chunk(&sum);
        first = chunks == 0 ? sum : first;
        now = clock_ns(CLOCK_MONOTONIC);
    }
    if (p->stop) {
        p->stop();
    }
    cpu = cpu_ns() - cpu;
    printf("DONE %s %llu %llu %llu %llx\n", p->name, (unsigned long long)ops,
           (unsigned long long)(now - began), (unsigned long long)cpu, (unsigned long long)first);
}

static const struct bench_program *find(const char *name)
{
    for (size_t t = 0; t < MAIN_TABLES; t++) {
        for (const struct bench_program *p = main_tables[t]; p->name; p++) {
            if (strcmp(p->name, name) == 0) {
                return p;
            }
        }
    }
    return NULL;
}

/* wait: says SET and runs at the next line of input. */
static int run_named(const char *name, uint64_t ms, bool wait)
{
    const struct bench_program *p = find(name);
    char line[128];
    if (!p) {
        printf("FAILED %s: no such program\n", name);
        return 1;
    }
    if (p->setup && p->setup() < 0) {
        printf("SKIP %s\n", name);
        return 0;
    }
    if (wait) {
        printf("SET %s\n", name);
        if (!fgets(line, sizeof(line), stdin)) {
            return 1;
        }
    }
    run(p, ms);
    if (p->finish) {
        p->finish();
    }
    return 0;
}

static void list(void)
{
    for (size_t t = 0; t < MAIN_TABLES; t++) {
        for (const struct bench_program *p = main_tables[t]; p->name; p++) {
            puts(p->name);
        }
    }
}

/* As init: the console is the initrd's /dev/console; its echo would mix with the results. */
static void become_init(void)
{
    struct termios t;
    if (tcgetattr(0, &t) == 0) {
        t.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(0, TCSANOW, &t);
    }
    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
}

static void serve(void)
{
    char line[128];
    char name[64];
    unsigned ms;
    puts("READY");
    while (fgets(line, sizeof(line), stdin) && strncmp(line, "quit", 4) != 0) {
        if (sscanf(line, "%63s %u", name, &ms) == 2) {
            run_named(name, ms, true);
        }
    }
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "exit") == 0) {
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "list") == 0) {
        list();
        return 0;
    }
    if (getpid() != 1 && argc > 1) {
        return run_named(argv[1], argc > 2 ? strtoul(argv[2], NULL, 10) : 300, false);
    }
    if (getpid() == 1) {
        become_init();
    }
    serve();
    if (getpid() == 1) {
        fflush(stdout);
        reboot(RB_AUTOBOOT);
    }
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a program asks of the kernel within one process. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

enum {
    SYSTEM_PAGE = 4096,
    SYSTEM_PAGES = 128,
};

static uint64_t system_getpid(uint64_t *sum)
{
    for (int i = 0; i < 500; i++) {
        *sum |= (uint64_t)syscall(SYS_getppid) & 0;
    }
    return 500;
}

static char *system_area;

static int system_area_setup(void)
{
    system_area = bench_memory_of(SYSTEM_PAGES * SYSTEM_PAGE);
    return 0;
}

static void system_area_finish(void)
{
    munmap(system_area, SYSTEM_PAGES * SYSTEM_PAGE);
}

static uint64_t system_fault(uint64_t *sum)
{
    if (madvise(system_area, SYSTEM_PAGES * SYSTEM_PAGE, MADV_DONTNEED) < 0) {
        bench_die("madvise");
    }
    for (int i = 0; i < SYSTEM_PAGES; i++) {
        *sum += (uint64_t)system_area[i * SYSTEM_PAGE];
        system_area[i * SYSTEM_PAGE] = 1;
    }
    return SYSTEM_PAGES;
}

static uint64_t system_mmap(uint64_t *sum)
{
    for (int i = 0; i < 50; i++) {
        void *p = mmap(NULL, SYSTEM_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            bench_die("mmap");
        }
        munmap(p, SYSTEM_PAGE);
    }
    *sum = 0;
    return 50;
}

static int system_zero = -1;

static int system_read_setup(void)
{
    system_zero = open("/proc/self/stat", O_RDONLY);
    return system_zero < 0 ? -1 : 0;
}

static void system_read_finish(void)
{
    close(system_zero);
}

/* A file that the kernel writes as it is read. */
static uint64_t system_read(uint64_t *sum)
{
    char text[1024];
    for (int i = 0; i < 20; i++) {
        if (pread(system_zero, text, sizeof(text), 0) <= 0) {
            bench_die("pread");
        }
    }
    *sum = 0;
    return 20;
}

static volatile sig_atomic_t system_signals;

static void system_handler(int number)
{
    (void)number;
    system_signals++;
}

static int system_signal_setup(void)
{
    signal(SIGUSR1, system_handler);
    return 0;
}

static uint64_t system_signal(uint64_t *sum)
{
    system_signals = 0;
    for (int i = 0; i < 100; i++) {
        raise(SIGUSR1);
    }
    *sum = (uint64_t)system_signals;
    return 100;
}

const struct bench_program bench_system[] = {
    {.name = "getpid",             .chunk = system_getpid },
    { .name = "page-fault",
     .setup = system_area_setup,
     .chunk = system_fault,
     .finish = system_area_finish },
    { .name = "mmap",   .chunk = system_mmap },
    { .name = "read-proc",
     .setup = system_read_setup,
     .chunk = system_read,
     .finish = system_read_finish },
    { .name = "signal",              .setup = system_signal_setup, .chunk = system_signal },
    { 0                          },
};

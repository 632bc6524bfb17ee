/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PID 1 in the initrd. The kernel's command line says where the root is: root=/dev/vda3 or
 * root=UUID=..., "rw" for a writable one, init=PROGRAM.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/bits.h"

#define INIT_WAIT_MS  30000 /* for the root's device: some disks take seconds to show up */
#define INIT_STEP_MS  20
#define INIT_MAX_MODS 128

/* The ext4 superblock (Linux Documentation/filesystems/ext4/globals.rst, 6.1). */
#define INIT_EXT4_SUPER 1024
#define INIT_EXT4_MAGIC 0x38
#define INIT_EXT4_UUID  0x68

static void init_fail(const char *what)
{
    agent_say("%s: %s", what, strerror(errno));
    sleep(2); /* the console is drained by then */
    (void)reboot(RB_POWER_OFF);
    _exit(1);
}

static int init_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void init_load(const char *name)
{
    char path[320];
    (void)snprintf(path, sizeof(path), "/modules/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* MODULE_INIT_COMPRESSED_FILE (Linux 5.17): the name tells. */
    int flags = strstr(name, ".ko.") != NULL ? 4 : 0;
    long rc = fd >= 0 ? syscall(SYS_finit_module, fd, "", flags) : -1;
    /* A driver for hardware that is not here, or that something loaded before. */
    if (rc < 0 && errno != EEXIST && errno != ENODEV) {
        agent_say("module %s: %s", name, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    (void)unlink(path); /* its memory */
}

static void init_modules(void)
{
    char *names[INIT_MAX_MODS];
    size_t n = 0;
    DIR *dir = opendir("/modules");
    struct dirent *e;
    while (dir != NULL && n < INIT_MAX_MODS && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] != '.') {
            names[n++] = strdup(e->d_name);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    qsort(names, n, sizeof(names[0]), init_compare);
    for (size_t i = 0; i < n; i++) {
        init_load(names[i]);
        free(names[i]);
    }
}

/* True when the device has an ext4 file system with that UUID. */
static bool init_has_uuid(const char *device, const char *uuid)
{
    uint8_t sb[1024];
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? pread(fd, sb, sizeof(sb), INIT_EXT4_SUPER) : -1;
    if (fd >= 0) {
        close(fd);
    }
    if (n != sizeof(sb) || le16_get(sb + INIT_EXT4_MAGIC) != 0xef53) {
        return false;
    }
    char text[40];
    size_t at = 0;
    for (unsigned i = 0; i < 16; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                               sb[INIT_EXT4_UUID + i]);
    }
    return strcasecmp(text, uuid) == 0;
}

static bool init_find_uuid(const char *uuid, char *device, size_t len)
{
    DIR *dir = opendir("/sys/class/block");
    struct dirent *e;
    bool found = false;
    while (dir != NULL && !found && (e = readdir(dir)) != NULL) {
        (void)snprintf(device, len, "/dev/%s", e->d_name);
        found = e->d_name[0] != '.' && init_has_uuid(device, uuid);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return found;
}

static void init_find_root(const char *root, char *device, size_t len)
{
    for (int ms = 0; ms < INIT_WAIT_MS; ms += INIT_STEP_MS) {
        if (strncmp(root, "UUID=", 5) == 0) {
            if (init_find_uuid(root + 5, device, len)) {
                return;
            }
        } else if (access(root, F_OK) == 0) {
            (void)snprintf(device, len, "%s", root);
            return;
        }
        (void)nanosleep(&(struct timespec){ .tv_nsec = INIT_STEP_MS * 1000000L }, NULL);
    }
    errno = ENXIO;
    init_fail(root);
}

static void init_mount(const char *what, const char *where, const char *type, unsigned long flags)
{
    (void)mkdir(where, 0755);
    if (mount(what, where, type, flags, NULL) < 0 && errno != EBUSY) {
        init_fail(where);
    }
}

/* The new root becomes "/"; what the old one has left is a few kilobytes. */
static void init_switch(void)
{
    static const char *const moved[] = { "/dev", "/proc", "/sys" };
    char to[32];
    (void)unlink("/init");
    for (size_t i = 0; i < ARRAY_LEN(moved); i++) {
        (void)snprintf(to, sizeof(to), "/newroot%s", moved[i]);
        if (mount(moved[i], to, NULL, MS_MOVE, NULL) < 0) {
            init_fail(to);
        }
    }
    if (chdir("/newroot") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0) {
        init_fail("/newroot");
    }
}

/* What an init would mount. */
static void init_as_pid1(void)
{
    init_mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV);
    init_mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV);
    init_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC);
    init_mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV);
    init_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC);
    char host[65] = "";
    int fd = open("/etc/hostname", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, host, sizeof(host) - 1) : 0;
    if (n > 0 && sethostname(host, strcspn(host, "\n")) < 0) {
        fprintf(stderr, "posada-agent: host name '%s': %s\n", host, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

void agent_init(void)
{
    char root[256];
    char device[300];
    char program[256];
    char text[16];
    init_mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID);
    int fd = open("/dev/console", O_RDWR);
    for (int i = 0; fd >= 0 && i < 3; i++) {
        (void)dup2(fd, i);
    }
    if (fd > 2) {
        close(fd);
    }
    init_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
    init_mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC);
    init_modules();
    if (!agent_cmdline("root", root, sizeof(root))) {
        errno = EINVAL;
        init_fail("root= is missing on the kernel's command line");
    }
    init_find_root(root, device, sizeof(device));
    bool stay = agent_cmdline("posada.run", text, sizeof(text));
    bool writable = stay || agent_cmdline("rw", text, sizeof(text));
    init_mount(device, "/newroot", "ext4", writable ? 0 : MS_RDONLY);
    init_switch();
    if (stay) {
        init_as_pid1();
        return;
    }
    if (!agent_cmdline("init", program, sizeof(program))) {
        (void)snprintf(program, sizeof(program), "/sbin/init");
    }
    (void)execl(program, program, (char *)NULL);
    init_fail(program);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open file description locks (fcntl(2), F_OFD_SETLK), laid out so that QEMU's tools and we see
 * each other: they use shared locks on single bytes, 100 + n for "I use right n" and 200 + n for
 * "nobody else may use right n" (rights: 0 consistent read, 1 write, 3 resize), and test the other
 * group.
 *
 *   writer   a write lock on the whole file: conflicts with every lock of anybody
 *   reader   read locks on 100 (reads), 201 and 203 (nobody may write or resize), then a look at
 *            101 and 103: a QEMU writer holds read locks there, which the first step cannot meet
 */
#include "block/prot_lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BYTE_USES_READ     100
#define BYTE_USES_WRITE    101
#define BYTE_USES_RESIZE   103
#define BYTE_DENIES_WRITE  201
#define BYTE_DENIES_RESIZE 203

static int set_lock(int fd, short type, off_t start, off_t len)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
    while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        if (errno != EINTR) {
            return errno == EACCES ? -EAGAIN : -errno;
        }
    }
    return 0;
}

/* -EAGAIN when somebody holds a lock on the byte. */
static int test_byte(int fd, off_t byte)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) {
        return -errno;
    }
    return lock.l_type == F_UNLCK ? 0 : -EAGAIN;
}

static int try_lock(int fd, bool exclusive)
{
    if (exclusive) {
        return set_lock(fd, F_WRLCK, 0, 0);
    }
    static const off_t held[] = { BYTE_USES_READ, BYTE_DENIES_WRITE, BYTE_DENIES_RESIZE };
    for (size_t i = 0; i < ARRAY_LEN(held); i++) {
        int rc = set_lock(fd, F_RDLCK, held[i], 1);
        if (rc < 0) {
            return rc;
        }
    }
    int rc = test_byte(fd, BYTE_USES_WRITE);
    return rc < 0 ? rc : test_byte(fd, BYTE_USES_RESIZE);
}

/* Does descriptor `fd` of process `pid` hold a lock? The kernel lists them in fdinfo (proc(5)). */
static bool holds_lock(const char *pid, const char *fd)
{
    char path[64];
    char line[256];
    bool found = false;
    (void)snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, fd);
    FILE *f = fopen(path, "re");
    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL) {
        found = strncmp(line, "lock:", 5) == 0;
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return found;
}

/* Looks through the descriptors of one process for a locked one of the file `st`. */
static bool process_holds(const char *pid, const struct stat *st, int own_fd)
{
    char path[64];
    bool own = atoi(pid) == getpid();
    bool found = false;
    (void)snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    DIR *dir = opendir(path);
    struct dirent *ent;
    while (dir != NULL && !found && (ent = readdir(dir)) != NULL) {
        struct stat there;
        if (ent->d_name[0] == '.' || (own && atoi(ent->d_name) == own_fd)) {
            continue;
        }
        if (fstatat(dirfd(dir), ent->d_name, &there, 0) == 0 && there.st_dev == st->st_dev &&
            there.st_ino == st->st_ino) {
            found = holds_lock(pid, ent->d_name);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return found;
}

/* The holder of a lock on the file; 0 if it cannot be found. /proc/locks gives no process for open
 * file description locks (it prints -1), so the descriptors themselves are searched. */
static int find_holder(int fd)
{
    struct stat st;
    int holder = 0;
    DIR *proc = fstat(fd, &st) == 0 ? opendir("/proc") : NULL;
    struct dirent *ent;
    while (proc != NULL && holder == 0 && (ent = readdir(proc)) != NULL) {
        if (ent->d_name[0] >= '1' && ent->d_name[0] <= '9' && process_holds(ent->d_name, &st, fd)) {
            holder = atoi(ent->d_name);
        }
    }
    if (proc != NULL) {
        (void)closedir(proc);
    }
    return holder;
}

static void process_name(int pid, char *buf, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    FILE *f = fopen(path, "re");
    buf[0] = '\0';
    if (f != NULL) {
        if (fgets(buf, (int)size, f) == NULL) {
            buf[0] = '\0';
        }
        (void)fclose(f);
    }
    buf[strcspn(buf, "\n")] = '\0';
}

int prot_lock_take(int fd, bool exclusive, struct err *err)
{
    int rc = try_lock(fd, exclusive);
    if (rc == 0) {
        return 0;
    }
    if (rc != -EAGAIN) {
        return err_set_errno(err, rc, "cannot lock the file");
    }
    const char *what = exclusive ? "is in use" : "is in use by a writer";
    int pid = find_holder(fd);
    if (pid == 0) {
        return err_set(err, -EBUSY, "%s by another process; close it there first",
                       exclusive ? "is in use" : "is open for writing");
    }
    if (pid == getpid()) {
        return err_set(err, -EBUSY, "%s: it is already open in this process", what);
    }
    char name[32];
    process_name(pid, name, sizeof(name));
    return err_set(err, -EBUSY, "%s: process %d (%s) has it open", what, pid, name);
}

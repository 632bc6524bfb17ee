/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The initrd of a kernel that was installed inside the image: the same as the builder makes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "image/initrd.h"

static int initrd_load(void *opaque, const char *path, char **ret_data, size_t *ret_len,
                       struct err *err)
{
    char absolute[512];
    struct stat st;
    (void)opaque;
    (void)snprintf(absolute, sizeof(absolute), "%s%s", path[0] == '/' ? "" : "/", path);
    CLEANUP_FD int fd = open(absolute, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return err_set_errno(err, -errno, "%s", absolute);
    }
    CLEANUP_FREE char *data = malloc((size_t)st.st_size + 1);
    if (data == NULL || read(fd, data, (size_t)st.st_size) != st.st_size) {
        return err_set(err, -EIO, "cannot read '%s'", absolute);
    }
    data[st.st_size] = '\0';
    *ret_len = (size_t)st.st_size;
    *ret_data = take_ptr(&data);
    return 0;
}

static int initrd_save(const char *version, const void *data, size_t len, struct err *err)
{
    char path[300];
    char tmp[310];
    (void)snprintf(path, sizeof(path), "/boot/initrd.img-%s", version);
    (void)snprintf(tmp, sizeof(tmp), "%s.new", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write(fd, data, len) == (ssize_t)len && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ok && rename(tmp, path) == 0 ? 0 : err_set_errno(err, -errno, "cannot write '%s'", path);
}

int agent_initrd(const char *version)
{
    struct err err = ERR_INIT;
    CLEANUP_FREE char *program = NULL;
    CLEANUP_FREE void *data = NULL;
    size_t program_len = 0;
    size_t len = 0;
    int rc = initrd_load(NULL, "/proc/self/exe", &program, &program_len, &err);
    struct initrd_params p = {
        .version = version, .init = program, .init_len = program_len, .read = initrd_load
    };
    rc = rc < 0 ? rc : initrd_make(&p, &data, &len, &err);
    rc = rc < 0 ? rc : initrd_save(version, data, len, &err);
    if (rc < 0) {
        agent_say("%s", err.msg);
    }
    return rc < 0 ? 1 : 0;
}

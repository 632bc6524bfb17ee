/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/store_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/blk.h"
#include "image/store_int.h"

static int store_vm_disk(struct store *s, const char *folder, const char *id, struct store_vm *vm,
                         struct err *err)
{
    (void)snprintf(vm->disk, sizeof(vm->disk), "%s/disk.qcow2", folder);
    store_path(s, vm->backing, "images/%s/disk.raw", id);
    if (access(vm->disk, F_OK) == 0) {
        return 0;
    }
    struct blk_create_opts o = {
        .path = vm->disk, .format = "qcow2", .backing = vm->backing, .backing_format = "raw"
    };
    return blk_create(&o, err);
}

int store_vm_throwaway(struct store *s, struct store_tmp *tmp, const char *id,
                       struct store_vm *ret_vm, struct err *err)
{
    ret_vm->fd = -1;
    int rc = store_tmp_hold(s, tmp, id, err);
    return rc < 0 ? rc : store_vm_disk(s, tmp->path, id, ret_vm, err);
}

static int store_vm_name(const char *name, struct err *err)
{
    char part[STORE_NAME_MAX + 1];
    char tag[STORE_NAME_MAX + 1];
    struct err ignored = ERR_INIT;
    return store_parse_ref(name, part, tag, &ignored) < 0 || tag[0] != '\0'
               ? err_set(err, -EINVAL,
                         "'%s' is not a VM's name: letters, digits, '.', '_' and '-' only", name)
               : 0;
}

int store_vm_image(struct store *s, const char *name, char id[DIGEST_HEX + 1], struct err *err)
{
    char path[STORE_PATH_MAX];
    CLEANUP_FREE char *text = NULL;
    int rc = store_vm_name(name, err);
    rc = rc < 0 ? rc : store_read_text(store_path(s, path, "vms/%s/image", name), &text, err);
    if (rc == 0 && !digest_is_hex(text)) {
        rc = err_set(err, -EINVAL, "'%s' is damaged", path);
    }
    if (rc == 0) {
        (void)snprintf(id, DIGEST_HEX + 1, "%s", text);
    }
    return rc;
}

/* The folder's lock, without waiting. */
static int store_vm_lock(const char *path, const char *name, struct err *err)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? err_set(err, -ENOENT, "there is no VM '%s'", name)
                               : err_set_errno(err, -errno, "VM '%s'", name);
    }
    return flock(fd, LOCK_EX | LOCK_NB) < 0 ? err_set(err, -EBUSY, "the VM '%s' is running", name)
                                            : take_fd(&fd);
}

int store_vm_open(struct store *s, const char *name, const char *id, struct store_vm *ret_vm,
                  struct err *err)
{
    char path[STORE_PATH_MAX];
    char file[STORE_PATH_MAX + 16];
    ret_vm->fd = -1;
    int rc = store_vm_name(name, err);
    CLEANUP_FD int lock = rc < 0 ? -1 : store_lock(s, err);
    if (rc < 0 || lock < 0) {
        return rc < 0 ? rc : lock;
    }
    if (mkdir(store_path(s, path, "vms/%s", name), 0700) < 0 && errno != EEXIST) {
        return err_set_errno(err, -errno, "cannot make the folder '%s'", path);
    }
    int fd = store_vm_lock(path, name, err);
    if (fd < 0) {
        return fd;
    }
    (void)snprintf(file, sizeof(file), "%s/image", path);
    rc = access(file, F_OK) == 0 ? 0 : store_write_text(file, id, err);
    rc = rc < 0 ? rc : store_vm_disk(s, path, id, ret_vm, err);
    if (rc < 0) {
        close(fd);
    } else {
        ret_vm->fd = fd;
    }
    return rc;
}

void store_vm_close(struct store_vm *vm)
{
    if (vm->fd >= 0) {
        close(vm->fd);
        vm->fd = -1;
    }
}

int store_vm_list(struct store *s,
                  int (*fn)(void *opaque, const struct store_vm_info *vm, struct err *err),
                  void *opaque, struct err *err)
{
    char path[STORE_PATH_MAX];
    /* Held while locks are tried, so that no start meets one of ours. */
    CLEANUP_FD int lock = store_lock(s, err);
    if (lock < 0) {
        return lock;
    }
    char **names = store_names(store_path(s, path, "vms"));
    int rc = 0;
    for (char **n = names; *n != NULL && rc == 0; n++) {
        struct store_vm_info vm = { .name = *n };
        struct err none = ERR_INIT;
        struct stat st;
        if (store_vm_image(s, *n, vm.id, &none) < 0) {
            vm.id[0] = '\0';
        }
        int fd = store_vm_lock(store_path(s, path, "vms/%s", *n), *n, &none);
        vm.running = fd == -EBUSY;
        if (fd >= 0) {
            close(fd);
        }
        if (stat(store_path(s, path, "vms/%s/disk.qcow2", *n), &st) == 0) {
            vm.used = (uint64_t)st.st_blocks * 512;
        }
        rc = fn(opaque, &vm, err);
    }
    store_names_free(names);
    return rc;
}

int store_vm_rm(struct store *s, const char *name, struct err *err)
{
    char path[STORE_PATH_MAX];
    char gone[STORE_PATH_MAX];
    int rc = store_vm_name(name, err);
    CLEANUP_FD int lock = rc < 0 ? -1 : store_lock(s, err);
    if (rc < 0 || lock < 0) {
        return rc < 0 ? rc : lock;
    }
    CLEANUP_FD int fd = store_vm_lock(store_path(s, path, "vms/%s", name), name, err);
    if (fd < 0) {
        return fd;
    }
    if (rename(path, store_path(s, gone, "tmp/vm-%s", name)) < 0) {
        return err_set_errno(err, -errno, "cannot remove '%s'", path);
    }
    store_remove_tree(gone);
    return 0;
}

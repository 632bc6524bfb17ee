/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks of VMs: a qcow2 over an image's disk, which stays as it is.
 *
 * A persistent VM is STORE/vms/NAME/: `image` (the ID), disk.qcow2; flock on the folder while it
 * runs.
 */
#ifndef IMAGE_STORE_VM_H
#define IMAGE_STORE_VM_H

#include "image/store.h"

struct store_vm {
    char disk[STORE_PATH_MAX + 32]; /* qcow2 */
    char backing[STORE_PATH_MAX];   /* the image's disk, raw */
    int fd;                         /* the lock; -1: the disk is in a folder of tmp/ */
};

/* Makes the disk of a VM that is thrown away, in `tmp`, which is then held for the image. */
MUST_USE int store_vm_throwaway(struct store *s, struct store_tmp *tmp, const char *id,
                                struct store_vm *ret_vm, struct err *err);
/* The ID that a persistent VM stands on, into `id`. -ENOENT: no such VM. */
MUST_USE int store_vm_image(struct store *s, const char *name, char id[DIGEST_HEX + 1],
                            struct err *err);
/* Opens a persistent VM, and makes it of the image `id` where there is none. -EBUSY: it runs. */
MUST_USE int store_vm_open(struct store *s, const char *name, const char *id,
                           struct store_vm *ret_vm, struct err *err);
void store_vm_close(struct store_vm *vm);
/* A persistent VM, for store_vm_list(). */
struct store_vm_info {
    const char *name;
    char id[DIGEST_HEX + 1]; /* of its image; "" where that cannot be read */
    uint64_t used;           /* bytes that its disk takes */
    bool running;
};

/* Calls fn for each persistent VM, sorted by name, until it fails. */
MUST_USE int store_vm_list(struct store *s,
                           int (*fn)(void *opaque, const struct store_vm_info *vm, struct err *err),
                           void *opaque, struct err *err);
/* Removes a persistent VM and its disk. -EBUSY, -ENOENT. */
MUST_USE int store_vm_rm(struct store *s, const char *name, struct err *err);

#endif

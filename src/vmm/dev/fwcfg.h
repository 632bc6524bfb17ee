/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The firmware configuration device (QEMU docs/specs/fw_cfg.rst, version 7.2): named items for
 * firmware and guest drivers at ports 0x510 (selector), 0x511 (data) and 0x514 (DMA). No
 * parameters. Its init sets env->fwcfg.
 *
 * Items are added before the guest runs; their content is copied.
 */
#ifndef DEV_FWCFG_H
#define DEV_FWCFG_H

#include "vmm/dev/dev.h"

#define FWCFG_KEY_UUID     0x02
#define FWCFG_KEY_RAM_SIZE 0x03 /* u64 */
#define FWCFG_KEY_NB_CPUS  0x05 /* u16 */
#define FWCFG_KEY_MAX_CPUS 0x0f /* u16 */
#define FWCFG_MAX_FILES    64
#define FWCFG_NAME_MAX     55
#define FWCFG_ITEM_MAX     (UINT64_C(64) * MIB)

extern const struct dev_class fwcfg_class;

/* Adds an item under a fixed key. 0, -EINVAL (key in use or out of range), -ENOMEM. */
MUST_USE int fwcfg_add_key(struct fwcfg *fw, uint16_t key, const void *data, size_t len,
                           struct err *err);
/* Adds a file ("etc/acpi/rsdp"). 0, -EEXIST, -ENOSPC (FWCFG_MAX_FILES), -EINVAL (name or size),
 * -ENOMEM. */
MUST_USE int fwcfg_add_file(struct fwcfg *fw, const char *name, const void *data, size_t len,
                            struct err *err);
/* The same for a file that the guest may write by DMA; `written` gets its whole content after each
 * write, under the device's lock. */
typedef void fwcfg_written_fn(void *opaque, const void *data, size_t len);
MUST_USE int fwcfg_add_writable(struct fwcfg *fw, const char *name, const void *data, size_t len,
                                fwcfg_written_fn *written, void *opaque, struct err *err);

#endif

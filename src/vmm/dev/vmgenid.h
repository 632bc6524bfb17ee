/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtual machine generation ID ("Virtual Machine Generation ID", Microsoft, 2012): 128 random bits
 * in guest memory that change when the VM is a copy of a past one, so that its random generator
 * does not repeat itself. Linux and Windows have drivers.
 */
#ifndef DEV_VMGENID_H
#define DEV_VMGENID_H

#include "vmm/dev/dev.h"

/* struct dev_class.init params */
struct vmgenid_params {
    struct dev *pm; /* raises the event; outlives this device */
};

extern const struct dev_class vmgenid_class;

/* A new generation: call after a snapshot or a clone was loaded, before its vCPUs run. Any thread.
 */
void vmgenid_renew(struct dev *vmgenid);

#endif

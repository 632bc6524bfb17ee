/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Debug console: one write-only port whose bytes go to a character back end (firmware's log). A
 * read gives 0xe9, which tells the guest that it is there.
 */
#ifndef DEV_DEBUGCON_H
#define DEV_DEBUGCON_H

#include "vmm/chr/chr.h"
#include "vmm/dev/dev.h"

/* struct dev_class.init params */
struct debugcon_params {
    struct chr *chr; /* not owned; NULL: output is dropped. What it does not take at once is lost */
};

extern const struct dev_class debugcon_class;

#endif

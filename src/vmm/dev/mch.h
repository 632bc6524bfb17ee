/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host bridge of a Q35 board, 8086:29c0 at 00:00.0; see mch.c. Takes no parameters. */
#ifndef DEV_MCH_H
#define DEV_MCH_H

#include "vmm/dev/dev.h"

extern const struct dev_class mch_class;

#endif

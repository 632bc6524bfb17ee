/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/chr/chr_int.h"

/* Never becomes open: chr_write() takes and drops everything. */
static int chr_null_open(struct chr *chr, const char *arg, struct err *err)
{
    (void)chr;
    (void)arg;
    (void)err;
    return 0;
}

const struct chr_class chr_null_class = {
    .name = "null",
    .help = "no input, output is dropped",
    .open = chr_null_open,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada run IMAGE [-- COMMAND]: a VM of an image of the store, built first where there is none.
 *
 * The VM's disk is a qcow2 over the image's disk, in the store's tmp/ for a VM that is thrown away,
 * in vms/NAME/ for one that is kept. This process stays beside posada-vmm, to clean up, to carry
 * the command's input and output, to connect by ssh.
 */
#ifndef CLI_RUN_IMAGE_H
#define CLI_RUN_IMAGE_H

#include "cli/run_words.h"

/* Exit code of `posada run IMAGE -- COMMAND` when it was not the command that ended. */
#define RUN_IMAGE_FAILED 125

/* The command line, as run_words_split() has sorted it. */
int run_image_main(struct run_words *w);

#endif

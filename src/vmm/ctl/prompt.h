/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control prompt on the terminal of a stdio console (docs/console.md): Ctrl-A c mutes the
 * guest's console and shows "(posada) "; lines typed there are the verbs of `posada ctl`.
 *
 * Two threads: lines are read and replies printed on the loop of the chr, requests are answered on
 * the loop of the handler. One request is under way at a time, what is typed meanwhile waits in
 * the chr. Neither thread ever waits for the other.
 */
#ifndef CTL_PROMPT_H
#define CTL_PROMPT_H

#include "vmm/chr/chr.h"
#include "vmm/ctl/ctl.h"

struct prompt;

/* A prompt on `chr` (stdio), closed at first. `chr_loop` is the chr's; `handler` runs on
 * `ctl_loop`. All must outlive it. -ENOMEM. */
MUST_USE int prompt_new(struct chr *chr, struct loop *chr_loop, struct loop *ctl_loop,
                        ctl_handler *handler, void *opaque, struct prompt **ret_prompt,
                        struct err *err);
/* While no thread runs one of the loops, and none will again. Accepts NULL. */
void prompt_free(struct prompt *p);

/* Ctrl-A c: to the prompt or back to the guest. Loop thread of the chr. */
void prompt_toggle(struct prompt *p);

#endif

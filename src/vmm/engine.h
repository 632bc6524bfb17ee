/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which engine runs a VM, and why.
 *
 * `auto` takes the first of engines.def that opens, speaks KVM API 12, has what a VM needs and, for
 * an engine that runs guest code natively, a processor that can do so (vmx or svm in CPUID). A KVM
 * on a processor without them (the PVM kind) interprets ordinary kernels in the host kernel and
 * stops at the first instruction it lacks: only `--engine kvm` takes it.
 */
#ifndef VMM_ENGINE_H
#define VMM_ENGINE_H

#include "base/bits.h"
#include "base/err.h"
#include "vmm/hv.h"
#include "vmm/vmconfig.h"

#define ENGINE_MAX        4
#define ENGINE_REASON_MAX 384

struct engine_row {
    const char *name;
    enum vmconfig_engine id;
    const struct hv *hv;
    bool native;
    const char *help;
};

/* What the choice looks at; tests put their own. */
struct engine_host {
    const struct engine_row *rows;
    size_t nrows;
    /* eax to edx of a CPUID leaf of the host, subleaf 0; false = no such leaf. */
    bool (*cpuid)(uint32_t leaf, uint32_t ret_regs[4]);
};

extern const struct engine_host engine_this_host;

/* A verdict on one engine. */
struct engine_finding {
    const char *engine;
    const char *help;
    bool usable;    /* opens and has all that a VM needs: `--engine NAME` would run */
    bool automatic; /* and `auto` would take it */
    char reason[ENGINE_REASON_MAX]; /* one sentence, always there */
    char remedy[ENGINE_REASON_MAX]; /* what to do about it; "" when there is nothing */
};

struct engine_choice {
    const struct hv *hv;
    int sys_fd; /* owned by whoever has the struct */
    struct engine_finding finding;
};

/* Opens the engine for a VM. 0; -ENODEV and a text with each engine's reason when none will do;
 * the errno of the engine that was asked for by name. */
MUST_USE int engine_choose(const struct engine_host *host, enum vmconfig_engine want,
                           struct engine_choice *ret_choice, struct err *err);

/* Judges all engines; opens each for a moment. Returns their number. */
size_t engine_survey(const struct engine_host *host, struct engine_finding ret[ENGINE_MAX]);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/engine.h"

#include <cpuid.h>
#include <errno.h>
#include <libintl.h>
#include <linux/kvm.h>
#include <stdio.h>

#define ENGINE_API_VERSION 12 /* KVM_API_VERSION since Linux 2.6.22 */

#define CPUID_1_ECX_VMX        BIT(5)
#define CPUID_80000001_ECX_SVM BIT(2)

/* What machine.c cannot do without. */
static const struct {
    int cap;
    const char *name;
} engine_needs[] = {
    {KVM_CAP_USER_MEMORY,            "KVM_CAP_USER_MEMORY"          },
    { KVM_CAP_SET_TSS_ADDR,          "KVM_CAP_SET_TSS_ADDR"         },
    { KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    { KVM_CAP_EXT_CPUID,             "KVM_CAP_EXT_CPUID"            },
    { KVM_CAP_MP_STATE,              "KVM_CAP_MP_STATE"             },
    { KVM_CAP_IRQCHIP,               "KVM_CAP_IRQCHIP"              },
    { KVM_CAP_IRQ_ROUTING,           "KVM_CAP_IRQ_ROUTING"          },
    { KVM_CAP_PIT2,                  "KVM_CAP_PIT2"                 },
    { KVM_CAP_PIT_STATE2,            "KVM_CAP_PIT_STATE2"           },
    { KVM_CAP_VCPU_EVENTS,           "KVM_CAP_VCPU_EVENTS"          },
    { KVM_CAP_IMMEDIATE_EXIT,        "KVM_CAP_IMMEDIATE_EXIT"       },
    { KVM_CAP_SIGNAL_MSI,            "KVM_CAP_SIGNAL_MSI"           },
};

static const struct engine_row engine_rows[] = {
#define ENGINE(name, id, hv, native, help) { name, id, hv, native, help },
#include "vmm/engines.def"
#undef ENGINE
};

static bool engine_host_cpuid(uint32_t leaf, uint32_t ret_regs[4])
{
    return __get_cpuid(leaf, &ret_regs[0], &ret_regs[1], &ret_regs[2], &ret_regs[3]) != 0;
}

const struct engine_host engine_this_host = {
    .rows = engine_rows,
    .nrows = ARRAY_LEN(engine_rows),
    .cpuid = engine_host_cpuid,
};

static const char *engine_native_feature(const struct engine_host *host)
{
    uint32_t r[4];
    if (host->cpuid(0x1, r) && (r[2] & CPUID_1_ECX_VMX) != 0) {
        return "vmx";
    }
    if (host->cpuid(0x80000001, r) && (r[2] & CPUID_80000001_ECX_SVM) != 0) {
        return "svm";
    }
    return NULL;
}

/* API version and capabilities of an open engine. */
static int engine_check(const struct engine_row *row, int fd, struct engine_finding *f)
{
    int version = hv_ioctl_int(row->hv, fd, KVM_GET_API_VERSION, 0);
    if (version != ENGINE_API_VERSION) {
        (void)snprintf(f->reason, sizeof(f->reason),
                       gettext("it speaks KVM API version %d, not %d"), version,
                       ENGINE_API_VERSION);
        return -EPROTO;
    }
    for (size_t i = 0; i < ARRAY_LEN(engine_needs); i++) {
        if (hv_ioctl_int(row->hv, fd, KVM_CHECK_EXTENSION, (uintptr_t)engine_needs[i].cap) <= 0) {
            (void)snprintf(f->reason, sizeof(f->reason), gettext("it lacks %s"),
                           engine_needs[i].name);
            (void)snprintf(f->remedy, sizeof(f->remedy),
                           gettext("use a newer host kernel (4.12 or later)"));
            return -EOPNOTSUPP;
        }
    }
    return 0;
}

/* Judges one engine. The open descriptor where it is usable, else a negative errno. */
static int engine_judge(const struct engine_host *host, const struct engine_row *row,
                        struct engine_finding *f)
{
    *f = (struct engine_finding){ .engine = row->name, .help = row->help };
    if (row->hv == NULL) {
        (void)snprintf(f->reason, sizeof(f->reason), gettext("it is not part of this build"));
        return -ENOSYS;
    }
    struct err err = ERR_INIT;
    int fd = -1;
    int rc = row->hv->open(&fd, &err);
    if (rc < 0) {
        /* "what: remedy" is how the engines write it. */
        const char *colon = strstr(err.msg, ": ");
        int what = colon != NULL ? (int)(colon - err.msg) : (int)strlen(err.msg);
        (void)snprintf(f->reason, sizeof(f->reason), "%.*s", MIN(what, ENGINE_REASON_MAX - 1),
                       err.msg);
        if (colon != NULL) {
            (void)snprintf(f->remedy, sizeof(f->remedy), "%.*s", ENGINE_REASON_MAX - 1, colon + 2);
        }
        return rc;
    }
    rc = engine_check(row, fd, f);
    if (rc < 0) {
        row->hv->close(fd);
        return rc;
    }
    f->usable = true;
    if (!row->native) {
        f->automatic = true;
        (void)snprintf(f->reason, sizeof(f->reason), gettext("it works on every processor"));
        return fd;
    }
    const char *feature = engine_native_feature(host);
    f->automatic = feature != NULL;
    if (feature != NULL) {
        (void)snprintf(f->reason, sizeof(f->reason),
                       gettext("KVM API %d, and the processor runs guests natively (%s)"),
                       ENGINE_API_VERSION, feature);
    } else {
        (void)snprintf(
            f->reason, sizeof(f->reason),
            gettext("KVM answers, but the processor has neither vmx nor svm: this KVM (the PVM "
                    "kind) interprets ordinary guests and stops at instructions it lacks"));
        (void)snprintf(
            f->remedy, sizeof(f->remedy),
            gettext("give --engine kvm to use it all the same, or use a host with VT-x or AMD-V "
                    "(for a host that is a VM itself: nested virtualisation)"));
    }
    return fd;
}

static int engine_choose_named(const struct engine_host *host, const struct engine_row *row,
                               struct engine_choice *ret_choice, struct err *err)
{
    struct engine_finding f;
    int fd = engine_judge(host, row, &f);
    if (fd < 0) {
        return err_set(err, fd, "engine '%s' cannot be used: %s%s%s", row->name, f.reason,
                       f.remedy[0] != '\0' ? ": " : "", f.remedy);
    }
    *ret_choice = (struct engine_choice){ .hv = row->hv, .sys_fd = fd, .finding = f };
    return 0;
}

int engine_choose(const struct engine_host *host, enum vmconfig_engine want,
                  struct engine_choice *ret_choice, struct err *err)
{
    char why[ERR_MSG_MAX] = "";
    for (size_t i = 0; i < host->nrows; i++) {
        const struct engine_row *row = &host->rows[i];
        if (want != VMCONFIG_ENGINE_AUTO) {
            if (row->id == want) {
                return engine_choose_named(host, row, ret_choice, err);
            }
            continue;
        }
        struct engine_finding f;
        int fd = engine_judge(host, row, &f);
        if (fd >= 0 && f.automatic) {
            *ret_choice = (struct engine_choice){ .hv = row->hv, .sys_fd = fd, .finding = f };
            return 0;
        }
        if (fd >= 0) {
            row->hv->close(fd);
        }
        size_t used = strlen(why);
        (void)snprintf(why + used, sizeof(why) - used, "%s%s: %s%s%s", used > 0 ? "; " : "",
                       row->name, f.reason, f.remedy[0] != '\0' ? ": " : "", f.remedy);
    }
    if (want != VMCONFIG_ENGINE_AUTO) {
        return err_set(err, -EINVAL, "engine %d is unknown", (int)want);
    }
    return err_set(err, -ENODEV, "no engine can run a VM here: %s", why);
}

size_t engine_survey(const struct engine_host *host, struct engine_finding ret[ENGINE_MAX])
{
    size_t n = MIN(host->nrows, (size_t)ENGINE_MAX);
    for (size_t i = 0; i < n; i++) {
        int fd = engine_judge(host, &host->rows[i], &ret[i]);
        if (fd >= 0) {
            host->rows[i].hv->close(fd);
        }
    }
    return n;
}

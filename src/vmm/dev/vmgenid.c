/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ID lies at GUID_OFFSET of a page that the placer of the ACPI tables provides (aml_area): the
 * device learns its address through placed(). The offset keeps firmware from taking the page for
 * an ACPI table (QEMU docs/specs/vmgenid.txt, 7.2).
 */
#include "vmm/dev/vmgenid.h"

#include "vmm/acpi/aml.h"
#include "vmm/dev/pm.h"

#define GUID_LEN    16
#define GUID_OFFSET 40
#define GENID_PAGE  4096
#define NOT_PLACED  UINT64_MAX

struct vmgenid {
    struct dev *dev;
    struct dev *pm;
    uint8_t page[GENID_PAGE];
    struct aml_area area;
    uint64_t gpa; /* of the page */
};

static void vmgenid_placed(void *opaque, uint64_t gpa)
{
    struct vmgenid *s = opaque;
    dev_lock(s->dev);
    s->gpa = gpa;
    dev_unlock(s->dev);
}

void vmgenid_renew(struct dev *vmgenid)
{
    struct vmgenid *s = vmgenid->state;
    dev_lock(vmgenid);
    vmgenid->env->ops->random(vmgenid->env, s->page + GUID_OFFSET, GUID_LEN);
    bool written = s->gpa != NOT_PLACED && gmem_write(vmgenid->env->mem, GPA(s->gpa + GUID_OFFSET),
                                                      s->page + GUID_OFFSET, GUID_LEN) == 0;
    dev_unlock(vmgenid);
    if (written) {
        pm_gpe_raise(s->pm, PM_GPE_VMGENID);
    }
}

static int vmgenid_init(struct dev *dev, const void *params, struct err *err)
{
    struct vmgenid *s = dev->state;
    const struct vmgenid_params *p = params;
    (void)err;
    s->dev = dev;
    s->pm = p->pm;
    s->gpa = NOT_PLACED;
    s->area = (struct aml_area){ .file = "etc/vmgenid_guid",
                                 .addr_file = "etc/vmgenid_addr",
                                 .data = s->page,
                                 .size = GENID_PAGE,
                                 .align = GENID_PAGE,
                                 .offset = GUID_OFFSET,
                                 .placed = vmgenid_placed,
                                 .opaque = s };
    dev->env->ops->random(dev->env, s->page + GUID_OFFSET, GUID_LEN);
    return 0;
}

/* After a reset the tables are placed anew; the generation stays. */
static void vmgenid_reset(struct dev *dev)
{
    struct vmgenid *s = dev->state;
    s->gpa = NOT_PLACED;
}

static int vmgenid_acpi(struct dev *dev, struct aml *a, struct err *err)
{
    const struct vmgenid *s = dev->state;
    (void)err;
    aml_scope(a, "\\_SB"), aml_device(a, "VGEN");
    aml_name(a, "_HID"), aml_str(a, "POSA0001"); /* a driver goes by _CID */
    aml_name(a, "_CID"), aml_package(a, 2);
    aml_str(a, "VM_Gen_Counter"), aml_str(a, "VMGENCTR");
    aml_end(a);
    aml_name(a, "_DDN"), aml_str(a, "VM_Gen_Counter");
    aml_name(a, "VGIA"), aml_area(a, &s->area);
    /* ADDR: Package { low 32 bits, high 32 bits } */
    aml_method(a, "ADDR", 0, true);
    aml_op(a, AML_STORE), aml_package(a, 2), aml_int(a, 0), aml_int(a, 0), aml_end(a);
    aml_local(a, 0);
    aml_op(a, AML_STORE), aml_op(a, AML_AND), aml_path(a, "VGIA"), aml_int(a, UINT32_MAX);
    aml_op(a, AML_NONE), aml_op(a, AML_INDEX), aml_local(a, 0), aml_int(a, 0), aml_op(a, AML_NONE);
    aml_op(a, AML_STORE), aml_op(a, AML_SHIFT_RIGHT), aml_path(a, "VGIA"), aml_int(a, 32);
    aml_op(a, AML_NONE), aml_op(a, AML_INDEX), aml_local(a, 0), aml_int(a, 1), aml_op(a, AML_NONE);
    aml_op(a, AML_RETURN), aml_local(a, 0);
    aml_end(a);
    aml_end(a), aml_end(a);
    aml_scope(a, "\\_GPE"), aml_method(a, "_E05", 0, false);
    aml_op(a, AML_NOTIFY), aml_path(a, "\\_SB.VGEN"), aml_int(a, 0x80);
    aml_end(a), aml_end(a);
    return 0;
}
_Static_assert(PM_GPE_VMGENID == 5, "the method is named after the bit");

const struct dev_class vmgenid_class = {
    .name = "vmgenid",
    .help = "VM generation ID",
    .threading = DEV_SERIAL,
    .state_size = sizeof(struct vmgenid),
    .init = vmgenid_init,
    .reset = vmgenid_reset,
    .acpi = vmgenid_acpi,
};

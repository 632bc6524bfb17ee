/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the configuration to the devices: the builders of devices.def. */
#include "vmm/machine_int.h"

struct machine_row {
    const struct dev_class *cls;
    const char *id;
    int (*build)(struct machine *m, const struct machine_row *row, struct err *err);
};

__attribute__((unused)) static int machine_plain(struct machine *m, const struct machine_row *row,
                                                 struct err *err)
{
    struct dev *dev;
    return dev_new(&m->env, row->cls, row->id, NULL, &dev, err);
}

#define DEVICE(stem, id, builder) extern const struct dev_class stem##_class;
#include "vmm/devices.def"
#undef DEVICE

static const struct machine_row machine_rows[] = {
#define DEVICE(stem, id, builder) { &stem##_class, id, builder },
#include "vmm/devices.def"
#undef DEVICE
};

int machine_add_devices(struct machine *m, struct err *err)
{
    const struct machine_row *end = machine_rows + ARRAY_LEN(machine_rows);
    for (const struct machine_row *row = machine_rows; row < end; row++) {
        int rc = row->build(m, row, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* In reverse: a device may use one that was built before it. */
void machine_free_devices(struct machine *m)
{
    struct dev *dev;
    while ((dev = TAILQ_LAST(&m->env.devs, dev_list)) != NULL) {
        dev_free(dev);
    }
}

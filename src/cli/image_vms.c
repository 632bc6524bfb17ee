/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image vms, posada image vmrm: the VMs that `posada run --name` has kept. */
#include <stdio.h>

#include "cli/image_store.h"
#include "image/store_vm.h"

static const struct schema_field vms_fields[] = { CLI_FIELD_STORE(struct image_store_opts, store),
                                                  IMAGE_FIELD_JSON(struct image_store_opts, json),
                                                  { 0 } };

const struct schema image_vms_schema = {
    .name = "image vms",
    .size = sizeof(struct image_store_opts),
    .fields = vms_fields,
};

static const struct schema_field vmrm_fields[] = { CLI_FIELD_STORE(struct image_store_opts, store),
                                                   { 0 } };

const struct schema image_vmrm_schema = {
    .name = "image vmrm",
    .size = sizeof(struct image_store_opts),
    .fields = vmrm_fields,
};

static int vm_json(void *opaque, const struct store_vm_info *vm, struct err *err)
{
    json_t *o = json_object();
    (void)err;
    json_object_set_new(o, "name", json_string(vm->name));
    json_object_set_new(o, "image", vm->id[0] != '\0' ? json_string(vm->id) : json_null());
    json_object_set_new(o, "used", json_integer((json_int_t)vm->used));
    json_object_set_new(o, "running", json_boolean(vm->running));
    json_array_append_new(opaque, o);
    return 0;
}

static int vm_row(void *opaque, const struct store_vm_info *vm, struct err *err)
{
    char used[64];
    (void)opaque;
    (void)err;
    image_format_size(vm->used, used, sizeof(used));
    used[strcspn(used, "(")] = '\0';
    printf("%-24s %-12.*s  %10s  %s\n", vm->name, STORE_SHORT_HEX, vm->id[0] != '\0' ? vm->id : "-",
           used, vm->running ? _("yes") : _("no"));
    return 0;
}

static int vms(struct store *s, const struct image_store_opts *o, char **operands, struct err *err)
{
    (void)operands;
    if (!o->json) {
        printf("%-24s %-12s  %10s  %s\n", _("NAME"), _("IMAGE"), _("USED"), _("RUNNING"));
        return store_vm_list(s, vm_row, NULL, err);
    }
    json_t *array = json_array();
    int rc = store_vm_list(s, vm_json, array, err);
    if (rc == 0) {
        json_dumpf(array, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(array);
    return rc;
}

static int vmrm(struct store *s, const struct image_store_opts *o, char **operands, struct err *err)
{
    (void)o;
    return store_vm_rm(s, operands[0], err);
}

int image_vms_main(int argc, char **argv)
{
    return image_store_main(argc, argv, &image_vms_schema, 0, vms);
}

int image_vmrm_main(int argc, char **argv)
{
    return image_store_main(argc, argv, &image_vmrm_schema, 1, vmrm);
}

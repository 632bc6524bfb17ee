/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a recipe means: packages, names and the UUIDs that follow from it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "image/build_int.h"

/* What makes a Debian that boots, has a network and can be logged in to. tiny-initramfs stands in
 * for initramfs-tools, which the kernel's package asks for: the images have their own initrd. */
static const char *const plan_packages[] = {
    "systemd-sysv",    "systemd-resolved", "udev",     "kmod",      "dbus",
    "login",           "passwd",           "iproute2", "e2fsprogs", "sudo",
    "ca-certificates", "openssh-server",
};

static void plan_digest_list(struct digest *d, const char *key, const struct schema_list *list)
{
    char *const *items = list->items;
    digest_add_text(d, key);
    for (size_t i = 0; i < list->count; i++) {
        digest_add_text(d, items[i]);
    }
}

static void plan_digest(const struct build *b, struct digest *d)
{
    const struct recipe *r = b->recipe;
    const struct recipe_file *files = r->files.items;
    const struct recipe_user *users = r->users.items;
    char size[32];
    (void)snprintf(size, sizeof(size), "%llu", (unsigned long long)r->size);
    digest_add_text(d, "posada recipe 1");
    digest_add_text(d, recipe_suite_of(r->suite));
    digest_add_text(d, r->arch);
    digest_add_text(d, size);
    digest_add_text(d, b->hostname);
    plan_digest_list(d, "packages", &r->packages);
    plan_digest_list(d, "commands", &r->commands);
    for (size_t i = 0; i < r->files.count; i++) {
        digest_add_text(d, files[i].path);
        digest_add_text(d, files[i].content);
        digest_add_text(d, files[i].mode);
    }
    for (size_t i = 0; i < r->users.count; i++) {
        digest_add_text(d, users[i].name);
        plan_digest_list(d, "keys", &users[i].ssh_keys);
    }
}

static int plan_uuids(struct build *b, struct err *err)
{
    struct digest *d = NULL;
    uint8_t raw[DIGEST_BYTES];
    int rc = digest_new(&d, err);
    if (rc < 0) {
        return rc;
    }
    plan_digest(b, d);
    digest_end(d, raw);
    digest_free(d);
    digest_uuid(raw, "root", b->root_uuid);
    digest_uuid(raw, "disk", b->uuids.disk);
    digest_uuid(raw, "part1", b->uuids.part[0]);
    digest_uuid(raw, "part2", b->uuids.part[1]);
    digest_uuid(raw, "part3", b->uuids.part[2]);
    b->fat_id = le32_get(raw);
    return 0;
}

static void plan_packages_text(struct build *b)
{
    char *const *more = b->recipe->packages.items;
    bool i386 = strcmp(b->recipe->arch, "i386") == 0;
    size_t len = 0;
    FILE *base = open_memstream(&b->base_packages, &len);
    FILE *own = open_memstream(&b->packages, &len);
    if (base == NULL || own == NULL) {
        abort();
    }
    fprintf(base, "linux-image-cloud-amd64%s,tiny-initramfs", i386 ? ":amd64" : "");
    for (size_t i = 0; i < ARRAY_LEN(plan_packages); i++) {
        fprintf(base, ",%s", plan_packages[i]);
    }
    fputs(b->opts->cloud_init != NULL ? "cloud-init " : "", own);
    for (size_t i = 0; i < b->recipe->packages.count; i++) {
        fprintf(own, "%s ", more[i]);
    }
    if (fclose(base) != 0 || fclose(own) != 0) {
        abort();
    }
}

int build_plan(struct build *b, struct err *err)
{
    char tag[STORE_NAME_MAX + 1];
    char name[STORE_NAME_MAX + 1];
    int rc = store_parse_ref(b->opts->ref, name, tag, err);
    if (rc < 0) {
        return rc;
    }
    (void)snprintf(b->hostname, sizeof(b->hostname), "%s",
                   b->recipe->hostname != NULL ? b->recipe->hostname : name);
    b->size = bits_align_up(b->recipe->size, MIB);
    plan_packages_text(b);
    return plan_uuids(b, err);
}

int build_epoch(int64_t *ret_epoch, struct err *err)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    char *end;
    if (text == NULL || text[0] == '\0') {
        *ret_epoch = 1735689600; /* 2025-01-01 00:00:00 UTC */
        return 0;
    }
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0' || v < 0 || v > UINT32_MAX) {
        return err_set(err, -EINVAL, "SOURCE_DATE_EPOCH: '%s' is not a number of seconds", text);
    }
    *ret_epoch = v;
    return 0;
}

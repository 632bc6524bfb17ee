/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/initrd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define INITRD_MAX_MODULES 128

/* Disks of all hypervisors that a kernel for clouds knows, their file system, and what commands run
 * by the agent use: the network card and vsock. A name that the kernel's package lacks is built in
 * or has no use there. */
static const char *const initrd_modules[] = {
    "virtio_pci",   "virtio_blk",   "virtio_scsi",
    "sd_mod",       "nvme",         "ahci",
    "ata_piix",     "vmw_pvscsi",   "mptspi",
    "hv_storvsc",   "xen-blkfront", "crc32c_generic",
    "crc32c-intel", "ext4",         "virtio_net",
    "virtio_rng",   "virtiofs",     "vmw_vsock_virtio_transport",
};

/* ---- cpio, newc ---- */

struct initrd_cpio {
    FILE *out;
    unsigned ino;
};

static void initrd_pad(FILE *out)
{
    while (ftell(out) % 4 != 0) {
        (void)fputc(0, out);
    }
}

static void initrd_entry(struct initrd_cpio *c, const char *name, unsigned mode, const void *data,
                         size_t len)
{
    fprintf(c->out, "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X", c->ino++, mode,
            0, 0, 1, 0, len, 0, 0, 0, 0, strlen(name) + 1, 0);
    (void)fwrite(name, 1, strlen(name) + 1, c->out);
    initrd_pad(c->out);
    if (len > 0) {
        (void)fwrite(data, 1, len, c->out);
    }
    initrd_pad(c->out);
}

/* ---- Modules ---- */

struct initrd_order {
    const struct initrd_params *p;
    char *dep; /* modules.dep: "kernel/fs/a.ko: kernel/fs/b.ko kernel/lib/c.ko" a line */
    struct initrd_module {
        char path[256]; /* below lib/modules/VERSION */
    } module[INITRD_MAX_MODULES];
    unsigned count;
};

/* "virtio-rng" and "virtio_rng" are one name (modprobe(8)). Compares up to the suffix. */
static bool initrd_same_name(const char *path, size_t len, const char *name)
{
    const char *base = path + len;
    while (base > path && base[-1] != '/') {
        base--;
    }
    size_t i = 0;
    for (; name[i] != '\0'; i++) {
        char a = base + i < path + len ? base[i] : '\0';
        if ((a == '-' ? '_' : a) != (name[i] == '-' ? '_' : name[i])) {
            return false;
        }
    }
    return (size_t)(path + len - base) > i + 2 && strncmp(base + i, ".ko", 3) == 0;
}

static int initrd_take(struct initrd_order *o, const char *path, size_t len, struct err *err)
{
    for (unsigned i = 0; i < o->count; i++) {
        if (strlen(o->module[i].path) == len && strncmp(o->module[i].path, path, len) == 0) {
            return 0;
        }
    }
    if (o->count == INITRD_MAX_MODULES || len >= sizeof(o->module[0].path)) {
        return err_set(err, -E2BIG, "kernel %s: too many modules for an initrd", o->p->version);
    }
    (void)snprintf(o->module[o->count++].path, sizeof(o->module[0].path), "%.*s", (int)len, path);
    return 0;
}

/* Takes what a module needs (the line lists all of it, the innermost last), then itself. */
static int initrd_want(struct initrd_order *o, const char *name, struct err *err)
{
    for (const char *line = o->dep; line != NULL && *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        const char *colon = memchr(line, ':', (size_t)(end - line));
        if (colon != NULL && initrd_same_name(line, (size_t)(colon - line), name)) {
            int rc = 0;
            for (const char *stop = end; rc == 0 && stop > colon + 1;) {
                const char *start = stop;
                while (start > colon + 1 && start[-1] != ' ') {
                    start--;
                }
                rc = stop > start ? initrd_take(o, start, (size_t)(stop - start), err) : 0;
                stop = start > colon + 1 ? start - 1 : start;
            }
            return rc < 0 ? rc : initrd_take(o, line, (size_t)(colon - line), err);
        }
        line = *end != '\0' ? end + 1 : NULL;
    }
    return 0;
}

static int initrd_put_module(struct initrd_order *o, unsigned i, struct initrd_cpio *c,
                             struct err *err)
{
    char path[512];
    char name[300];
    CLEANUP_FREE char *data = NULL;
    size_t len = 0;
    const char *base = strrchr(o->module[i].path, '/');
    (void)snprintf(path, sizeof(path), "lib/modules/%s/%s", o->p->version, o->module[i].path);
    (void)snprintf(name, sizeof(name), "modules/%02u-%s", i,
                   base != NULL ? base + 1 : o->module[i].path);
    int rc = o->p->read(o->p->opaque, path, &data, &len, err);
    if (rc == 0) {
        initrd_entry(c, name, S_IFREG | 0644, data, len);
    }
    return rc;
}

int initrd_make(const struct initrd_params *p, void **ret_data, size_t *ret_len, struct err *err)
{
    struct initrd_order *o = calloc(1, sizeof(*o));
    CLEANUP_FREE void *archive = NULL;
    char path[512];
    size_t len = 0;
    char *text = NULL;
    struct initrd_cpio c = { .out = open_memstream(&text, ret_len), .ino = 1 };
    if (o == NULL || c.out == NULL) {
        abort();
    }
    o->p = p;
    (void)snprintf(path, sizeof(path), "lib/modules/%s/modules.dep", p->version);
    int rc = p->read(p->opaque, path, &o->dep, &len, err);
    for (size_t i = 0; i < ARRAY_LEN(initrd_modules) && rc == 0; i++) {
        rc = initrd_want(o, initrd_modules[i], err);
    }
    initrd_entry(&c, "dev", S_IFDIR | 0755, NULL, 0);
    initrd_entry(&c, "modules", S_IFDIR | 0755, NULL, 0);
    initrd_entry(&c, "init", S_IFREG | 0755, p->init, p->init_len);
    for (unsigned i = 0; i < o->count && rc == 0; i++) {
        rc = initrd_put_module(o, i, &c, err);
    }
    initrd_entry(&c, "TRAILER!!!", 0, NULL, 0);
    if (fclose(c.out) != 0) {
        abort();
    }
    archive = text;
    free(o->dep);
    free(o);
    if (rc == 0) {
        *ret_data = take_ptr(&archive);
    }
    return rc;
}

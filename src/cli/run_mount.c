/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/run_mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

/* Where ":GUEST" begins: the last ":/", since a host path may have a colon. */
static const char *guest_part(const char *text, size_t len)
{
    const char *found = NULL;
    for (size_t i = 1; i + 1 < len; i++) {
        if (text[i] == ':' && text[i + 1] == '/') {
            found = text + i;
        }
    }
    return found;
}

static int check_host(const char *host, struct err *err)
{
    struct stat st;
    if (stat(host, &st) < 0) {
        return err_set_errno(err, -errno, "--mount: cannot use '%s'", host);
    }
    if (!S_ISDIR(st.st_mode)) {
        return err_set(err, -ENOTDIR, "--mount: '%s' is not a folder", host);
    }
    return 0;
}

int run_mount_add(struct run_mounts *m, const char *text, struct vmconfig *config, struct err *err)
{
    char share[2 * PATH_MAX + 64];
    size_t len = strlen(text);
    bool writable = len > 3 && strcmp(text + len - 3, ":rw") == 0;
    bool read_only = len > 3 && strcmp(text + len - 3, ":ro") == 0;
    len -= writable || read_only ? 3 : 0;
    const char *guest = guest_part(text, len);
    if (guest == NULL || guest + 2 == text + len || len >= PATH_MAX) {
        return err_set(err, -EINVAL,
                       "--mount: '%s' is not HOST:GUEST or HOST:GUEST:rw, with GUEST the absolute "
                       "path of a folder in the guest",
                       text);
    }
    if (m->count == VMCONFIG_MAX_SHARES) {
        return err_set(err, -EINVAL, "--mount is given more than %d times", VMCONFIG_MAX_SHARES);
    }
    CLEANUP_FREE char *host = strndup(text, (size_t)(guest - text));
    if (host == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = check_host(host, err);
    if (rc < 0) {
        return rc;
    }
    struct run_mount *mount = &m->mount[m->count];
    (void)snprintf(mount->tag, sizeof(mount->tag), "mount%u", m->count);
    (void)snprintf(mount->guest, sizeof(mount->guest), "%.*s", (int)(text + len - guest - 1),
                   guest + 1);
    m->words[2 * m->count] = mount->tag;
    m->words[2 * m->count + 1] = mount->guest;
    m->words[2 * m->count + 2] = NULL;
    m->count++;
    /* "," in a value of a group is doubled (base/schema.h). */
    size_t n = (size_t)snprintf(share, sizeof(share), "tag=%s%s,dir=", mount->tag,
                                writable ? ",writable" : "");
    for (const char *p = host; *p != '\0' && n + 3 < sizeof(share); p++) {
        share[n++] = *p;
        if (*p == ',') {
            share[n++] = ',';
        }
    }
    share[n] = '\0';
    return schema_set(&vmconfig_schema, config, "share", share, err);
}

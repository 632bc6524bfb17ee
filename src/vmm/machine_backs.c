/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the devices stand on: consoles, disks, networks, sockets. All that has a name on the host is
 * opened here, by the one thread there is, before the jail closes; the devices come after it.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/blk.h"
#include "vmm/fs/share_wire.h"
#include "vmm/machine_int.h"

static int machine_open_chr(struct machine *m, enum machine_chr which, const char *what,
                            const char *spec, struct err *err)
{
    if (spec == NULL) {
        return 0;
    }
    struct chr **ret_chr = &m->back.chr[which];
    int rc = chr_open(spec, m->io_loop, machine_on_escape, m, ret_chr, err);
    if (rc < 0) {
        return err_prefix(err, "%s: ", what);
    }
    if (strcmp(spec, "pty") == 0) {
        /* Nobody can know the name before: it is part of the answer, no log line. */
        fprintf(stderr, "%s: %s\n", what, chr_name(*ret_chr));
    }
    if (strcmp(spec, "stdio") == 0) { /* at most one: chr_open() saw to that */
        return prompt_new(*ret_chr, m->io_loop, m->loop, machine_ctl, m, &m->prompt, err);
    }
    return 0;
}

static int machine_open_disk(struct machine *m, const struct vmconfig_disk *d, struct err *err)
{
    /* The list of the configuration with the NULL at its end that blk_opts asks for. */
    const char *allow[SCHEMA_MAX_LIST + 1] = { NULL };
    char *const *items = d->backing_allow.items;
    for (size_t i = 0; i < d->backing_allow.count && i < SCHEMA_MAX_LIST; i++) {
        allow[i] = items[i];
    }
    struct blk_opts opts = {
        .path = d->file,
        .format = d->format,
        .read_only = d->readonly,
        .cache = (enum blk_cache)d->cache,
        .backing_allow = allow,
        .data_file = d->data_file,
    };
    int rc = blk_open(&opts, &m->back.blk[m->back.nblk], err);
    if (rc == 0) {
        m->back.nblk++;
    }
    return rc;
}

static int machine_open_disks(struct machine *m, struct err *err)
{
    const struct vmconfig_disk *disks = m->config->disk.items;
    for (unsigned i = 0; i < m->config->disk.count; i++) {
        if (machine_open_disk(m, &disks[i], err) < 0) {
            return err_prefix(err, "disk%u: ", i);
        }
    }
    return 0;
}

static int machine_open_net(struct machine *m, const struct vmconfig_net *n, struct err *err)
{
    /* The list of the configuration with the NULL at its end that netbe_opts asks for. */
    const char *hostfwd[SCHEMA_MAX_LIST + 1] = { NULL };
    char *const *items = n->hostfwd.items;
    for (size_t i = 0; i < n->hostfwd.count && i < SCHEMA_MAX_LIST; i++) {
        hostfwd[i] = items[i];
    }
    struct netbe_opts opts = {
        .kind = n->tap != NULL ? "tap" : n->kind,
        .ifname = n->tap,
        .queues = (unsigned)n->queues,
        .hostfwd = hostfwd,
    };
    int rc = netbe_open(&opts, &m->back.net[m->back.nnet], err);
    if (rc == 0) {
        m->back.nnet++;
    }
    return rc;
}

static int machine_open_nets(struct machine *m, struct err *err)
{
    const struct vmconfig_net *nets = m->config->net.items;
    for (unsigned i = 0; i < m->config->net.count; i++) {
        if (machine_open_net(m, &nets[i], err) < 0) {
            return err_prefix(err, "net%u: ", i);
        }
    }
    return 0;
}

static int machine_open_shares(struct machine *m, struct err *err)
{
    const struct vmconfig_share *shares = m->config->share.items;
    for (unsigned i = 0; i < m->config->share.count; i++) {
        const char *args[] = { "--dir", shares[i].dir, shares[i].writable ? "--writable" : NULL,
                               NULL };
        const struct helper_opts o = { .name = "posada-fs",
                                       .args = args,
                                       .send_buffer = SHARE_WIRE_BUFFER };
        if (helper_start(&o, &m->back.share[i], err) < 0) {
            return err_prefix(err, "fs%u: ", i);
        }
        m->back.nshare++;
    }
    return 0;
}

static int machine_open_vsock(struct machine *m, struct err *err)
{
    const struct vmconfig *c = m->config;
    if (c->vsock == 0) {
        return 0;
    }
    int n = c->vsock_path != NULL ? asprintf(&m->vsock_path, "%s", c->vsock_path)
                                  : asprintf(&m->vsock_path, "%s.vsock", c->name);
    if (n < 0) {
        m->vsock_path = NULL;
        return err_set(err, -ENOMEM, "vsock: out of memory");
    }
    return unixsock_listen(&m->back.vsock, m->vsock_path, err);
}

static int machine_open_ctl(struct machine *m, struct err *err)
{
    if (m->config->control == NULL) {
        return 0;
    }
    /* "unix:PATH": the configuration's check has seen the prefix. */
    return ctl_new(m->config->control + strlen("unix:"), m->loop, machine_ctl, m, &m->ctl, err);
}

static int machine_open_chrs(struct machine *m, struct err *err)
{
    const struct vmconfig *c = m->config;
    int rc = machine_open_chr(m, MACHINE_CHR_DEBUGCON, "debugcon", c->debugcon, err);
    rc = rc < 0 ? rc : machine_open_chr(m, MACHINE_CHR_CONSOLE, "console", c->console, err);
    return rc < 0 ? rc : machine_open_chr(m, MACHINE_CHR_HVC, "hvc", c->hvc, err);
}

int machine_open_backs(struct machine *m, struct err *err)
{
    static int (*const steps[])(struct machine * m, struct err * err) = {
        machine_open_chrs,   machine_open_disks, machine_open_nets,
        machine_open_shares, machine_open_vsock, machine_open_ctl,
    };
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        int rc = steps[i](m, err);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

void machine_close_backs(struct machine *m)
{
    prompt_free(m->prompt);
    for (size_t i = 0; i < ARRAY_LEN(m->back.chr); i++) {
        chr_close(m->back.chr[i]);
    }
    for (unsigned i = 0; i < m->back.nshare; i++) {
        helper_end(&m->back.share[i]);
    }
    for (unsigned i = 0; i < m->back.nnet; i++) {
        netbe_close(m->back.net[i]);
    }
    for (unsigned i = 0; i < m->back.nblk; i++) {
        blk_close(m->back.blk[i]);
    }
    unixsock_close(&m->back.vsock);
    free(m->vsock_path);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/vmconfig.h"

#include <errno.h>

static const char *const engines[] = { "auto", "kvm", "soft", NULL };
static const char *const jits[] = { "off", "t1", NULL };
static const char *const formats[] = { "raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", NULL };
static const char *const caches[] = { "writeback", "none", "unsafe", NULL };
static const char *const log_levels[] = { "error", "warn", "info", "debug", "trace", NULL };
static const char *const net_kinds[] = { "user", "tap", "none", NULL };

static int str_one_of(const char *value, const char *const *choices)
{
    for (unsigned i = 0; choices[i] != NULL; i++) {
        if (strcmp(value, choices[i]) == 0) {
            return 0;
        }
    }
    return -EINVAL;
}

#define ENGINE(member) .offset = offsetof(struct vmconfig_engine_opts, member)

static const struct schema_field engine_fields[] = {
    {.name = "name",
     .type = SCHEMA_ENUM,
     .choices = engines,
     .positional = true,
     .deflt = "auto",
     ENGINE(name),
     .help = "kvm: /dev/kvm; soft: software, without virtualisation hardware; auto: the best that "
              "works (see 'posada doctor')" },
    { .name = "jit",
     .arg = "off|t1",
     .type = SCHEMA_STR,
     .choices = jits,
     .min = 1,
     ENGINE(jit),
     .help =
          "of soft: how guest code runs; off: interpreted, t1: translated once it has run a few "
          "times" },
    { 0   },
};

static int engine_check_jit(const void *obj, struct err *err)
{
    const struct vmconfig_engine_opts *e = obj;
    if (e->jit != NULL && str_one_of(e->jit, jits) < 0) {
        return err_set(err, -EINVAL, "jit: '%s' is unknown: give one of off, t1", e->jit);
    }
    if (e->jit != NULL && e->name != VMCONFIG_ENGINE_SOFT) {
        return err_set(err, -EINVAL, "jit: only the engine soft has one: give soft,jit=%s", e->jit);
    }
    return 0;
}

static const struct schema engine_schema = {
    .name = "engine",
    .size = sizeof(struct vmconfig_engine_opts),
    .fields = engine_fields,
    .check = engine_check_jit,
};

#define DISK(member) .offset = offsetof(struct vmconfig_disk, member)

static const struct schema_field disk_fields[] = {
    {.name = "file",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .positional = true,
     .required = true,
     .min = 1,
     DISK(file),
     .complete = "file",
     .help = "the image" },
    { .name = "format",
     .arg = "FORMAT",
     .type = SCHEMA_STR,
     .choices = formats,
     DISK(format),
     .help = "its format: raw, qcow2, vmdk, vdi, vhd or vhdx; without it the ending of the name "
              "tells (other endings: raw), and nothing is ever guessed from the content" },
    { .name = "readonly",
     .type = SCHEMA_FLAG,
     DISK(readonly),
     .help = "the guest cannot write it" },
    { .name = "cache",
     .type = SCHEMA_ENUM,
     .choices = caches,
     .deflt = "writeback",
     DISK(cache),
     .help = "writeback: host page cache; none: O_DIRECT; unsafe: flushes ignored" },
    { .name = "serial",
     .arg = "S",
     .type = SCHEMA_STR,
     DISK(serial),
     .help = "serial number that the guest sees (20 characters at most)" },
    { .name = "backing",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .list = true,
     .min = 1,
     DISK(backing_allow),
     .complete = "file",
     .help = "a backing file outside of the image's folder that the image may use" },
    { .name = "data-file",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     DISK(data_file),
     .complete = "file",
     .help = "where a qcow2 image that keeps its data in another file has them; the name in the "
              "image is not followed" },
    { 0       },
};

static int disk_check(const void *obj, struct err *err)
{
    const struct vmconfig_disk *d = obj;
    if (d->format != NULL && str_one_of(d->format, formats) < 0) {
        return err_set(err, -EINVAL,
                       "format: '%s' is unknown: give one of raw, qcow2, vmdk, vdi, vhd, vhdx",
                       d->format);
    }
    if (d->serial != NULL && strlen(d->serial) > 20) {
        return err_set(err, -EINVAL, "serial: '%s' has %zu characters: 20 at most", d->serial,
                       strlen(d->serial));
    }
    return 0;
}

static const struct schema disk_schema = {
    .name = "disk",
    .size = sizeof(struct vmconfig_disk),
    .fields = disk_fields,
    .check = disk_check,
};

#define NET(member) .offset = offsetof(struct vmconfig_net, member)

static const struct schema_field net_fields[] = {
    {.name = "kind",
     .arg = "user|none",
     .type = SCHEMA_STR,
     .choices = net_kinds,
     .positional = true,
     NET(kind),
     .help = "user: NAT, DHCP and DNS without any right; none: a NIC without a cable" },
    { .name = "tap",
     .arg = "NAME",
     .type = SCHEMA_STR,
     .min = 1,
     NET(tap),
     .help = "use this tap interface of the host" },
    { .name = "hostfwd",
     .arg = "PROTO:HOST:PORT-GUEST:PORT",
     .type = SCHEMA_STR,
     .list = true,
     .min = 1,
     NET(hostfwd),
     .help = "user: forward a host port, such as tcp:127.0.0.1:2222-:22" },
    { .name = "mac",
     .arg = "MAC",
     .type = SCHEMA_STR,
     NET(mac),
     .help = "the NIC's address; without it one is derived from the VM's name" },
    { .name = "queues",
     .arg = "N",
     .type = SCHEMA_UINT,
     .min = 1,
     .max = 8,
     .deflt = "1",
     NET(queues),
     .help = "tap: pairs of queues" },
    { 0                                                              },
};

static int mac_check(const char *mac, struct err *err)
{
    unsigned b[6];
    int used = 0;
    if (strlen(mac) != 17 ||
        sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &used) !=
            6 ||
        used != 17) {
        return err_set(err, -EINVAL,
                       "mac: '%s' is not an Ethernet address: give six bytes such as "
                       "52:54:00:12:34:56",
                       mac);
    }
    if ((b[0] & 1) != 0) {
        return err_set(err, -EINVAL,
                       "mac: '%s' is a multicast address: the first byte must be even", mac);
    }
    return 0;
}

static int net_check(const void *obj, struct err *err)
{
    const struct vmconfig_net *n = obj;
    const char *kind = n->tap != NULL && n->kind == NULL ? "tap" : n->kind;
    if (kind == NULL || str_one_of(kind, net_kinds) < 0) {
        return err_set(err, -EINVAL, "'%s' is unknown: give user, tap=NAME or none",
                       kind != NULL ? kind : "");
    }
    bool tap = strcmp(kind, "tap") == 0;
    if (tap != (n->tap != NULL)) {
        return err_set(
            err, -EINVAL,
            tap ? "a tap needs its interface: give tap=NAME" : "tap=NAME goes without '%s'", kind);
    }
    if (n->hostfwd.count > 0 && strcmp(kind, "user") != 0) {
        return err_set(err, -EINVAL, "hostfwd goes with user networking only, not with '%s'", kind);
    }
    if (n->queues > 1 && !tap) {
        return err_set(err, -EINVAL, "queues=%u goes with a tap only, not with '%s'",
                       (unsigned)n->queues, kind);
    }
    return n->mac != NULL ? mac_check(n->mac, err) : 0;
}

static const struct schema net_schema = {
    .name = "net",
    .size = sizeof(struct vmconfig_net),
    .fields = net_fields,
    .check = net_check,
};

#define SHARE(member) .offset = offsetof(struct vmconfig_share, member)

static const struct schema_field share_fields[] = {
    {.name = "dir",
     .arg = "DIR",
     .type = SCHEMA_STR,
     .positional = true,
     .required = true,
     .min = 1,
     SHARE(dir),
     .complete = "dir",
     .help = "the folder of the host" },
    { .name = "tag",
     .arg = "TAG",
     .type = SCHEMA_STR,
     .required = true,
     .min = 1,
     SHARE(tag),
     .help = "what the guest mounts: mount -t virtiofs TAG /mnt (36 bytes at most)" },
    { .name = "writable",
     .type = SCHEMA_FLAG,
     SHARE(writable),
     .help = "the guest may change it; without this it may only read" },
    { 0        },
};

static int share_check(const void *obj, struct err *err)
{
    const struct vmconfig_share *s = obj;
    if (strlen(s->tag) > VMCONFIG_TAG_MAX) {
        return err_set(err, -EINVAL, "tag: '%s' has %zu bytes: %d at most", s->tag, strlen(s->tag),
                       VMCONFIG_TAG_MAX);
    }
    return 0;
}

static const struct schema share_schema = {
    .name = "share",
    .size = sizeof(struct vmconfig_share),
    .fields = share_fields,
    .check = share_check,
};

#define VM(member) .offset = offsetof(struct vmconfig, member)

static const struct schema_field vmconfig_fields[] = {
    {.name = "file",
     .letter = 'f',
     .arg = "FILE.yaml",
     .type = SCHEMA_STR,
     .min = 1,
     VM(file),
     .complete = "file",
     .help = "read options from a YAML file, with the names below; the command line wins" },
    { .name = "kernel",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     .required = true,
     VM(kernel),
     .complete = "file",
     .help = "guest kernel: Linux bzImage, PVH ELF or multiboot 1 ELF" },
    { .name = "initrd",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     VM(initrd),
     .complete = "file",
     .help = "initial RAM disk (multiboot: the first module)" },
    { .name = "append",
     .arg = "STRING",
     .type = SCHEMA_STR,
     VM(append),
     .help = "kernel command line" },
    { .name = "memory",
     .letter = 'm',
     .arg = "SIZE",
     .type = SCHEMA_SIZE,
     .min = 1 * MIB,
     .max = 4096 * GIB,
     .deflt = "512M",
     VM(memory),
     .help = "guest RAM" },
    { .name = "hugepages",
     .type = SCHEMA_FLAG,
     VM(hugepages),
     .help = "take the RAM from the host's huge pages" },
    { .name = "numa",
     .arg = "NODE",
     .type = SCHEMA_STR,
     .min = 1,
     VM(numa_node),
     .help = "bind the RAM to this NUMA node of the host" },
    { .name = "cpus",
     .arg = "N",
     .type = SCHEMA_UINT,
     .min = 1,
     .max = VMCONFIG_MAX_CPUS,
     .deflt = "1",
     VM(cpus),
     .help = "number of vCPUs" },
    { .name = "cpu",
     .arg = "MODEL",
     .type = SCHEMA_STR,
     .min = 1,
     .deflt = "host",
     VM(cpu),
     .help = "CPU model: host, x86-64-v1, x86-64-v2 or x86-64-v3" },
    { .name = "pin",
     .arg = "LIST",
     .type = SCHEMA_STR,
     .min = 1,
     VM(pin),
     .help = "host CPUs for vCPU 0, 1, ... in turn, such as 0,2-3" },
    { .name = "engine",
     .type = SCHEMA_GROUP,
     .sub = &engine_schema,
     .deflt = "auto",
     VM(engine),
     .help = "what runs the guest's code" },
    { .name = "disk",
     .type = SCHEMA_GROUP,
     .list = true,
     .sub = &disk_schema,
     VM(disk),
     .help = "a disk (virtio-blk)" },
    { .name = "net",
     .type = SCHEMA_GROUP,
     .list = true,
     .sub = &net_schema,
     VM(net),
     .help = "a network card (virtio-net)" },
    { .name = "share",
     .type = SCHEMA_GROUP,
     .list = true,
     .sub = &share_schema,
     VM(share),
     .help = "a folder that the guest sees (virtio-fs)" },
    { .name = "vsock",
     .arg = "CID",
     .type = SCHEMA_UINT,
     .min = 3,
     .max = 0xfffffffe,
     VM(vsock),
     .help = "a vsock device with this guest CID" },
    { .name = "vsock-path",
     .arg = "PATH",
     .type = SCHEMA_STR,
     .min = 1,
     VM(vsock_path),
     .complete = "file",
     .help = "the vsock's unix socket on the host; without it NAME.vsock in the current folder" },
    { .name = "balloon",
     .type = SCHEMA_FLAG,
     VM(balloon),
     .help = "a memory balloon, steered by 'posada ctl'" },
    { .name = "console",
     .arg = "stdio|pty|unix:PATH|file:PATH|null",
     .type = SCHEMA_STR,
     .min = 1,
     .deflt = "stdio",
     VM(console),
     .help = "where the first serial port (ttyS0) goes; on stdio, Ctrl-A h shows the keys" },
    { .name = "hvc",
     .arg = "pty|unix:PATH|file:PATH|null",
     .type = SCHEMA_STR,
     .min = 1,
     VM(hvc),
     .help = "adds a virtio console (hvc0) that goes there" },
    { .name = "debugcon",
     .arg = "file:PATH|pty|unix:PATH",
     .type = SCHEMA_STR,
     .min = 1,
     VM(debugcon),
     .help = "where bytes written to port 0x402 go" },
    { .name = "control",
     .arg = "unix:PATH",
     .type = SCHEMA_STR,
     .min = 1,
     VM(control),
     .help = "control socket for 'posada ctl'" },
    { .name = "name",
     .arg = "NAME",
     .type = SCHEMA_STR,
     .min = 1,
     .deflt = "vm",
     VM(name),
     .help = "name of the VM, in messages and in the process list" },
    { .name = "no-reboot",
     .type = SCHEMA_FLAG,
     VM(no_reboot),
     .help = "exit when the guest resets, instead of booting again" },
    { .name = "timeout",
     .arg = "SECONDS",
     .type = SCHEMA_UINT,
     .min = 1,
     .max = 31536000,
     VM(timeout_s),
     .help = "end the VM after this time" },
    { .name = "no-jail",
     .type = SCHEMA_FLAG,
     VM(no_jail),
     .help = "for debugging only: run the guest in a process that keeps its rights" },
    { .name = "log-level",
     .arg = "error|warn|info|debug|trace",
     .type = SCHEMA_STR,
     .choices = log_levels,
     .deflt = "warn",
     VM(log_level),
     .help = "how much is logged on stderr" },
    { .name = "json",
     .type = SCHEMA_FLAG,
     VM(json),
     .help = "print one JSON object about the run on stdout when it ends" },
    { 0                                                  },
};

static int vmconfig_check(const void *obj, struct err *err)
{
    const struct vmconfig *c = obj;
    if (c->disk.count > VMCONFIG_MAX_DISKS) {
        return err_set(err, -EINVAL, "--disk is given %zu times: %d at most", c->disk.count,
                       VMCONFIG_MAX_DISKS);
    }
    if (c->net.count > VMCONFIG_MAX_NETS) {
        return err_set(err, -EINVAL, "--net is given %zu times: %d at most", c->net.count,
                       VMCONFIG_MAX_NETS);
    }
    if (c->share.count > VMCONFIG_MAX_SHARES) {
        return err_set(err, -EINVAL, "--share is given %zu times: %d at most", c->share.count,
                       VMCONFIG_MAX_SHARES);
    }
    const struct vmconfig_share *shares = c->share.items;
    for (size_t i = 0; i < c->share.count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (strcmp(shares[i].tag, shares[k].tag) == 0) {
                return err_set(err, -EINVAL, "--share: two folders have the tag '%s'",
                               shares[i].tag);
            }
        }
    }
    if (c->control != NULL && strncmp(c->control, "unix:", 5) != 0) {
        return err_set(err, -EINVAL, "--control: '%s' is not a socket: give unix:PATH", c->control);
    }
    if (str_one_of(c->log_level, log_levels) < 0) {
        return err_set(err, -EINVAL,
                       "--log-level: '%s' is unknown: give one of error, warn, info, debug, trace",
                       c->log_level);
    }
    if (strlen(c->name) > 64 || strchr(c->name, '/') != NULL) {
        return err_set(err, -EINVAL, "--name: '%s': give 1 to 64 characters without '/'", c->name);
    }
    if (c->memory % 4096 != 0) {
        return err_set(err, -EINVAL, "--memory: %llu bytes are not a multiple of 4096",
                       (unsigned long long)c->memory);
    }
    if (c->json && strcmp(c->console, "stdio") == 0) {
        return err_set(err, -EINVAL,
                       "--json writes to stdout, where the console is: add --console null, "
                       "file:PATH, unix:PATH or pty");
    }
    return 0;
}

const struct schema vmconfig_schema = {
    .name = "run",
    .size = sizeof(struct vmconfig),
    .fields = vmconfig_fields,
    .check = vmconfig_check,
};

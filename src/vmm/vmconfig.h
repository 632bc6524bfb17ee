/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a VM is made of: the options of `posada run` and `posada-vmm` as one table.
 *
 * To add an option: a member here and a row in vmconfig.c; parser, help, manual page, completion
 * and the YAML file follow.
 */
#ifndef VMM_VMCONFIG_H
#define VMM_VMCONFIG_H

#include "base/schema.h"

#define VMCONFIG_MAX_CPUS   64
#define VMCONFIG_MAX_DISKS  16
#define VMCONFIG_MAX_NETS   8
#define VMCONFIG_MAX_SHARES 8
#define VMCONFIG_TAG_MAX    36 /* virtio 1.2 §5.11.4 */

enum vmconfig_engine {
    VMCONFIG_ENGINE_AUTO,
    VMCONFIG_ENGINE_KVM,
    VMCONFIG_ENGINE_SOFT,
};

struct vmconfig_engine_opts {
    uint64_t name; /* enum vmconfig_engine */
    char *jit;     /* NULL: as the engine has it; "off", "t1" */
};

struct vmconfig_disk {
    char *file;
    char *format; /* NULL: see blk_opts */
    bool readonly;
    uint64_t cache;                   /* enum blk_cache */
    char *serial;                     /* NULL, or at most 20 characters (virtio 1.2 §5.2.6.1) */
    struct schema_list backing_allow; /* char *: files that the image may name as backing */
    char *data_file;                  /* NULL: see blk_opts */
};

struct vmconfig_net {
    char *kind;                 /* "user", "tap", "none" */
    char *tap;                  /* interface name; set = kind "tap" */
    struct schema_list hostfwd; /* char * */
    char *mac;                  /* NULL: derived from the VM's name and the NIC's index */
    uint64_t queues;
};

struct vmconfig_share {
    char *dir;
    char *tag; /* 1 to 36 bytes (virtio 1.2 §5.11.4), no two alike */
    bool writable;
};

struct vmconfig {
    char *file; /* YAML file with more options; `posada run` resolves it, posada-vmm refuses it */
    char *kernel;
    char *initrd;
    char *append;
    uint64_t memory; /* bytes */
    bool hugepages;
    char *numa_node; /* NULL: not bound */
    uint64_t cpus;
    char *cpu; /* "host" or a model name */
    char *pin; /* NULL, or "0,2-3": host CPU of vCPU 0, 1, ... in turn */
    struct vmconfig_engine_opts engine;
    struct schema_list disk;  /* struct vmconfig_disk */
    struct schema_list net;   /* struct vmconfig_net */
    struct schema_list share; /* struct vmconfig_share */
    uint64_t vsock;           /* guest CID; 0 = none */
    char *vsock_path;         /* socket for the host side */
    bool balloon;
    char *console;
    char *hvc; /* back end of the virtio console; NULL = none */
    char *debugcon;
    char *control; /* "unix:PATH" */
    char *name;
    bool no_reboot;
    uint64_t timeout_s; /* 0 = none */
    bool no_jail;
    char *log_level;
    bool json;
};

extern const struct schema vmconfig_schema;

/* Exit codes: exitcodes.def. */
enum vmconfig_exit {
#define EXITCODE(name, number, help) VMCONFIG_EXIT_##name = (number),
#include "vmm/exitcodes.def"
#undef EXITCODE
};

/* The exit code of a guest that wrote `value` to isa-debug-exit. */
static inline int vmconfig_debug_exit_code(uint32_t value)
{
    return (int)(((value << 1) | 1) & 255);
}

#endif

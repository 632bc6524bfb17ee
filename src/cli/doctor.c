/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada doctor: which engine would serve a VM on this host and why, and what else is missing.
 *
 * A check is a function check_NAME() and a row in `checks`.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "vmm/engine.h"
#include "vmm/sandbox/sandbox.h"

#define DOCTOR_TEXT_MAX 320
/* A guest of the default size and what the VM process needs beside it. */
#define DOCTOR_MEMORY_MIN (600 * MIB)

struct doctor_result {
    bool ok;
    char what[DOCTOR_TEXT_MAX];
    char remedy[DOCTOR_TEXT_MAX]; /* "" when all is well */
};

static void say(struct doctor_result *r, bool ok, const char *what, const char *remedy)
{
    r->ok = ok;
    (void)snprintf(r->what, sizeof(r->what), "%s", _(what));
    (void)snprintf(r->remedy, sizeof(r->remedy), "%s", ok ? "" : _(remedy));
}

static void check_tap(struct doctor_result *r)
{
    CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        say(r, false,
            errno == ENOENT ? "tap networking: /dev/net/tun does not exist"
                            : "tap networking: /dev/net/tun may not be opened",
            "load the tun module (modprobe tun) or run as root; '--net user' needs neither");
        return;
    }
    /* CAP_NET_ADMIN is bit 12 (capability.h). A tap made for this user before works without. */
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    uint64_t caps = 0;
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        (void)sscanf(line, "CapEff: %" SCNx64, &caps);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    if ((caps & BIT64(12)) != 0) {
        say(r, true, "tap networking: allowed", "");
    } else {
        say(r, false, "tap networking: only taps that root made for this user can be used",
            "ip tuntap add NAME mode tap user $USER (as root), or use '--net user'");
    }
}

static void check_io_uring(struct doctor_result *r)
{
    struct {
        uint32_t words[30];
    } params = { { 0 } };
    static_assert(sizeof(params) == 120, "struct io_uring_params of <linux/io_uring.h>");
    CLEANUP_FD int fd = (int)syscall(SYS_io_uring_setup, 1, &params);
    if (fd >= 0) {
        say(r, true, "disk I/O: io_uring", "");
    } else {
        say(r, false, "disk I/O: io_uring is not to be had; worker threads do the work instead",
            "allow io_uring (sysctl kernel.io_uring_disabled=0; a container's seccomp profile may "
            "forbid it too)");
    }
}

static void check_memory(struct doctor_result *r)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[256];
    uint64_t kib = 0;
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        (void)sscanf(line, "MemAvailable: %" SCNu64, &kib);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    bool ok = kib * KIB >= DOCTOR_MEMORY_MIN;
    r->ok = ok;
    (void)snprintf(r->what, sizeof(r->what), _("memory: %" PRIu64 " MiB are available"),
                   kib / 1024);
    (void)snprintf(r->remedy, sizeof(r->remedy), "%s",
                   ok ? ""
                      : _("a guest of the default size needs 600 MiB: end other programs or give "
                          "a smaller --memory"));
}

static void check_hugepages(struct doctor_result *r)
{
    FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    unsigned long pages = 0;
    if (f != NULL) {
        (void)!fscanf(f, "%lu", &pages);
        (void)fclose(f);
    }
    /* Not having any is the usual state and no fault. */
    r->ok = true;
    (void)snprintf(r->what, sizeof(r->what),
                   pages > 0 ? _("huge pages: %lu of 2 MiB are free")
                             : _("huge pages: none set aside (%lu); '--hugepages' would fail"),
                   pages);
}

static void check_jail(struct doctor_result *r)
{
    char missing[SANDBOX_MISSING_MAX] = "";
    if (sandbox_landlock_abi() == 0) {
        say(r, false, "jail: system call filter, without Landlock",
            "boot the host kernel with landlock in its lsm= list for a second wall");
    } else if (geteuid() != 0) {
        say(r, true,
            "jail: system call filter and Landlock; a VM that root starts also gets a user, "
            "namespaces and an empty root of its own",
            "");
    } else if (!sandbox_survey(missing)) {
        say(r, false, "jail: it cannot be entered", "see the log of a VM's start");
    } else {
        say(r, missing[0] == '\0', "jail: all walls stand",
            "give the container these rights, or start VMs outside of it; the other walls stand");
        if (!r->ok) {
            (void)snprintf(r->what, sizeof(r->what), _("jail: the host refuses: %s"), missing);
        }
    }
}

static const struct {
    const char *name;
    void (*check)(struct doctor_result *r);
} checks[] = {
    {"tap",        check_tap      },
    { "io_uring",  check_io_uring },
    { "memory",    check_memory   },
    { "hugepages", check_hugepages},
    { "jail",      check_jail     },
};

/* The engine that `auto` would take, or NULL. */
static const struct engine_finding *chosen(const struct engine_finding *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (f[i].automatic) {
            return &f[i];
        }
    }
    return NULL;
}

static void print_text(const struct engine_finding *f, size_t n, const struct doctor_result *r)
{
    const struct engine_finding *take = chosen(f, n);
    if (take != NULL) {
        printf(_("Engine: %s would serve: %s\n"), take->engine, take->reason);
    } else {
        puts(_("Engine: none would serve."));
    }
    for (size_t i = 0; i < n; i++) {
        printf("  [%s] %s: %s\n",
               f[i].automatic ? "ok"
               : f[i].usable  ? "--"
                              : "no",
               f[i].engine, f[i].reason);
        if (f[i].remedy[0] != '\0') {
            printf("       %s\n", f[i].remedy);
        }
    }
    puts(_("Host:"));
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        printf("  [%s] %s\n", r[i].ok ? "ok" : "--", r[i].what);
        if (r[i].remedy[0] != '\0') {
            printf("       %s\n", r[i].remedy);
        }
    }
}

static int print_json(const struct engine_finding *f, size_t n, const struct doctor_result *r)
{
    const struct engine_finding *take = chosen(f, n);
    json_t *engines = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(engines, json_pack("{ss sb sb ss ss}", "engine", f[i].engine,
                                                 "usable", f[i].usable, "auto", f[i].automatic,
                                                 "reason", f[i].reason, "remedy", f[i].remedy));
    }
    json_t *host = json_object();
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        json_object_set_new(
            host, checks[i].name,
            json_pack("{sb ss ss}", "ok", r[i].ok, "what", r[i].what, "remedy", r[i].remedy));
    }
    json_t *o = json_pack("{ss? so so}", "engine", take != NULL ? take->engine : NULL, "engines",
                          engines, "host", host);
    int rc = o == NULL ? -1 : json_dumpf(o, stdout, JSON_INDENT(2));
    json_decref(o);
    puts("");
    return rc;
}

int doctor_main(int argc, char **argv)
{
    bool as_json = argc == 2 && strcmp(argv[1], "--json") == 0;
    if (argc > 1 && !as_json) {
        fputs(_("Usage: posada doctor [--json]\n\n"
                "Says which engine would run a VM on this host and why, and what else is missing.\n"
                "Exit code: 0 when some engine would, 1 when none.\n"),
              cli_wants_help(argc, argv) ? stdout : stderr);
        return cli_wants_help(argc, argv) ? CLI_EXIT_OK : CLI_EXIT_USAGE;
    }
    struct engine_finding f[ENGINE_MAX];
    struct doctor_result r[ARRAY_LEN(checks)];
    memset(r, 0, sizeof(r));
    size_t n = engine_survey(&engine_this_host, f);
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        checks[i].check(&r[i]);
    }
    if (as_json) {
        if (print_json(f, n, r) < 0) {
            return CLI_EXIT_FAILED;
        }
    } else {
        print_text(f, n, r);
    }
    return chosen(f, n) != NULL ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

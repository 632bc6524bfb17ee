/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/run_image.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/appliance.h"
#include "cli/cli.h"
#include "cli/run_mount.h"
#include "cli/run_vm.h"
#include "image/store_vm.h"
#include "vmm/vmconfig.h"

#define AGENT_SECONDS 300 /* for a whole system to start on the software engine */
#define GUEST_CID     3   /* each VM has a vsock of its own: all may have the same */

/* ---- What a run consists of ---- */

struct run {
    struct run_image_opts o;
    struct vmconfig c;
    struct store *s;
    struct store_image image;
    struct store_tmp tmp;
    struct store_vm vm;
    const char *const *command; /* NULL: console */
    bool keep;
    bool memory_given, name_given;
    unsigned ssh_port;
    struct run_mounts mounts;
    char socket[STORE_PATH_MAX + 16];
};

static int parse(struct run *r, struct run_words *w, struct err *err)
{
    int first = 0;
    int rc = schema_parse_options(&run_image_schema, &r->o, w->nown, w->own, &first, err);
    rc = rc < 0 ? rc : schema_parse_options(&vmconfig_schema, &r->c, w->nvm, w->vm, &first, err);
    if (rc < 0) {
        return rc;
    }
    if (w->too_many) {
        return err_set(err, -EINVAL, "one image only (a command goes behind '--')");
    }
    if (r->c.kernel != NULL || r->c.initrd != NULL || r->c.file != NULL) {
        return err_set(err, -EINVAL,
                       "'%s': an image has its own kernel: no --kernel, --initrd or --file",
                       w->image);
    }
    if (r->o.rm && r->o.keep) {
        return err_set(err, -EINVAL, "--rm and --keep exclude each other");
    }
    if (w->command != NULL && w->command[0] == NULL) {
        return err_set(err, -EINVAL, "a command is missing behind '--'");
    }
    if (r->o.ssh && w->command != NULL) {
        return err_set(err, -EINVAL, "--ssh takes no command");
    }
    if (r->o.mount.count > 0 && w->command == NULL && !r->o.ssh) {
        return err_set(err, -EINVAL,
                       "--mount goes with a command or --ssh (at a console: --share)");
    }
    char *const *mounts = r->o.mount.items;
    for (size_t i = 0; i < r->o.mount.count; i++) {
        rc = run_mount_add(&r->mounts, mounts[i], &r->c, err);
        if (rc < 0) {
            return rc;
        }
    }
    r->command = (const char *const *)w->command;
    r->memory_given = run_words_given(w, "memory", 'm');
    r->name_given = run_words_given(w, "name", 0);
    r->keep = !r->o.rm && (r->o.keep || r->name_given);
    return 0;
}

static int set(struct run *r, const char *name, struct err *err, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

static int set(struct run *r, const char *name, struct err *err, const char *fmt, ...)
{
    char *value = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&value, fmt, ap);
    va_end(ap);
    if (n < 0) {
        abort();
    }
    int rc = schema_set(&vmconfig_schema, &r->c, name, value, err);
    free(value);
    return rc;
}

/* "," in a value of a group is doubled (base/schema.h). */
static char *doubled(const char *text, char *buf, size_t len)
{
    size_t n = 0;
    for (; *text != '\0' && n + 3 < len; text++) {
        buf[n++] = *text;
        if (*text == ',') {
            buf[n++] = ',';
        }
    }
    buf[n] = '\0';
    return buf;
}

/* A port of the loopback that is free now. */
static int free_port(unsigned *ret_port, struct err *err)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    CLEANUP_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
        return err_set_errno(err, -errno, "no free port for ssh");
    }
    *ret_port = ntohs(a.sin_port);
    return 0;
}

static int add_network(struct run *r, bool *ret_user, struct err *err)
{
    *ret_user = r->c.net.count == 0;
    if (r->o.ssh) {
        if (r->c.net.count > 0) {
            return err_set(err, -EINVAL, "--ssh makes its own network: no --net");
        }
        int rc = free_port(&r->ssh_port, err);
        return rc < 0 ? rc : set(r, "net", err, "user,hostfwd=tcp:127.0.0.1:%u-:22", r->ssh_port);
    }
    return *ret_user ? set(r, "net", err, "user") : 0;
}

/* Kernel, its command line, disk, network and consoles, from the image and the wishes. */
static int configure(struct run *r, struct err *err)
{
    char path[STORE_PATH_MAX];
    char disk[2 * STORE_PATH_MAX];
    char backing[2 * STORE_PATH_MAX];
    bool alone = r->command != NULL && !r->o.system;
    bool user = false;
    CLEANUP_FREE char *more = take_ptr(&r->c.append);
    int rc = add_network(r, &user, err);
    rc = rc < 0 ? rc
                : set(r, "kernel", err, "%s",
                      store_path(r->s, path, "images/%s/vmlinuz", r->image.id));
    rc = rc < 0 ? rc
                : set(r, "initrd", err, "%s",
                      store_path(r->s, path, "images/%s/initrd.img", r->image.id));
    rc = rc < 0 ? rc
                : set(r, "append", err, "%s%s%s%s", r->image.append != NULL ? r->image.append : "",
                      r->command != NULL || r->o.ssh ? " quiet loglevel=3 panic=-1" : "",
                      alone ? " posada.run" : "", alone && user ? " posada.net=user" : "");
    if (rc == 0 && more != NULL) {
        CLEANUP_FREE char *append = take_ptr(&r->c.append);
        rc = set(r, "append", err, "%s %s", append, more);
    }
    rc = rc < 0 ? rc
                : set(r, "disk", err, "file=%s,format=qcow2,backing=%s,cache=%s",
                      doubled(r->vm.disk, disk, sizeof(disk)),
                      doubled(r->vm.backing, backing, sizeof(backing)),
                      r->keep ? "writeback" : "unsafe");
    if (rc == 0 && r->image.memory != 0 && !r->memory_given) {
        r->c.memory = r->image.memory;
    }
    if (rc == 0 && (r->command != NULL || r->o.ssh)) {
        (void)snprintf(r->socket, sizeof(r->socket), "%s/v", r->tmp.path);
        if (strlen(r->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
            return err_set(err, -ENAMETOOLONG, "the store's path is too long for a socket: '%s'",
                           r->socket);
        }
        rc = set(r, "vsock", err, "%d", GUEST_CID);
        rc = rc < 0 ? rc : set(r, "vsock-path", err, "%s", r->socket);
        rc = rc < 0 ? rc : set(r, "console", err, "file:%s/console", r->tmp.path);
        r->c.no_reboot = true;
    }
    return rc < 0 ? rc : schema_check(&vmconfig_schema, &r->c, err);
}

/* Store, image, disk. */
static int prepare(struct run *r, const char *image, struct err *err)
{
    char id[DIGEST_HEX + 1];
    int rc = store_open(r->o.store, &r->s, err);
    if (rc == 0 && !r->name_given) {
        char name[STORE_NAME_MAX + 1];
        (void)snprintf(name, sizeof(name), "%s",
                       strrchr(image, '/') != NULL ? strrchr(image, '/') + 1 : image);
        name[strcspn(name, ":")] = '\0';
        rc = set(r, "name", err, "%s", name);
    }
    /* A VM that exists goes on with the image that it was made of. */
    struct err none = ERR_INIT;
    if (rc == 0 && r->keep && store_vm_image(r->s, r->c.name, id, &none) == 0) {
        rc = store_find(r->s, id, &r->image, err);
    } else if (rc == 0) {
        rc = appliance_get(r->s, image, &r->image, err);
        if (rc == -ENOENT) {
            rc = err_prefix(
                err, "'%s' is not an image of the store (a kernel is given by --kernel): ", image);
        }
    }
    if (rc == 0 && !r->image.kernel) {
        rc = err_set(err, -ENOTSUP, "'%s' has no kernel in the store: boot its disk otherwise",
                     image);
    }
    if (rc == 0 && (r->command != NULL || r->o.ssh) && !r->image.agent) {
        rc = err_set(err, -ENOTSUP, "'%s' was not built by posada: no commands, no --ssh", image);
    }
    rc = rc < 0 ? rc : store_tmp_new(r->s, &r->tmp, err);
    if (rc == 0) {
        rc = r->keep ? store_vm_open(r->s, r->c.name, r->image.id, &r->vm, err)
                     : store_vm_throwaway(r->s, &r->tmp, r->image.id, &r->vm, err);
    }
    return rc < 0 ? rc : configure(r, err);
}

/* ---- Running ---- */

/* The last lines of the guest's console, which say why it ended. */
static void show_console(const struct run *r)
{
    char path[STORE_PATH_MAX + 16];
    char tail[2001];
    (void)snprintf(path, sizeof(path), "%s/console", r->tmp.path);
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        off_t from = st.st_size > 2000 ? st.st_size - 2000 : 0;
        ssize_t n = pread(fd, tail, sizeof(tail) - 1, from);
        for (ssize_t i = 0; i < n; i++) {
            unsigned char ch = (unsigned char)tail[i];
            if (ch == '\n' || (ch >= 0x20 && ch < 0x7f)) {
                (void)fputc(ch, stderr);
            }
        }
    }
}

static int run_command(struct run *r, struct run_vm *vm, struct err *err)
{
    int fd = run_vm_connect(vm, r->socket, AGENT_SECONDS, err);
    int code = fd < 0 ? fd : run_vm_command(vm, fd, r->command, r->mounts.words, STDIN_FILENO, err);
    if (code == -ESHUTDOWN || code == -ECONNRESET) {
        show_console(r);
    }
    return code;
}

static void no_message(void *opaque)
{
    (void)opaque;
}

/* A key pair of the store, made once; `path` has STORE_PATH_MAX bytes. */
static int ssh_key(const struct run *r, char *path, char **ret_public, struct err *err)
{
    char public[STORE_PATH_MAX + 16];
    (void)store_path(r->s, path, "ssh-key");
    const char *argv[] = { "ssh-keygen", "-q",     "-t", "ed25519", "-N", "",
                           "-C",         "posada", "-f", path,      NULL };
    CLEANUP_FD int lock = store_lock_name(r->s, "ssh-key", no_message, NULL, err);
    int rc =
        lock < 0 ? lock
        : access(path, F_OK) == 0
            ? 0
            : child_run(&(struct child_opts){ .argv = argv, .package = "openssh-client" }, err);
    (void)snprintf(public, sizeof(public), "%s.pub", path);
    const char *cat[] = { "cat", public, NULL };
    return rc < 0 ? rc
                  : child_output(&(struct child_opts){ .argv = cat, .package = "coreutils" }, 4096,
                                 ret_public, err);
}

/* The key goes in through the agent, so the image need not know it. */
static int run_ssh(struct run *r, struct run_vm *vm, struct err *err)
{
    char key[STORE_PATH_MAX];
    char port[16];
    CLEANUP_FREE char *public = NULL;
    int rc = ssh_key(r, key, &public, err);
    if (rc < 0) {
        return rc;
    }
    public[strcspn(public, "\n")] = '\0';
    const char *install[] = {
        "sh",
        "-c",
        "umask 77; cd; mkdir -p .ssh; grep -qsxF \"$1\" "
        ".ssh/authorized_keys || echo \"$1\" >>.ssh/authorized_keys"
        "; i=0; until systemctl -q is-active ssh || [ $i = 600 ]; do sleep .1; "
        "i=$((i+1)); done",
        "sh",
        public,
        NULL
    };
    int fd = run_vm_connect(vm, r->socket, AGENT_SECONDS, err);
    rc = fd < 0 ? fd : run_vm_command(vm, fd, install, r->mounts.words, -1, err);
    if (rc != 0) {
        return rc < 0 ? rc : err_set(err, -EIO, "the key for ssh could not be put into the guest");
    }
    (void)snprintf(port, sizeof(port), "%u", r->ssh_port);
    const char *argv[] = { "ssh",
                           "-i",
                           key,
                           "-p",
                           port,
                           "-o",
                           "IdentitiesOnly=yes",
                           "-o",
                           "StrictHostKeyChecking=no",
                           "-o",
                           "UserKnownHostsFile=/dev/null",
                           "-o",
                           "LogLevel=ERROR",
                           "-o",
                           "ConnectTimeout=60",
                           "root@127.0.0.1",
                           NULL };
    return run_vm_terminal(vm, argv, "openssh-client", err);
}

static int run_it(struct run *r, struct err *err)
{
    struct run_vm vm;
    char **args = schema_to_argv(&vmconfig_schema, &r->c, "posada-vmm");
    if (args == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = run_vm_start(&vm, args, r->command != NULL || r->o.ssh, err);
    free(args);
    if (rc == 0 && r->command != NULL) {
        rc = run_command(r, &vm, err);
    } else if (rc == 0 && r->o.ssh) {
        rc = run_ssh(r, &vm, err);
    } else if (rc == 0) {
        if (r->image.login != NULL) {
            fprintf(stderr, _("login: %s; Ctrl-A x ends the VM\n"), r->image.login);
        }
        rc = run_vm_wait(&vm);
    }
    /* A machine with one command ends by itself; its disk is worth the wait only if it is kept. */
    if (rc >= 0 && r->keep && r->command != NULL && !r->o.system) {
        run_vm_ends_itself(&vm); /* it has no use for a power button */
    }
    run_vm_end(&vm, r->keep);
    run_vm_done(&vm);
    return rc;
}

int run_image_main(struct run_words *w)
{
    struct err err = ERR_INIT;
    struct run *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        abort();
    }
    r->tmp.fd = -1;
    r->vm.fd = -1;
    schema_init(&run_image_schema, &r->o);
    schema_init(&vmconfig_schema, &r->c);
    int code = parse(r, w, &err);
    if (code < 0) {
        code = cli_usage("run", &err);
    } else {
        bool command = r->command != NULL;
        code = prepare(r, w->image, &err);
        code = code < 0 ? code : run_it(r, &err);
        if (code < 0) {
            (void)cli_fail("run", &err);
            code = command ? RUN_IMAGE_FAILED : VMCONFIG_EXIT_FAILED;
        }
    }
    store_vm_close(&r->vm);
    store_tmp_free(&r->tmp);
    store_image_done(&r->image);
    store_close(r->s);
    schema_done(&vmconfig_schema, &r->c);
    schema_done(&run_image_schema, &r->o);
    free(r);
    return code;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files that make a bare Debian an appliance, and the script that runs in it once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/build_int.h"

#define FILES_MAX_PROGRAM (16 * MIB)
#define FILES_MAX_SEED    (1 * MIB)

static int files_load(const char *path, size_t max, char **ret_data, size_t *ret_len,
                      struct err *err)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return err_set_errno(err, -errno, "cannot open '%s'", path);
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max) {
        return err_set(err, -EINVAL, "'%s' is not a file of at most %zu bytes", path, max);
    }
    CLEANUP_FREE char *data = malloc((size_t)st.st_size + 1);
    ssize_t n = data != NULL ? read(fd, data, (size_t)st.st_size) : -1;
    if (n != st.st_size) {
        return err_set_errno(err, -EIO, "cannot read '%s'", path);
    }
    data[n] = '\0';
    *ret_len = (size_t)n;
    *ret_data = take_ptr(&data);
    return 0;
}

static void files_system(const struct build *b, struct tarball_files *f)
{
    tarball_files_print(f, "etc/hostname", 0644, "%s\n", b->hostname);
    tarball_files_print(f, "etc/hosts", 0644,
                        "127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost\n",
                        b->hostname);
    tarball_files_print(f, "etc/fstab", 0644, "UUID=%s / ext4 errors=remount-ro 0 1\n",
                        b->root_uuid);
    tarball_files_print(f, "etc/default/locale", 0644, "LANG=C.UTF-8\n");
    tarball_files_print(f, "etc/systemd/network/20-wired.network", 0644,
                        "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n");
    /* Nobody waits for the network at boot: what needs it can ask for network-online.target. */
    tarball_files_link(f, "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
                       "/lib/systemd/system/systemd-networkd.service");
    /* Keys of the machine, not of the image: made when sshd starts for the first time. */
    tarball_files_print(f, "etc/systemd/system/ssh.service.d/posada.conf", 0644,
                        "[Service]\nExecStartPre=\n"
                        "ExecStartPre=/bin/sh -c 'test -e /etc/ssh/ssh_host_ed25519_key || "
                        "ssh-keygen -q -t ed25519 -N \"\" -f /etc/ssh/ssh_host_ed25519_key'\n"
                        "ExecStartPre=/usr/sbin/sshd -t\n");
    tarball_files_print(f, "etc/ssh/sshd_config.d/posada.conf", 0644,
                        "HostKey /etc/ssh/ssh_host_ed25519_key\n");
    tarball_files_print(f, "etc/systemd/system/posada-agent.service", 0644,
                        "[Unit]\nDescription=Commands from the host (posada)\n"
                        "ConditionVirtualization=vm\n\n"
                        "[Service]\nExecStart=/usr/lib/posada/posada-agent\nRestart=on-failure\n"
                        "KillMode=process\n\n"
                        "[Install]\nWantedBy=multi-user.target\n");
    tarball_files_link(f, "etc/systemd/system/multi-user.target.wants/posada-agent.service",
                       "../posada-agent.service");
    /* After a kernel was upgraded inside: its initrd, like that of the image. */
    tarball_files_print(f, "etc/kernel/postinst.d/zz-posada-initrd", 0755,
                        "#!/bin/sh\nexec /usr/lib/posada/posada-agent initrd \"$1\"\n");
}

/* Commands as they stand, in a shell of their own each, so that a `cd` does not leak. */
static void files_commands(const struct recipe *r, FILE *out)
{
    char *const *commands = r->commands.items;
    for (size_t i = 0; i < r->commands.count; i++) {
        fprintf(out, "echo 'command %zu of the recipe' >&2\n(\n%s\n)\n", i + 1, commands[i]);
    }
}

static void files_users(const struct recipe *r, FILE *out)
{
    const struct recipe_user *users = r->users.items;
    for (size_t i = 0; i < r->users.count; i++) {
        const struct recipe_user *u = &users[i];
        char *const *keys = u->ssh_keys.items;
        fprintf(out, "useradd --create-home --shell /bin/bash --groups '%s' '%s'\n",
                u->groups != NULL ? u->groups : "sudo", u->name);
        if (u->password != NULL) {
            fprintf(out, "usermod --password '%s' '%s'\n", u->password, u->name);
        } else {
            fprintf(out, "echo '%s ALL=(ALL) NOPASSWD: ALL' >'/etc/sudoers.d/%s'\n", u->name,
                    u->name);
        }
        if (u->ssh_keys.count > 0) {
            fprintf(out, "install -d -m 700 -o '%s' -g '%s' '/home/%s/.ssh'\n", u->name, u->name,
                    u->name);
            fprintf(out, "cat >'/home/%s/.ssh/authorized_keys' <<'POSADA-END'\n", u->name);
            for (size_t k = 0; k < u->ssh_keys.count; k++) {
                fprintf(out, "%s\n", keys[k]);
            }
            fprintf(out, "POSADA-END\nchown '%s:' '/home/%s/.ssh/authorized_keys'\n", u->name,
                    u->name);
        }
    }
    /* Without users: root on the console, without a password; sshd lets no empty password in. */
    fputs(r->users.count == 0 ? "passwd -q -d root\n" : "passwd -q -l root\n", out);
}

static void files_script(const struct build *b, struct tarball_files *f)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        abort();
    }
    fputs("set -e\nexport DEBIAN_FRONTEND=noninteractive\n", out);
    files_users(b->recipe, out);
    files_commands(b->recipe, out);
    /* What a machine of its own should not do in its first minutes, and what differs from build to
     * build. */
    fputs("systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer "
          "e2scrub_reap.service\n"
          "systemctl -q disable systemd-networkd-wait-online.service\n"
          "rm -f /etc/ssh/ssh_host_*_key* /etc/apt/apt.conf.d/99mmdebstrap "
          "/etc/dpkg/dpkg.cfg.d/99mmdebstrap /etc/*- /var/cache/ldconfig/aux-cache "
          "/var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*.log /var/log/apt/*\n"
          "rm -f /posada-setup\n",
          out);
    if (fclose(out) != 0) {
        abort();
    }
    tarball_files_add(f, "posada-setup", S_IFREG | 0700, text, len);
    free(text);
}

static int files_cloud_init(const struct build *b, struct tarball_files *f, struct err *err)
{
    static const char *const names[] = { "user-data", "meta-data", "network-config" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char from[STORE_PATH_MAX];
        char to[128];
        CLEANUP_FREE char *data = NULL;
        size_t len = 0;
        (void)snprintf(from, sizeof(from), "%s/%s", b->opts->cloud_init, names[i]);
        (void)snprintf(to, sizeof(to), "var/lib/cloud/seed/nocloud/%s", names[i]);
        if (i == 2 && access(from, F_OK) < 0) { /* the one that may be missing */
            continue;
        }
        int rc = files_load(from, FILES_MAX_SEED, &data, &len, err);
        if (rc < 0) {
            return err_prefix(err, "cloud-init: ");
        }
        tarball_files_add(f, to, S_IFREG | 0600, data, len);
    }
    return 0;
}

int build_files(struct build *b, struct tarball_files *early, struct tarball_files *late,
                struct err *err)
{
    const struct recipe_file *files = b->recipe->files.items;
    bool packages = b->opts->from_dir == NULL && b->opts->from_tar == NULL;
    int rc = files_load(b->opts->agent, FILES_MAX_PROGRAM, &b->agent, &b->agent_len, err);
    if (rc < 0) {
        return rc;
    }
    tarball_files_add(early, "usr/lib/posada/posada-agent", S_IFREG | 0755, b->agent, b->agent_len);
    files_system(b, early);
    for (size_t i = 0; i < b->recipe->files.count; i++) {
        tarball_files_add(early, files[i].path, S_IFREG | (mode_t)strtoul(files[i].mode, NULL, 8),
                          files[i].content, strlen(files[i].content));
    }
    if (b->opts->cloud_init != NULL) {
        rc = files_cloud_init(b, early, err);
    }
    if (packages) {
        files_script(b, early);
        tarball_files_link(late, "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    }
    /* Empty: each machine makes its own, and systemd does not take the boot for a first one. */
    tarball_files_print(late, "etc/machine-id", 0444, "%s", "");
    /* /vmlinuz and /initrd.img are links that Debian keeps on the newest kernel. */
    tarball_files_print(late, "boot/grub/grub.cfg", 0644,
                        "serial --unit=0 --speed=115200\n"
                        "terminal_input console serial\nterminal_output console serial\n"
                        "set timeout=1\n"
                        "menuentry 'Debian' {\n"
                        "  linux /vmlinuz root=UUID=%s ro console=tty0 console=ttyS0,115200\n"
                        "  initrd /initrd.img\n"
                        "}\n",
                        b->root_uuid);
    return rc;
}

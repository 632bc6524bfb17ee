/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Output into a file, which is made with mode 0600 or emptied. A write that the disk refuses
 * (full) ends the recording: logged once, the guest goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vmm/chr/chr_int.h"

static int chr_file_open(struct chr *chr, const char *arg, struct err *err)
{
    /* O_NONBLOCK: a FIFO without a reader is refused, not waited for. */
    CLEANUP_FD int fd = open(
        arg, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_set_errno(err, -errno, "console: cannot open '%s' for writing", arg);
    }
    return chr_set_fds(chr, -1, take_fd(&fd), err);
}

static void chr_file_hangup(struct chr *chr)
{
    log_warn("chr", "console output ends: the file cannot be written", "name='%s'", chr->name);
}

const struct chr_class chr_file_class = {
    .name = "file",
    .arg = "PATH",
    .help = "output only, into a file",
    .open = chr_file_open,
    .hangup = chr_file_hangup,
};

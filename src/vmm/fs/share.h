/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A folder of the host as a FUSE file system: what a guest's requests do to it.
 *
 *     share_new(dir_fd, writable, &s, &err);
 *     n = share_handle(s, request, len, reply, room);   // for each request
 *     share_free(s);
 *
 * The requests are hostile. What confines them, whatever they say:
 *
 *   1. A guest names things by node number and one name without '/'. The way from the folder to a
 *      node is a path of names that the guest has looked up, opened with openat2(): beneath the
 *      folder, no symbolic link on the way, no magic link, no other mount.
 *   2. Only regular files and folders are opened. A symbolic link is text for the guest, which
 *      follows it in its own tree. FIFOs, sockets and devices are seen and never opened.
 *   3. Nothing is made but regular files, folders, links; without set-user-ID and set-group-ID.
 *   4. Owners are not changed: our own user is the guest's root, and the other way round.
 *   5. SHARE_MAX_NODES, SHARE_MAX_HANDLES and SHARE_MAX_IO bound what a guest can make us hold.
 *
 * Protocol: FUSE 7.31 and later, as <linux/fuse.h> has it. One thread.
 */
#ifndef FS_SHARE_H
#define FS_SHARE_H

#include "base/bits.h"
#include "base/err.h"

#define SHARE_MAX_IO      (64 * 1024)           /* bytes of one read or write */
#define SHARE_MAX_MESSAGE (SHARE_MAX_IO + 8192) /* with headers, and two names or a path */
#define SHARE_MAX_NODES   (256 * 1024)          /* about 150 bytes each */
#define SHARE_MAX_HANDLES 1024                  /* open files and folders */

struct share;

/* `dir_fd`: the folder (O_PATH will do); stays the caller's and open. 0, -ENOMEM. */
MUST_USE int share_new(int dir_fd, bool writable, struct share **ret_share, struct err *err);
void share_free(struct share *s); /* accepts NULL */

/* Does the request of `len` bytes and writes the answer, at most `room` bytes, to `reply`. Returns
 * the answer's length; 0: there is none (FORGET, no room for a header, too short a request). May
 * block on the disk. */
size_t share_handle(struct share *s, const void *request, size_t len, void *reply, size_t room);

/* For tests: what the guest makes us hold. */
size_t share_nodes(const struct share *s);
size_t share_handles(const struct share *s);

#endif

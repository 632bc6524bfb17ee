/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where guest data lie: in the image's file, or in an external data file.
 *
 * In an external file every cluster lies at its guest offset. That makes allocation trivial (no
 * refcounts, nothing to search, nothing shared), and an entry that says otherwise is corrupt: QEMU
 * writes no other, and a hostile image could else make a sparse file of any length. What the image
 * adds is which clusters are allocated, and the zero flags. With the "raw" bit the external file
 * alone must show the disk, so zeroes are written there and never only flagged.
 *
 * The file's name in the image is not followed (reliability: an image names no file to open); the
 * user states it. Spec: qcow2.txt of QEMU 7.2, "External data file bit" and "Cluster mapping".
 */
#include <errno.h>

#include "block/fmt_qcow2/qcow2_int.h"

int qcow2_data_open(struct qcow2 *q, const struct blk_opts *opts, struct err *err)
{
    if (!qcow2_data_external(q)) {
        if (opts->data_file != NULL) {
            return err_set(err, -EINVAL,
                           "a data file is named ('%s'), but the image keeps its data itself",
                           opts->data_file);
        }
        q->data = q->file;
        return 0;
    }
    if (q->hdr.nb_snapshots > 0) {
        return err_set(err, -EINVAL, "an image with an external data file cannot have snapshots");
    }
    if (opts->no_backing && opts->data_file == NULL) {
        return 0; /* work on the metadata alone; data cannot be reached */
    }
    return blk_data_file_open(q->blk, opts, &q->data, err);
}

void qcow2_data_close(struct qcow2 *q)
{
    if (q->data != q->file) {
        blk_close(q->data);
    }
    q->data = NULL;
}

int qcow2_data_read(struct qcow2 *q, uint64_t offset, const struct iovec *iov, int niov)
{
    return q->data == NULL ? -EACCES : blk_preadv(q->data, offset, iov, niov);
}

int qcow2_data_write(struct qcow2 *q, uint64_t offset, const struct iovec *iov, int niov)
{
    return q->data == NULL ? -EACCES : blk_pwritev(q->data, offset, iov, niov);
}

void qcow2_data_release(struct qcow2 *q, uint64_t host)
{
    if (q->data != NULL && !qcow2_data_raw(q)) {
        (void)blk_discard(q->data, host, q->cluster_size); /* a hint: the place stays allocated */
    }
}

int qcow2_data_resize(struct qcow2 *q, uint64_t size, struct err *err)
{
    if (!qcow2_data_raw(q)) {
        return 0;
    }
    if (q->data == NULL) {
        return err_set(err, -EACCES, "the data file must be named to change the size of the disk");
    }
    return blk_resize(q->data, size, err);
}

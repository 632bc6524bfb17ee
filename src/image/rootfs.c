/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/rootfs.h"

#include <errno.h>
#include <et/com_err.h>
#include <ext2fs/ext2fs.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define ROOTFS_BLOCK    4096
#define ROOTFS_PATH_MAX 4096
#define ROOTFS_COPY     65536

struct rootfs {
    ext2_filsys fs;
    char *path;
    uint32_t now;
    ext2_ino_t last; /* what rootfs_add() made */
};

/* The features are named, so that the host's mke2fs.conf has no say: Linux 4 and later and GRUB
 * 2.06 know them all. */
#define ROOTFS_FEATURES                                                                            \
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super," \
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum"

int rootfs_make(const struct rootfs_params *p, struct err *err)
{
    char extended[200];
    char blocks[32];
    char fake_time[64];
    (void)snprintf(extended, sizeof(extended),
                   "offset=%" PRIu64 ",hash_seed=%s,lazy_itable_init=0,lazy_journal_init=0,"
                   "root_owner=0:0,nodiscard",
                   p->offset, p->uuid);
    (void)snprintf(blocks, sizeof(blocks), "%" PRIu64, p->size / ROOTFS_BLOCK);
    (void)snprintf(fake_time, sizeof(fake_time), "E2FSPROGS_FAKE_TIME=%" PRId64, p->epoch);
    const char *argv[] = { "mke2fs", "-q",     "-F",    "-t",   "ext4",   "-O",    ROOTFS_FEATURES,
                           "-b",     "4096",   "-I",    "256",  "-i",     "16384", "-m",
                           "1",      "-U",     p->uuid, "-L",   p->label, "-e",    "remount-ro",
                           "-E",     extended, p->path, blocks, NULL };
    const char *env[] = { fake_time, NULL };
    struct child_opts o = { .argv = argv, .env = env, .package = "e2fsprogs", .stop = p->stop };
    return child_run(&o, err);
}

/* libext2fs has errnos and codes of its own. */
static int rootfs_fail(const struct rootfs *fs, struct err *err, errcode_t code, const char *what)
{
    int rc = code > 0 && code < 4096                                                ? -(int)code
             : code == EXT2_ET_BLOCK_ALLOC_FAIL || code == EXT2_ET_INODE_ALLOC_FAIL ? -ENOSPC
             : code == EXT2_ET_FILE_NOT_FOUND                                       ? -ENOENT
                                                                                    : -EIO;
    if (rc == -ENOSPC && code != ENOSPC) {
        return err_set(err, rc, "'%s': the disk is too small: give a larger --size", what);
    }
    return err_set(err, rc, "file system of '%s': '%s': %s", fs->path, what, error_message(code));
}

int rootfs_open(const char *path, uint64_t offset, bool writable, int64_t epoch,
                struct rootfs **ret_fs, struct err *err)
{
    struct rootfs *fs = calloc(1, sizeof(*fs));
    char options[64];
    if (fs == NULL || (fs->path = strdup(path)) == NULL) {
        free(fs);
        return err_set(err, -ENOMEM, "out of memory");
    }
    initialize_ext2_error_table();
    (void)snprintf(options, sizeof(options), "offset=%" PRIu64, offset);
    errcode_t code = ext2fs_open2(path, options, (writable ? EXT2_FLAG_RW : 0) | EXT2_FLAG_64BITS,
                                  0, 0, unix_io_manager, &fs->fs);
    if (code == 0 && writable) {
        code = ext2fs_read_bitmaps(fs->fs);
    }
    if (code != 0) {
        int rc = err_set(err, -EINVAL, "'%s': no ext4 file system that can be used: %s", path,
                         error_message(code));
        if (fs->fs != NULL) {
            ext2fs_free(fs->fs);
        }
        free(fs->path);
        free(fs);
        return rc;
    }
    fs->now = (uint32_t)epoch;
    fs->fs->now = (time_t)epoch;
    *ret_fs = fs;
    return 0;
}

int rootfs_close(struct rootfs *take_fs, struct err *err)
{
    struct rootfs *fs = take_fs;
    if (fs == NULL) {
        return 0;
    }
    errcode_t code = ext2fs_close_free(&fs->fs);
    int rc = code != 0 ? rootfs_fail(fs, err, code, "/") : 0;
    free(fs->path);
    free(fs);
    return rc;
}

/* ---- Adding ---- */

static void rootfs_times(const struct rootfs *fs, const struct rootfs_entry *e,
                         struct ext2_inode_large *inode)
{
    inode->i_mtime = (uint32_t)e->mtime;
    inode->i_atime = inode->i_mtime;
    inode->i_ctime = fs->now;
    inode->i_crtime = fs->now;
    inode->i_extra_isize = sizeof(*inode) - EXT2_GOOD_OLD_INODE_SIZE;
}

static void rootfs_owner(const struct rootfs_entry *e, struct ext2_inode_large *inode)
{
    inode->i_uid = (uint16_t)e->uid;
    inode->i_gid = (uint16_t)e->gid;
    inode->osd2.linux2.l_i_uid_high = (uint16_t)(e->uid >> 16);
    inode->osd2.linux2.l_i_gid_high = (uint16_t)(e->gid >> 16);
}

/* Gives an inode that libext2fs made owner, mode and times. */
static errcode_t rootfs_dress(struct rootfs *fs, ext2_ino_t ino, const struct rootfs_entry *e)
{
    struct ext2_inode_large inode;
    struct ext2_inode *small = (struct ext2_inode *)&inode;
    errcode_t code = ext2fs_read_inode_full(fs->fs, ino, small, sizeof(inode));
    if (code == 0) {
        inode.i_mode = (uint16_t)((inode.i_mode & S_IFMT) | (e->mode & 07777));
        rootfs_owner(e, &inode);
        rootfs_times(fs, e, &inode);
        code = ext2fs_write_inode_full(fs->fs, ino, small, sizeof(inode));
    }
    return code;
}

static errcode_t rootfs_find(struct rootfs *fs, const char *path, ext2_ino_t *ret_ino)
{
    return path[0] == '\0' ? (*ret_ino = EXT2_ROOT_INO, 0)
                           : ext2fs_namei(fs->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ret_ino);
}

static errcode_t rootfs_name(struct rootfs *fs, ext2_ino_t dir, const char *name, ext2_ino_t ino,
                             int type)
{
    errcode_t code = ext2fs_link(fs->fs, dir, name, ino, type);
    if (code == EXT2_ET_DIR_NO_SPACE) {
        code = ext2fs_expand_dir(fs->fs, dir);
        code = code != 0 ? code : ext2fs_link(fs->fs, dir, name, ino, type);
    }
    return code;
}

static errcode_t rootfs_mkdir(struct rootfs *fs, ext2_ino_t dir, const char *name,
                              ext2_ino_t *ret_ino)
{
    errcode_t code = ext2fs_mkdir(fs->fs, dir, 0, name);
    if (code == EXT2_ET_DIR_NO_SPACE) {
        code = ext2fs_expand_dir(fs->fs, dir);
        code = code != 0 ? code : ext2fs_mkdir(fs->fs, dir, 0, name);
    }
    return code != 0 ? code : ext2fs_lookup(fs->fs, dir, name, (int)strlen(name), NULL, ret_ino);
}

static errcode_t rootfs_symlink(struct rootfs *fs, ext2_ino_t dir, const char *name,
                                const char *target, ext2_ino_t *ret_ino)
{
    errcode_t code = ext2fs_symlink(fs->fs, dir, 0, name, target);
    if (code == EXT2_ET_DIR_NO_SPACE) {
        code = ext2fs_expand_dir(fs->fs, dir);
        code = code != 0 ? code : ext2fs_symlink(fs->fs, dir, 0, name, target);
    }
    return code != 0 ? code : ext2fs_lookup(fs->fs, dir, name, (int)strlen(name), NULL, ret_ino);
}

static errcode_t rootfs_hardlink(struct rootfs *fs, ext2_ino_t dir, const char *name,
                                 const char *other, ext2_ino_t *ret_ino)
{
    struct ext2_inode inode;
    errcode_t code = rootfs_find(fs, other, ret_ino);
    code = code != 0 ? code : ext2fs_read_inode(fs->fs, *ret_ino, &inode);
    code = code != 0 ? code : rootfs_name(fs, dir, name, *ret_ino, EXT2_FT_REG_FILE);
    if (code == 0) {
        inode.i_links_count++;
        code = ext2fs_write_inode(fs->fs, *ret_ino, &inode);
    }
    return code;
}

/* A regular file or a FIFO, empty. */
static errcode_t rootfs_new_file(struct rootfs *fs, ext2_ino_t dir, const char *name,
                                 const struct rootfs_entry *e, ext2_ino_t *ret_ino)
{
    struct ext2_inode_large inode = { .i_mode = (uint16_t)e->mode, .i_links_count = 1 };
    struct ext2_inode *small = (struct ext2_inode *)&inode;
    bool file = S_ISREG(e->mode);
    errcode_t code = ext2fs_new_inode(fs->fs, dir, (int)e->mode, NULL, ret_ino);
    code = code != 0 ? code
                     : rootfs_name(fs, dir, name, *ret_ino, file ? EXT2_FT_REG_FILE : EXT2_FT_FIFO);
    if (code != 0) {
        return code;
    }
    ext2fs_inode_alloc_stats2(fs->fs, *ret_ino, +1, 0);
    rootfs_owner(e, &inode);
    rootfs_times(fs, e, &inode);
    if (file) {
        ext2_extent_handle_t handle;
        inode.i_flags |= EXT4_EXTENTS_FL;
        code = ext2fs_extent_open2(fs->fs, *ret_ino, small, &handle); /* makes an empty tree */
        if (code != 0) {
            return code;
        }
        ext2fs_extent_free(handle);
    }
    code = ext2fs_write_new_inode(fs->fs, *ret_ino, small);
    /* That sets the creation time and such by the clock. */
    return code != 0 ? code : ext2fs_write_inode_full(fs->fs, *ret_ino, small, sizeof(inode));
}

static bool rootfs_all_zero(const char *buf, size_t len)
{
    return buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0;
}

/* Copies what `read` gives; blocks of zeroes become holes. */
static int rootfs_content(struct rootfs *fs, const struct rootfs_entry *e, rootfs_read_fn *read,
                          void *opaque, struct err *err)
{
    CLEANUP_FREE char *buf = malloc(ROOTFS_COPY);
    ext2_file_t file = NULL;
    uint64_t size = 0;
    if (buf == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    errcode_t code = ext2fs_file_open(fs->fs, fs->last, EXT2_FILE_WRITE, &file);
    int rc = 0;
    while (code == 0 && rc == 0) {
        size_t have = 0;
        ssize_t n = 1;
        while (have < ROOTFS_COPY && (n = read(opaque, buf + have, ROOTFS_COPY - have, err)) > 0) {
            have += (size_t)n;
        }
        rc = n < 0 ? (int)n : 0;
        if (have == 0 || rc < 0) {
            break;
        }
        unsigned wrote;
        if (rootfs_all_zero(buf, have)) {
            code = ext2fs_file_llseek(file, size + have, EXT2_SEEK_SET, NULL);
        } else {
            code = ext2fs_file_write(file, buf, (unsigned)have, &wrote);
        }
        size += have;
    }
    if (code == 0 && rc == 0) {
        code = ext2fs_file_set_size2(file, (ext2_off64_t)size);
    }
    if (file != NULL) {
        errcode_t closing = ext2fs_file_close(file);
        code = code != 0 ? code : closing;
    }
    code = code != 0 || rc < 0 ? code : rootfs_dress(fs, fs->last, e); /* the times again */
    return rc < 0 ? rc : code != 0 ? rootfs_fail(fs, err, code, e->path) : 0;
}

/* The folder of `path`, made where it is missing; *ret_name is the last component in `path`. */
static errcode_t rootfs_parent(struct rootfs *fs, const struct rootfs_entry *e, ext2_ino_t *ret_dir,
                               const char **ret_name)
{
    char dir[ROOTFS_PATH_MAX];
    const char *slash = strrchr(e->path, '/');
    size_t len = slash != NULL ? (size_t)(slash - e->path) : 0;
    *ret_name = slash != NULL ? slash + 1 : e->path;
    if (len >= sizeof(dir)) {
        return ENAMETOOLONG;
    }
    memcpy(dir, e->path, len);
    dir[len] = '\0';
    /* Links on the way (bin -> usr/bin) are followed, inside of this file system. */
    errcode_t code = dir[0] == '\0'
                         ? (*ret_dir = EXT2_ROOT_INO, 0)
                         : ext2fs_namei_follow(fs->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, dir, ret_dir);
    if (code != EXT2_ET_FILE_NOT_FOUND) {
        return code;
    }
    struct rootfs_entry up = { .path = dir, .mode = S_IFDIR | 0755, .mtime = fs->now };
    struct err ignored = ERR_INIT;
    int rc = rootfs_add(fs, &up, NULL, NULL, &ignored); /* depth is limited by the path's length */
    *ret_dir = fs->last;
    return rc < 0 ? -rc : 0;
}

int rootfs_add(struct rootfs *fs, const struct rootfs_entry *e, rootfs_read_fn *read, void *opaque,
               struct err *err)
{
    ext2_ino_t dir = 0;
    const char *name = NULL;
    ext2_ino_t there = 0;
    errcode_t code = rootfs_parent(fs, e, &dir, &name);
    if (code == 0 && name[0] == '\0') {
        there = EXT2_ROOT_INO;
    } else if (code == 0 &&
               ext2fs_lookup(fs->fs, dir, name, (int)strlen(name), NULL, &there) != 0) {
        there = 0;
    }
    if (code == 0 && there != 0) {
        fs->last = there;
        code = S_ISDIR(e->mode) && ext2fs_check_directory(fs->fs, there) == 0
                   ? rootfs_dress(fs, there, e)
                   : EEXIST;
        return code != 0 ? rootfs_fail(fs, err, code, e->path) : 0;
    }
    if (code == 0 && e->hardlink != NULL) {
        code = rootfs_hardlink(fs, dir, name, e->hardlink, &fs->last);
        return code != 0 ? rootfs_fail(fs, err, code, e->path) : 0;
    }
    if (code == 0 && S_ISDIR(e->mode)) {
        code = rootfs_mkdir(fs, dir, name, &fs->last);
        code = code != 0 ? code : rootfs_dress(fs, fs->last, e);
    } else if (code == 0 && S_ISLNK(e->mode)) {
        code = rootfs_symlink(fs, dir, name, e->target, &fs->last);
        code = code != 0 ? code : rootfs_dress(fs, fs->last, e);
    } else if (code == 0) {
        code = rootfs_new_file(fs, dir, name, e, &fs->last);
        if (code == 0 && read != NULL) {
            return rootfs_content(fs, e, read, opaque, err);
        }
    }
    return code != 0 ? rootfs_fail(fs, err, code, e->path) : 0;
}

int rootfs_set_xattr(struct rootfs *fs, const char *name, const void *value, size_t len,
                     struct err *err)
{
    struct ext2_xattr_handle *h = NULL;
    errcode_t code = ext2fs_xattrs_open(fs->fs, fs->last, &h);
    code = code != 0 ? code : ext2fs_xattrs_read(h);
    code = code != 0 ? code : ext2fs_xattr_set(h, name, value, len);
    if (h != NULL) {
        errcode_t closing = ext2fs_xattrs_close(&h);
        code = code != 0 ? code : closing;
    }
    return code != 0 ? rootfs_fail(fs, err, code, name) : 0;
}

/* ---- Reading ---- */

static errcode_t rootfs_follow(struct rootfs *fs, const char *path, ext2_ino_t *ret_ino)
{
    return ext2fs_namei_follow(fs->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ret_ino);
}

bool rootfs_exists(struct rootfs *fs, const char *path)
{
    ext2_ino_t ino;
    return rootfs_follow(fs, path, &ino) == 0;
}

int rootfs_read_file(struct rootfs *fs, const char *path, size_t max, char **ret_data,
                     size_t *ret_len, struct err *err)
{
    ext2_ino_t ino = 0;
    ext2_file_t file = NULL;
    uint64_t size = 0;
    errcode_t code = rootfs_follow(fs, path, &ino);
    code = code != 0 ? code : ext2fs_file_open(fs->fs, ino, 0, &file);
    code = code != 0 ? code : ext2fs_file_get_lsize(file, (__u64 *)&size);
    if (code == 0 && size > max) {
        (void)ext2fs_file_close(file);
        return err_set(err, -EFBIG, "'%s' has %" PRIu64 " bytes: %zu at most", path, size, max);
    }
    CLEANUP_FREE char *data = code == 0 ? malloc((size_t)size + 1) : NULL;
    size_t have = 0;
    while (code == 0 && data != NULL && have < size) {
        unsigned got = 0;
        code = ext2fs_file_read(file, data + have, (unsigned)MIN(size - have, (uint64_t)(1 << 20)),
                                &got);
        if (got == 0) {
            break;
        }
        have += got;
    }
    if (file != NULL) {
        (void)ext2fs_file_close(file); /* opened for reading: nothing can be lost */
    }
    if (code != 0 || data == NULL) {
        return code != 0 ? rootfs_fail(fs, err, code, path)
                         : err_set(err, -ENOMEM, "out of memory");
    }
    data[have] = '\0';
    *ret_len = have;
    *ret_data = take_ptr(&data);
    return 0;
}

struct rootfs_walk {
    int (*fn)(void *opaque, const char *name);
    void *opaque;
};

static int rootfs_dirent(struct ext2_dir_entry *e, int offset, int blocksize, char *buf,
                         void *opaque)
{
    struct rootfs_walk *w = opaque;
    char name[EXT2_NAME_LEN + 1];
    int len = ext2fs_dirent_name_len(e);
    (void)offset;
    (void)blocksize;
    (void)buf;
    memcpy(name, e->name, (size_t)len);
    name[len] = '\0';
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return 0;
    }
    return w->fn(w->opaque, name) != 0 ? DIRENT_ABORT : 0;
}

int rootfs_list(struct rootfs *fs, const char *path, int (*fn)(void *opaque, const char *name),
                void *opaque, struct err *err)
{
    struct rootfs_walk w = { .fn = fn, .opaque = opaque };
    ext2_ino_t ino = 0;
    errcode_t code = rootfs_follow(fs, path, &ino);
    code = code != 0 ? code : ext2fs_dir_iterate(fs->fs, ino, 0, NULL, rootfs_dirent, &w);
    return code != 0 ? rootfs_fail(fs, err, code, path) : 0;
}

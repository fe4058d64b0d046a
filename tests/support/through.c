/* A FUSE filesystem that shows a directory, and lies when it is asked to exchange two names, or fails as it is told to.
 *
 *     through plain|nothing|hidden|honest SOURCE MOUNTPOINT [FAULTS]
 *
 * plain: the target is destroyed, and the source renamed to its name; nothing: nothing is done; hidden: nor is it, and
 * the inodes are numbered by libfuse, which believes in the exchange, as the kernel does. All are reported as done:
 * there are libraries below real filesystems that do not look at the flags of a rename.
 *
 * FAULTS is a file that is read at each call, with lines of: the call (getattr, readdir, open, ...), the number of its
 * error, and a pattern of fnmatch(3) for the path below MOUNTPOINT.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char *source, *kind, *faults;

/* The error that the call has for this path; 0 for none. */
static int fault(const char *call, const char *path) {
    FILE *lines = faults == NULL ? NULL : fopen(faults, "r");
    char name[32], pattern[256];
    int error, found = 0;
    while (lines != NULL && found == 0 && fscanf(lines, "%31s %d %255s", name, &error, pattern) == 3)
        if (strcmp(name, call) == 0 && fnmatch(pattern, path, 0) == 0)
            found = error;
    if (lines != NULL)
        fclose(lines);
    return found;
}

/* Ends the calling function, which is fs_CALL, where it is to fail. */
#define FAIL(path)                                                                                                     \
    do {                                                                                                               \
        int error_ = fault(__func__ + strlen("fs_"), path);                                                            \
        if (error_ != 0)                                                                                               \
            return -error_;                                                                                            \
    } while (0)

/* The path below the source, in a buffer of the calling thread's own; three, for calls with two names. */
static const char *real(const char *path) {
    static _Thread_local char buffers[3][PATH_MAX];
    static _Thread_local unsigned next;
    char *buffer = buffers[next++ % 3];
    snprintf(buffer, PATH_MAX, "%s%s", source, path);
    return buffer;
}

static int done(long result) { return result == -1 ? -errno : (int)result; }

/* What somebody makes is theirs. */
static int made(int result, const char *path) {
    struct fuse_context *maker = fuse_get_context();
    return result == -1 ? -errno : done(lchown(path, maker->uid, maker->gid));
}

static int fs_getattr(const char *path, struct stat *status, struct fuse_file_info *info) {
    FAIL(path);
    (void)info;
    return done(lstat(real(path), status));
}

static int fs_readlink(const char *path, char *buffer, size_t size) {
    ssize_t length = readlink(real(path), buffer, size - 1);
    if (length == -1)
        return -errno;
    buffer[length] = '\0';
    return 0;
}

static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
                      enum fuse_readdir_flags flags) {
    FAIL(path);
    (void)offset, (void)info, (void)flags;
    DIR *directory = opendir(real(path));
    if (directory == NULL)
        return -errno;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        fill(buffer, entry->d_name, NULL, 0, 0);
    closedir(directory);
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static int fs_rename(const char *from, const char *to, unsigned flags) {
    FAIL(to);
    const char *old = real(from), *new = real(to);
    if (flags == 0 || strcmp(kind, "honest") == 0)
        return done(renameat2(AT_FDCWD, old, AT_FDCWD, new, flags));
    if (strcmp(kind, "plain") == 0) {
        nftw(new, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        return done(rename(old, new));
    }
    return 0;
}

static int fs_mkdir(const char *path, mode_t mode) {
    FAIL(path);
    const char *name = real(path);
    return made(mkdir(name, mode), name);
}

static int fs_symlink(const char *target, const char *path) {
    const char *name = real(path);
    return made(symlink(target, name), name);
}

static int fs_rmdir(const char *path) { return done(rmdir(real(path))); }
static int fs_unlink(const char *path) {
    FAIL(path);
    return done(unlink(real(path)));
}
static int fs_link(const char *from, const char *to) { return done(link(real(from), real(to))); }
static int fs_statfs(const char *path, struct statvfs *status) { return done(statvfs(real(path), status)); }

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *info) {
    (void)info;
    return done(chmod(real(path), mode));
}

static int fs_chown(const char *path, uid_t user, gid_t group, struct fuse_file_info *info) {
    (void)info;
    return done(lchown(real(path), user, group));
}

static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info) {
    (void)info;
    return done(utimensat(AT_FDCWD, real(path), times, AT_SYMLINK_NOFOLLOW));
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *info) {
    FAIL(path);
    (void)info;
    return done(truncate(real(path), size));
}

static int fs_open(const char *path, struct fuse_file_info *info) {
    FAIL(path);
    int descriptor = open(real(path), info->flags);
    info->fh = (uint64_t)descriptor;
    return descriptor == -1 ? -errno : 0;
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *info) {
    FAIL(path);
    const char *name = real(path);
    int descriptor = open(name, info->flags, mode);
    info->fh = (uint64_t)descriptor;
    return made(descriptor, name);
}

static int fs_read(const char *path, char *buffer, size_t size, off_t offset, struct fuse_file_info *info) {
    FAIL(path);
    (void)path;
    return done(pread((int)info->fh, buffer, size, offset));
}

static int fs_write(const char *path, const char *buffer, size_t size, off_t offset, struct fuse_file_info *info) {
    FAIL(path);
    (void)path;
    return done(pwrite((int)info->fh, buffer, size, offset));
}

static int fs_release(const char *path, struct fuse_file_info *info) {
    (void)path;
    return done(close((int)info->fh));
}

static int fs_fsync(const char *path, int only_data, struct fuse_file_info *info) {
    FAIL(path);
    (void)path, (void)only_data;
    return done(fsync((int)info->fh));
}

static int fs_fsyncdir(const char *path, int only_data, struct fuse_file_info *info) {
    (void)only_data, (void)info;
    FAIL(path);
    return 0;
}

static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config) {
    (void)connection;
    if (faults != NULL)
        config->attr_timeout = config->entry_timeout = 0; /* each call comes here */
    config->use_ino = strcmp(kind, "hidden") != 0; /* the inodes are those of the source */
    return NULL;
}

static const struct fuse_operations operations = {
    .init = fs_init,         .getattr = fs_getattr, .readlink = fs_readlink, .readdir = fs_readdir,
    .rename = fs_rename,     .mkdir = fs_mkdir,     .rmdir = fs_rmdir,       .unlink = fs_unlink,
    .symlink = fs_symlink,   .link = fs_link,       .statfs = fs_statfs,     .chmod = fs_chmod,
    .chown = fs_chown,       .utimens = fs_utimens, .truncate = fs_truncate, .create = fs_create,
    .open = fs_open,         .read = fs_read,       .write = fs_write,       .release = fs_release,
    .fsync = fs_fsync,       .fsyncdir = fs_fsyncdir,
};

int main(int count, char **words) {
    if (count != 4 && count != 5)
        return 2;
    kind = words[1];
    source = words[2];
    faults = words[4];
    umask(0);
    char *arguments[] = {words[0], "-f", "-o", "allow_other,default_permissions", words[3], NULL};
    return fuse_main(5, arguments, &operations, NULL);
}

/* A simulated disk that records writes and syncs, and that can fail on demand.
 *
 * It is loaded into a process under test with LD_PRELOAD. Every change to a file below DISK_ROOT is made as usual
 * and recorded, in order, in DISK_LOG. From that log, image.py rebuilds the content of the disk after a power cut
 * at any instant. DISK_CONTROL is a small shared file in which the process itself says which calls should fail
 * (see faults.py). Each of the three variables may be unset.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPENED = 1, CREATED, WRITTEN, TRUNCATED, SYNC_BEGUN, SYNC_ENDED, REMOVED, RENAMED };
enum { FAIL_WRITE = 1, FAIL_SYNC = 2, FAIL_OPEN = 4, FAIL_TRUNCATE = 8, FAIL_READ = 16 };
enum { MAX_FILES = 4096 };

struct entry { /* read by image.py: keep the two in step */
    uint32_t kind;
    uint32_t length; /* of the data that follows this entry */
    int64_t file;    /* inode */
    int64_t offset;
};

struct control { /* written by faults.py: keep the two in step */
    volatile int32_t error;   /* errno to fail with; 0: nothing fails */
    volatile int32_t calls;   /* which calls: FAIL_… */
    volatile int32_t skip;    /* number of calls that succeed first */
    volatile int32_t hits;    /* number of calls that have failed */
    volatile int32_t partial; /* a failing write writes half of its data */
    char suffix[44];          /* only files whose names end with this; "" for all */
};

static char *paths[MAX_FILES];
static int64_t inodes[MAX_FILES];
static const char *root;
static int log_fd = -1;
static struct control *control;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *log_path = getenv("DISK_LOG"), *control_path = getenv("DISK_CONTROL");
    root = getenv("DISK_ROOT");
    if (log_path) log_fd = syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (control_path) {
        int fd = syscall(SYS_openat, AT_FDCWD, control_path, O_RDWR | O_CLOEXEC, 0);
        if (fd < 0) abort();
        control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (control == MAP_FAILED) abort();
    }
}

static void all(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        ssize_t done = syscall(SYS_write, log_fd, at, length);
        if (done <= 0) abort();
        at += done, length -= done;
    }
}

static void note(uint32_t kind, int64_t file, int64_t offset, const void *data, size_t length) {
    if (log_fd < 0) return;
    struct entry entry = {kind, (uint32_t)length, file, offset};
    all(&entry, sizeof entry);
    all(data, length);
}

static int watched(int fd) { return root && fd >= 0 && fd < MAX_FILES && paths[fd]; }

static int fails(const char *path, int call) {
    if (!control || !control->error || !(control->calls & call) || !path) return 0;
    size_t length = strlen(path), wanted = strlen(control->suffix);
    if (length < wanted || strcmp(path + length - wanted, control->suffix)) return 0;
    if (control->skip > 0) return control->skip--, 0;
    control->hits++;
    return errno = control->error;
}

/* Return the absolute path if it is below the root, else NULL. The caller frees it. */
static char *below_root(const char *path) {
    char full[PATH_MAX];
    if (!root || !path) return NULL;
    if (path[0] == '/') {
        if (strlen(path) >= sizeof full) return NULL;
        strcpy(full, path);
    } else {
        if (!getcwd(full, sizeof full) || strlen(full) + strlen(path) + 2 > sizeof full) return NULL;
        strcat(strcat(full, "/"), path);
    }
    return strncmp(full, root, strlen(root)) ? NULL : strdup(full);
}

static int open_watched(int directory, const char *path, int flags, mode_t mode) {
    char *full = directory == AT_FDCWD || (path && path[0] == '/') ? below_root(path) : NULL;
    if (!full) return syscall(SYS_openat, directory, path, flags, mode);
    pthread_mutex_lock(&order);
    struct stat before, now;
    int existed = !stat(full, &before), fd = -1;
    if (!fails(full, FAIL_OPEN)) fd = syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && fd < MAX_FILES && !fstat(fd, &now)) {
        paths[fd] = full;
        inodes[fd] = now.st_ino;
        note(existed ? OPENED : CREATED, now.st_ino, S_ISDIR(now.st_mode), full, strlen(full));
        if (existed && (flags & O_TRUNC) && before.st_size) note(TRUNCATED, now.st_ino, 0, NULL, 0);
    } else {
        int kept = errno;
        free(full);
        errno = kept;
    }
    pthread_mutex_unlock(&order);
    return fd;
}

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...) {        \
        mode_t mode = 0;                                \
        if (flags & (O_CREAT | __O_TMPFILE)) {          \
            va_list more;                               \
            va_start(more, flags);                      \
            mode = va_arg(more, mode_t);                \
            va_end(more);                               \
        }                                               \
        return open_watched(AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                          \
    int name(int directory, const char *path, int flags, ...) { \
        mode_t mode = 0;                                      \
        if (flags & (O_CREAT | __O_TMPFILE)) {                \
            va_list more;                                     \
            va_start(more, flags);                            \
            mode = va_arg(more, mode_t);                      \
            va_end(more);                                     \
        }                                                     \
        return open_watched(directory, path, flags, mode);    \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    if (watched(fd)) {
        pthread_mutex_lock(&order);
        free(paths[fd]);
        paths[fd] = NULL;
        pthread_mutex_unlock(&order);
    }
    return REAL(close)(fd);
}

static ssize_t write_at(int fd, const void *data, size_t length, off64_t offset) {
    pthread_mutex_lock(&order);
    ssize_t done = -1;
    if (fails(paths[fd], FAIL_WRITE)) {
        int kept = errno;
        if (control->partial && length > 1) {
            done = syscall(SYS_pwrite64, fd, data, length / 2, offset);
            if (done > 0) note(WRITTEN, inodes[fd], offset, data, done);
            done = -1;
        }
        errno = kept;
    } else {
        done = syscall(SYS_pwrite64, fd, data, length, offset);
        if (done > 0) note(WRITTEN, inodes[fd], offset, data, done);
    }
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return watched(fd) ? write_at(fd, data, length, offset) : syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
    if (!watched(fd)) return syscall(SYS_write, fd, data, length);
    pthread_mutex_lock(&order);
    ssize_t done = -1;
    if (!fails(paths[fd], FAIL_WRITE)) {
        done = syscall(SYS_write, fd, data, length);
        if (done > 0) note(WRITTEN, inodes[fd], lseek64(fd, 0, SEEK_CUR) - done, data, done);
    }
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t pread64(int fd, void *data, size_t length, off64_t offset) {
    if (watched(fd) && fails(paths[fd], FAIL_READ)) return -1;
    return syscall(SYS_pread64, fd, data, length, offset);
}

ssize_t pread(int fd, void *data, size_t length, off_t offset) { return pread64(fd, data, length, offset); }

int ftruncate64(int fd, off64_t length) {
    if (!watched(fd)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&order);
    int result = -1;
    if (!fails(paths[fd], FAIL_TRUNCATE)) {
        result = syscall(SYS_ftruncate, fd, length);
        if (!result) note(TRUNCATED, inodes[fd], length, NULL, 0);
    }
    pthread_mutex_unlock(&order);
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, long number) {
    if (!watched(fd)) return syscall(number, fd);
    pthread_mutex_lock(&order);
    int failed = fails(paths[fd], FAIL_SYNC);
    int64_t file = inodes[fd];
    if (!failed) note(SYNC_BEGUN, file, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    /* Writes from here on are not covered by this sync. */
    if (failed) return errno = failed, -1;
    int result = syscall(number, fd);
    pthread_mutex_lock(&order);
    if (!result) note(SYNC_ENDED, file, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
    char *full = below_root(path);
    pthread_mutex_lock(&order);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0), kept = errno;
    if (full && !result) note(REMOVED, 0, 0, full, strlen(full));
    pthread_mutex_unlock(&order);
    free(full);
    errno = kept;
    return result;
}

int rename(const char *from, const char *to) {
    char *source = below_root(from), *target = below_root(to);
    pthread_mutex_lock(&order);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), kept = errno;
    if (source && target && !result) {
        char both[2 * PATH_MAX];
        size_t first = strlen(source) + 1, second = strlen(target);
        memcpy(both, source, first);
        memcpy(both + first, target, second);
        note(RENAMED, 0, 0, both, first + second);
    }
    pthread_mutex_unlock(&order);
    free(source);
    free(target);
    errno = kept;
    return result;
}

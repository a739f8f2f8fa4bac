/* Loaded into theta and all that it starts, it lets what they do to files fail, be slow, or be recorded.
   FAULTS names the file of the struct below, which all processes share and the test writes to.
   FAULTS_GROUP is the process group that is killed; without it only the process of the step is. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum mode { OFF, COUNT, KILL, FULL, FAIL, SHORT, SLOW, RECORD };
enum kind { GROWS = 1, CHANGES = 2, READS = 4, SYNCS = 8 };

static struct control {
    uint32_t mode, at, count, kinds, seed, lock, hits, number;
    int64_t shift;
    char place[512], log[512];
} *shared;
static pid_t group;

static int fits(int kinds)
{
    return shared && shared->mode && (shared->kinds & kinds);
}

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("FAULTS"), *victims = getenv("FAULTS_GROUP");
    int fd = file ? NEXT(open)(file, O_RDWR) : -1;
    void *found;

    if (fd < 0)
        return;
    found = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    shared = found == MAP_FAILED ? NULL : found;
    group = victims ? atoi(victims) : 0;
    close(fd);
}

static uint32_t drawn(uint32_t number)
{
    uint32_t word = (shared->seed ^ (number * 2654435761u)) * 2246822519u;
    word ^= word >> 15;
    word *= 3266489917u;
    return word ^ word >> 13;
}

/* One step of a kind; returns the error that it fails with, or 0. */
static int step(int kinds)
{
    uint32_t number;

    if (!fits(kinds))
        return 0;
    number = __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
    switch (shared->mode) {
    case KILL:
        if (number != shared->at)
            return 0;
        shared->hits++;
        if (group)
            kill(-group, SIGKILL);
        kill(getpid(), SIGKILL);
        return 0;
    case FULL:
        if (number < shared->at || !(kinds & GROWS))
            return 0;
        shared->hits++;
        return ENOSPC;
    case FAIL:
        if (number != shared->at)
            return 0;
        shared->hits++;
        return (int)shared->number;
    case SLOW:
        if (drawn(number) % 3 == 0)
            usleep(drawn(number) % 2000);
        return 0;
    }
    return 0;
}

/* Writes what a descriptor is open on; returns whether that is known. */
static int path_of(int fd, char *path, size_t size)
{
    char link[40];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
    return length >= 0;
}

static int is_below(const char *path)
{
    return !strncmp(path, shared->place, strlen(shared->place));
}

static int is_file(int fd)
{
    struct stat info;
    char path[512];

    if (!shared || !shared->mode || fd < 3 || fstat(fd, &info) || !S_ISREG(info.st_mode))
        return 0;
    return path_of(fd, path, sizeof path) && is_below(path);
}

/* Returns whether a path is below the place, and its absolute form. */
static int is_here(int dir, const char *path, char *full, size_t size)
{
    char base[512];

    if (!shared || !shared->mode || !path)
        return 0;
    if (path[0] == '/')
        snprintf(full, size, "%s", path);
    else if (dir == AT_FDCWD ? !!getcwd(base, sizeof base) : path_of(dir, base, sizeof base))
        snprintf(full, size, "%s/%s", base, path);
    else
        return 0;
    return is_below(full);
}

/* -- the record: little-endian, a byte of what it is, inode, offset, two lengths, two texts -- */

static int recording(void)
{
    return shared && shared->mode == RECORD;
}

static void take(void)
{
    uint32_t free = 0;
    while (recording() && !__atomic_compare_exchange_n(&shared->lock, &free, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        free = 0;
        usleep(20);
    }
}

static void give(void)
{
    if (shared)
        __atomic_store_n(&shared->lock, 0, __ATOMIC_SEQ_CST);
}

static void note(char what, uint64_t inode, uint64_t offset, const char *path, const void *data, size_t length)
{
    int fd, kept = errno;
    struct { char what; uint64_t inode, offset; uint32_t first, second; } __attribute__((packed)) head;
    struct iovec parts[3];

    if (!recording())
        return;
    fd = NEXT(open)(shared->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    head.what = what;
    head.inode = inode;
    head.offset = offset;
    head.first = (uint32_t)strlen(path);
    head.second = (uint32_t)length;
    parts[0].iov_base = &head;
    parts[0].iov_len = sizeof head;
    parts[1].iov_base = (void *)path;
    parts[1].iov_len = head.first;
    parts[2].iov_base = (void *)data;
    parts[2].iov_len = length;
    if (fd < 0 || NEXT(writev)(fd, parts, 3) != (ssize_t)(sizeof head + head.first + length))
        abort();
    NEXT(close)(fd);
    errno = kept;
}

static uint64_t inode_of(int fd)
{
    struct stat info;
    return fstat(fd, &info) ? 0 : (uint64_t)info.st_ino;
}

#define FAILS(kinds) { int error = step(kinds); if (error) { errno = error; return -1; } }

/* -- data -- */

/* Systems do not cut a few bytes in two, and libgit2 relies on that when it reads the end of a pack. */
static size_t shorter(size_t size)
{
    if (!fits(GROWS | READS) || shared->mode != SHORT || size < 64)
        return size;
    shared->hits++;
    return 1 + drawn(__atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST)) % (size - 1);
}

ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t done;
    off_t at;

    if (!is_file(fd))
        return NEXT(write)(fd, data, size);
    FAILS(GROWS)
    take();
    at = (fcntl(fd, F_GETFL) & O_APPEND) ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    done = NEXT(write)(fd, data, shorter(size));
    if (done > 0)
        note('w', inode_of(fd), (uint64_t)at, "", data, (size_t)done);
    give();
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    ssize_t done;

    if (!is_file(fd))
        return syscall(SYS_pwrite64, fd, data, size, at);
    FAILS(GROWS)
    take();
    done = syscall(SYS_pwrite64, fd, data, shorter(size), at);
    if (done > 0)
        note('w', inode_of(fd), (uint64_t)at, "", data, (size_t)done);
    give();
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t total = 0, done;

    if (!is_file(fd))
        return NEXT(writev)(fd, parts, count);
    for (int part = 0; part < count; part++) {
        if (!parts[part].iov_len)
            continue;
        done = write(fd, parts[part].iov_base, parts[part].iov_len);
        if (done < 0)
            return total ? total : done;
        total += done;
        if ((size_t)done < parts[part].iov_len)
            break;
    }
    return total;
}

static ssize_t copied(int from, int to, off64_t *in, off64_t *out, size_t size)
{
    char data[1 << 16];
    ssize_t got, done;
    size_t most = size < sizeof data ? size : sizeof data;

    got = in ? pread(from, data, most, *in) : read(from, data, most);
    if (got <= 0)
        return got;
    done = out ? pwrite(to, data, (size_t)got, *out) : write(to, data, (size_t)got);
    if (done < got && !in)
        lseek(from, (done < 0 ? 0 : done) - got, SEEK_CUR);
    if (done > 0 && in)
        *in += done;
    if (done > 0 && out)
        *out += done;
    return done;
}

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags)
{
    return is_file(to) ? copied(from, to, in, out, size) : NEXT(copy_file_range)(from, in, to, out, size, flags);
}

ssize_t sendfile(int to, int from, off_t *in, size_t size)
{
    return is_file(to) ? copied(from, to, in, NULL, size) : syscall(SYS_sendfile, to, from, in, size);
}

ssize_t sendfile64(int to, int from, off64_t *in, size_t size)
{
    return is_file(to) ? copied(from, to, in, NULL, size) : syscall(SYS_sendfile, to, from, in, size);
}

static int cut(int fd, off_t size)
{
    int done;

    if (!is_file(fd))
        return (int)syscall(SYS_ftruncate, fd, size);
    FAILS(GROWS)
    take();
    done = (int)syscall(SYS_ftruncate, fd, size);
    if (!done)
        note('t', inode_of(fd), (uint64_t)size, "", "", 0);
    give();
    return done;
}

int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

ssize_t read(int fd, void *data, size_t size)
{
    if (is_file(fd)) {
        FAILS(READS)
        size = shorter(size);
    }
    return NEXT(read)(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
    if (is_file(fd)) {
        FAILS(READS)
        size = shorter(size);
    }
    return syscall(SYS_pread64, fd, data, size, at);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at) { return pread(fd, data, size, at); }

/* Opens a file once more for reading, while all is recorded; -1 otherwise. */
static int reopened(int fd)
{
    char link[40];

    if (!recording())
        return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
}

/* Notes the whole content of a small file, since what a stream wrote was not seen, and closes it. */
static void note_content(int fd)
{
    static char data[1 << 20];
    ssize_t got;

    if (fd < 0)
        return;
    got = syscall(SYS_pread64, fd, data, sizeof data, 0);
    if (got > 0)
        note('w', inode_of(fd), 0, "", data, (size_t)got);
    NEXT(close)(fd);
}

static int synced(int fd, int (*next)(int))
{
    struct stat info;
    int done, is_ours = shared && shared->mode && !fstat(fd, &info) && (S_ISDIR(info.st_mode) || is_file(fd));

    if (is_ours)
        FAILS(SYNCS)
    take();
    if (is_ours && S_ISREG(info.st_mode))
        note_content(reopened(fd));
    done = next(fd);
    if (!done && is_ours)
        note('s', (uint64_t)info.st_ino, 0, "", "", 0);
    give();
    return done;
}

int fsync(int fd) { return synced(fd, NEXT(fsync)); }
int fdatasync(int fd) { return synced(fd, NEXT(fdatasync)); }

/* -- names -- */

static int opened(int dir, const char *path, int flags, mode_t mode)
{
    char full[1024];
    int fd, was_there, makes = flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE;

    if (!makes || !is_here(dir, path, full, sizeof full))
        return (int)syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
    FAILS(GROWS)
    take();
    was_there = !faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW);
    fd = (int)syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
    if (fd >= 0 && (flags & O_TMPFILE) == O_TMPFILE)
        note('a', inode_of(fd), 0, "", "", 0);
    else if (fd >= 0 && !was_there)
        note('c', inode_of(fd), 0, full, "", 0);
    else if (fd >= 0 && flags & O_TRUNC)
        note('t', inode_of(fd), 0, "", "", 0);
    give();
    return fd;
}

#define OPEN(name, first, dir) \
    int name(first const char *path, int flags, ...) \
    { \
        va_list rest; \
        mode_t mode; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return opened(dir, path, flags, mode); \
    }
#define NOTHING
#define WITH_DIR int dir,

OPEN(open, NOTHING, AT_FDCWD)
OPEN(open64, NOTHING, AT_FDCWD)
OPEN(openat, WITH_DIR, dir)
OPEN(openat64, WITH_DIR, dir)

/* What a stream writes is not seen: its whole content is noted when it is synced or closed. */
#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        char full[1024]; \
        int was_there; \
        FILE *file; \
        if (*mode == 'r' || !is_here(AT_FDCWD, path, full, sizeof full)) \
            return NEXT(name)(path, mode); \
        int error = step(GROWS); \
        if (error) { errno = error; return NULL; } \
        take(); \
        was_there = !access(path, F_OK); \
        file = NEXT(name)(path, mode); \
        if (file) \
            note(was_there ? 't' : 'c', inode_of(fileno(file)), 0, was_there ? "" : full, "", 0); \
        give(); \
        return file; \
    }

FOPEN(fopen)
FOPEN(fopen64)

int fclose(FILE *file)
{
    int fd = fileno(file), again, error, done;

    if (!is_file(fd) || !__fpending(file))
        return NEXT(fclose)(file);
    error = step(GROWS);
    if (error) {
        __fpurge(file);
        NEXT(fclose)(file);
        errno = error;
        return EOF;
    }
    again = reopened(fd);
    done = NEXT(fclose)(file);
    take();
    note_content(again);
    give();
    return done;
}

#define NAMED(what, kinds, name, dir, params, call) \
    int name params \
    { \
        char full[1024]; \
        int done, here = is_here(dir, path, full, sizeof full); \
        if (here) \
            FAILS(kinds) \
        take(); \
        done = (int)call; \
        if (!done && here) \
            note(what, 0, 0, full, "", 0); \
        give(); \
        return done; \
    }

NAMED('u', CHANGES, unlink, AT_FDCWD, (const char *path), syscall(SYS_unlink, path))
NAMED(flags & AT_REMOVEDIR ? 'd' : 'u', CHANGES, unlinkat, dir, (int dir, const char *path, int flags),
      syscall(SYS_unlinkat, dir, path, flags))
NAMED('d', CHANGES, rmdir, AT_FDCWD, (const char *path), syscall(SYS_rmdir, path))
NAMED('m', GROWS, mkdir, AT_FDCWD, (const char *path, mode_t mode), syscall(SYS_mkdir, path, mode))
NAMED('m', GROWS, mkdirat, dir, (int dir, const char *path, mode_t mode), syscall(SYS_mkdirat, dir, path, mode))

static int moved(char what, int from_dir, const char *from, int dir, const char *path, long call, int flags)
{
    char source[1024], full[1024];
    struct stat info;
    int done, here = is_here(dir, path, full, sizeof full);

    if (here)
        FAILS(what == 'l' ? GROWS : CHANGES)
    take();
    if (call == SYS_linkat)
        done = (int)syscall(SYS_linkat, from_dir, from, dir, path, flags);
    else
        done = (int)syscall(SYS_renameat2, from_dir, from, dir, path, flags);
    if (!done && here && recording()) {
        is_here(from_dir, from, source, sizeof source);
        if (fstatat(dir, path, &info, AT_SYMLINK_NOFOLLOW))
            info.st_ino = 0;
        note(what, (uint64_t)info.st_ino, 0, full, source, strlen(source));
    }
    give();
    return done;
}

int rename(const char *from, const char *path)
{
    return moved('r', AT_FDCWD, from, AT_FDCWD, path, SYS_renameat2, 0);
}

int renameat(int from_dir, const char *from, int dir, const char *path)
{
    return moved('r', from_dir, from, dir, path, SYS_renameat2, 0);
}

int link(const char *from, const char *path)
{
    return moved('l', AT_FDCWD, from, AT_FDCWD, path, SYS_linkat, 0);
}

int linkat(int from_dir, const char *from, int dir, const char *path, int flags)
{
    return moved('l', from_dir, from, dir, path, SYS_linkat, flags);
}

int symlink(const char *to, const char *path)
{
    char full[1024];
    int done, here = is_here(AT_FDCWD, path, full, sizeof full);

    if (here)
        FAILS(GROWS)
    take();
    done = (int)syscall(SYS_symlink, to, path);
    if (!done && here)
        note('y', 0, 0, full, to, strlen(to));
    give();
    return done;
}

/* -- the clock -- */

static int64_t shift(void)
{
    return shared ? shared->shift : 0;
}

time_t time(time_t *place)
{
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    now.tv_sec += shift();
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict place, void *restrict zone)
{
    int done = (int)syscall(SYS_gettimeofday, place, zone);
    if (!done && place)
        place->tv_sec += shift();
    return done;
}

int clock_gettime(clockid_t clock, struct timespec *place)
{
    int done = (int)syscall(SYS_clock_gettime, clock, place);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        place->tv_sec += shift();
    return done;
}

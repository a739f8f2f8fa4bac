/* Loaded into git, it counts what git does to files, and kills git before step DIES_AT.
   DIES_COUNT names the file that holds the number of steps so far, of all processes together.
   DIES_GROUP is the process group that is killed; without it only the process of the step is. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static unsigned *steps, last;
static pid_t group;

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("DIES_COUNT"), *at = getenv("DIES_AT"), *victims = getenv("DIES_GROUP");
    int fd = file ? NEXT(open)(file, O_RDWR) : -1;

    if (fd < 0)
        return;
    steps = mmap(NULL, sizeof *steps, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    last = at ? atoi(at) : 0;
    group = victims ? atoi(victims) : 0;
    close(fd);
}

static void step(const char *what, const char *path)
{
    if (!steps || __atomic_add_fetch(steps, 1, __ATOMIC_SEQ_CST) != last)
        return;
    dprintf(2, "killed before %s %s\n", what, path);
    kill(group ? -group : getpid(), SIGKILL);
    if (group)
        kill(getpid(), SIGKILL);
}

static int is_file(int fd)
{
    struct stat info;
    return fd > 2 && !fstat(fd, &info) && S_ISREG(info.st_mode);
}

#define STEP(type, name, params, args) \
    type name params { step(#name, path); return NEXT(name) args; }

STEP(int, rename, (const char *from, const char *path), (from, path))
STEP(int, unlink, (const char *path), (path))
STEP(int, rmdir, (const char *path), (path))
STEP(int, mkdir, (const char *path, mode_t mode), (path, mode))
STEP(int, link, (const char *from, const char *path), (from, path))
STEP(int, symlink, (const char *to, const char *path), (to, path))

#define WRITE(type, name, params, args) \
    type name params { if (is_file(fd)) step(#name, ""); return NEXT(name) args; }

WRITE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRITE(int, ftruncate, (int fd, off_t size), (fd, size))
WRITE(int, ftruncate64, (int fd, off64_t size), (fd, size))

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list rest; \
        mode_t mode; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
        if (flags & (O_CREAT | O_TRUNC)) \
            step(#name, path); \
        return NEXT(name)(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { if (*mode != 'r') step(#name, path); return NEXT(name)(path, mode); }

FOPEN(fopen)
FOPEN(fopen64)

int fclose(FILE *file)
{
    int fd = fileno(file);
    if (fd > 2 && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY && is_file(fd))
        step("fclose", "");
    return NEXT(fclose)(file);
}

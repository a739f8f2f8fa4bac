/* Hands its arguments, directory, environment and standard streams over to the server.
   It does what _CLIENT of server.py does, in a tenth of the time that Python takes to start.
   Other modules than theta are run by Python itself. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static char *body;
static uint32_t length;

static void add(const char *field)
{
    size_t size = strlen(field) + 1;
    body = realloc(body, length + size);
    if (!body)
        exit(137);
    memcpy(body + length, field, size);
    length += size;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    char pid[24], count[24], *cwd = getcwd(NULL, 0), *sent;
    union { struct cmsghdr head; char room[CMSG_SPACE(3 * sizeof(int))]; } rights = {0};
    unsigned char head[4], code = 137;
    struct iovec part = {head, sizeof head};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights,
                             .msg_controllen = sizeof rights};
    int streams[] = {0, 1, 2}, connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (argc > 3 && strcmp(argv[3], "theta")) {
        argv[0] = PYTHON;
        execv(PYTHON, argv);
        return 137;
    }
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    snprintf(count, sizeof count, "%d", argc > 4 ? argc - 4 : 0);
    add(pid);
    add(cwd ? cwd : "/");
    add(count);
    for (int i = 4; i < argc; i++)
        add(argv[i]);
    for (char **variable = environ; *variable; variable++)
        add(*variable);
    for (int i = 0; i < 4; i++)
        head[i] = length >> 8 * i;
    rights.head.cmsg_level = SOL_SOCKET;
    rights.head.cmsg_type = SCM_RIGHTS;
    rights.head.cmsg_len = CMSG_LEN(sizeof streams);
    memcpy(CMSG_DATA(&rights.head), streams, sizeof streams);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) || sendmsg(connection, &message, 0) != 4)
        return 137;
    for (sent = body; length;) {
        ssize_t done = write(connection, sent, length);
        if (done <= 0)
            return 137;
        sent += done;
        length -= done;
    }
    return read(connection, &code, 1) == 1 ? code : 137;
}

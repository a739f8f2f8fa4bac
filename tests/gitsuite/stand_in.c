/* The `git` of a script of git's test suite.

   It hands the commands of COMMANDS to theta, by way of a server that has it loaded, and becomes the
   real git for all others. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static const char *commands = " " COMMANDS " ";
static const char *with_value[] = {"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--config-env",
                                   "--super-prefix", "--exec-path", NULL};
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

/* Return the command of the line; NULL if there is none. */
static const char *command_of(int argc, char **argv)
{
    for (int at = 1; at < argc; at++) {
        if (argv[at][0] != '-')
            return argv[at];
        for (int one = 0; with_value[one]; one++)
            if (!strcmp(argv[at], with_value[one]) && strcmp(argv[at], "--exec-path"))
                at++;
    }
    return NULL;
}

static int is_for_theta(const char *command)
{
    char word[80];
    if (!command || strlen(command) > 70 || getenv("THETA_STAND_IN_OFF"))
        return 0;
    snprintf(word, sizeof word, " %s ", command);
    return strstr(commands, word) != NULL;
}

static int ask(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    char number[24], *cwd = getcwd(NULL, 0), *sent;
    union { struct cmsghdr head; char room[CMSG_SPACE(3 * sizeof(int))]; } rights = {0};
    unsigned char head[4], code = 137;
    struct iovec part = {head, sizeof head};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights,
                             .msg_controllen = sizeof rights};
    int streams[] = {0, 1, 2}, connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t mask = umask(0);

    snprintf(number, sizeof number, "%d", (int)getpid());
    add(number);
    add(cwd ? cwd : "/");
    snprintf(number, sizeof number, "%d", argc - 1);
    add(number);
    for (int at = 1; at < argc; at++)
        add(argv[at]);
    for (char **variable = environ; *variable; variable++)
        add(*variable);
    snprintf(number, sizeof number, "STAND_IN_UMASK=%o", (unsigned)mask);
    add(number);
    for (int at = 0; at < 4; at++)
        head[at] = length >> 8 * at;
    rights.head.cmsg_level = SOL_SOCKET;
    rights.head.cmsg_type = SCM_RIGHTS;
    rights.head.cmsg_len = CMSG_LEN(sizeof streams);
    memcpy(CMSG_DATA(&rights.head), streams, sizeof streams);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) ||
        sendmsg(connection, &message, 0) != sizeof head) {
        fprintf(stderr, "stand-in: the server is gone\n");
        return 137;
    }
    for (sent = body; length;) {
        ssize_t count = write(connection, sent, length);
        if (count <= 0)
            return 137;
        sent += count;
        length -= count;
    }
    if (read(connection, &code, 1) != 1)
        return 137;
    return code;
}

int main(int argc, char **argv)
{
    if (is_for_theta(command_of(argc, argv)))
        return ask(argc, argv);
    argv[0] = REAL;
    execv(REAL, argv);
    perror(REAL);
    return 127;
}

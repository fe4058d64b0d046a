/* The floor of an extraction: creates the files, and nothing else.
 *
 *   create DIRECTORY < LIST
 *
 * LIST has a line for each entry: "d PATH" a directory, "f SIZE PATH" a file, parents before their children. Files are
 * filled from one buffer of noise. No archive is read, nothing is decompressed or verified; modes, times and owners are
 * what they come out as, and nothing is written through to the disk.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 20 };

static void fail(const char *what)
{
    fprintf(stderr, "create: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void create(int directory, const char *path, long size, const char *noise)
{
    int file = openat(directory, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0)
        fail(path);
    while (size > 0) {
        ssize_t written = write(file, noise, size < BUFFER ? (size_t)size : BUFFER);
        if (written < 0)
            fail(path);
        size -= written;
    }
    if (close(file) < 0)
        fail(path);
}

int main(int count, char **arguments)
{
    char *noise = malloc(BUFFER), *line = NULL;
    size_t room = 0;
    if (count != 2 || !noise)
        return 2;
    int directory = open(arguments[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        fail(arguments[1]);
    unsigned state = 1;
    for (int at = 0; at < BUFFER; at++) {
        state = state * 1103515245u + 12345u;
        noise[at] = (char)(state >> 16);
    }
    while (getline(&line, &room, stdin) > 0) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == 'd') {
            if (mkdirat(directory, line + 2, 0755) < 0)
                fail(line + 2);
        } else {
            char *path;
            long size = strtol(line + 2, &path, 10);
            create(directory, path + 1, size, noise);
        }
    }
    return 0;
}

/* The floor of a swap: the bare system calls, one after the other.
 *
 *   swap exchange PATH LIVE COUNT     exchanges two directories
 *   swap rename TARGET LIVE COUNT     renames a new symbolic link to TARGET over LIVE; making the link is not counted
 *   swap twice PATH LIVE COUNT        renames LIVE away, PATH to LIVE, and what was live to PATH; the last not counted
 *
 * Prints the nanoseconds that each took.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    fprintf(stderr, "swap: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    const char *how = argv[1], *path = argv[2], *live = argv[3];
    char aside[PATH_MAX];
    snprintf(aside, sizeof aside, "%s.aside", live);
    for (long count = atol(argv[4]); count > 0; count--) {
        if (!strcmp(how, "rename") && symlink(path, aside) < 0)
            fail("symlink");
        long begin = now();
        if (!strcmp(how, "exchange")) {
            if (renameat2(AT_FDCWD, path, AT_FDCWD, live, RENAME_EXCHANGE) < 0)
                fail("renameat2");
        } else if (!strcmp(how, "rename")) {
            if (rename(aside, live) < 0)
                fail("rename");
        } else if (rename(live, aside) < 0 || rename(path, live) < 0) {
            fail("rename");
        }
        printf("%ld\n", now() - begin);
        if (!strcmp(how, "twice") && rename(aside, path) < 0)
            fail("rename");
    }
    return 0;
}

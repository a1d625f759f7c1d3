#include "temp.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[3000];
static pid_t owner; /* a forked child must not remove its parent's folder, and makes its own */

static void remove_folder(void) {
    char path[3400];
    DIR *d = owner == getpid() ? opendir(folder) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (unlink(path) != 0) /* folders are only ever empty ones; "." and ".." refuse */
            rmdir(path);
    }
    if (d) {
        closedir(d);
        rmdir(folder);
    }
}

const char *temp_path(const char *name) {
    static char path[16][3400];
    static int next;
    if (owner != getpid()) {
        const char *tmp = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%.2900s/tessera-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(folder)) {
            perror(folder);
            abort();
        }
        owner = getpid();
        atexit(remove_folder);
    }
    char *p = path[next++ % 16];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

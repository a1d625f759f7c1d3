/* Settings and recent files, kept in the cache folder; folders that are followed; where the demo
 * is. */
#include "app.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool files_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---------------------------------------------------------------- settings */

static bool cache_folder(char *path, size_t size) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = base && *base == '/' ? snprintf(path, size, "%s/tessera", base)
            : home && *home      ? snprintf(path, size, "%s/.cache/tessera", home)
                                 : -1;
    return n > 0 && n < (int)size;
}

typedef struct entry {
    const char *name;
    bool *flag;
    int64_t *number;
} entry;

enum { ENTRIES = 20 };

/* What is kept, by name. */
static int list_entries(app *a, entry *e) {
    int n = 0;
    e[n++] = (entry){"tile_width", NULL, &a->set.value[DIAL_TILE_WIDTH]};
    e[n++] = (entry){"tile_height", NULL, &a->set.value[DIAL_TILE_HEIGHT]};
    e[n++] = (entry){"overlap", NULL, &a->set.value[DIAL_OVERLAP]};
    e[n++] = (entry){"vram", NULL, &a->set.value[DIAL_VRAM]};
    e[n++] = (entry){"precision", NULL, &a->set.value[DIAL_PRECISION]};
    e[n++] = (entry){"caches", NULL, &a->set.value[DIAL_CACHES]};
    e[n++] = (entry){"linked", &a->set.linked, NULL};
    e[n++] = (entry){"blend", &a->set.blend, NULL};
    e[n++] = (entry){"panel", &a->look.panel, NULL};
    e[n++] = (entry){"loop", &a->look.loop, NULL};
    e[n++] = (entry){"nearest", &a->look.nearest, NULL};
    e[n++] = (entry){"grid", &a->look.grid, NULL};
    e[n++] = (entry){"seams", &a->look.seams, NULL};
    e[n++] = (entry){"weights", &a->look.weights, NULL};
    e[n++] = (entry){"heat", &a->look.heat, NULL};
    return n;
}

static void take_line(app *a, char *line) {
    entry e[ENTRIES];
    int n = list_entries(a, e);
    line[strcspn(line, "\n")] = 0;
    char *value = strchr(line, '=');
    if (!value)
        return;
    *value++ = 0;
    if (strcmp(line, "recent") == 0)
        for (int i = 0; i < RECENTS; i++)
            if (!*a->recent[i]) {
                snprintf(a->recent[i], sizeof a->recent[i], "%s", value);
                break;
            }
    for (int i = 0; i < n; i++)
        if (strcmp(line, e[i].name) == 0) {
            long long v = strtoll(value, NULL, 10);
            if (e[i].flag)
                *e[i].flag = v != 0;
            else if (v >= -1)
                *e[i].number = v;
        }
}

/* What is kept may be anything: numbers that are no setting become auto. */
static void check(settings *s) {
    static const int64_t most[DIALS] = {
        1 << 20, 1 << 20, 1 << 16, INT64_C(1) << 50, TSR_PRECISION_INT8, TSR_CACHES_HOST};
    for (int d = 0; d < DIALS; d++) {
        int64_t least = d == DIAL_OVERLAP ? -1 : 0;
        if (s->value[d] < least || s->value[d] > most[d])
            s->value[d] = least;
    }
}

void files_load(app *a) {
    char dir[3072], path[PATH_MOST], line[PATH_MOST + 32];
    a->set = (settings){.value[DIAL_OVERLAP] = -1, .linked = true, .blend = true};
    a->look = (look){.panel = true, .loop = true, .gain = 8};
    FILE *f = NULL;
    if (cache_folder(dir, sizeof dir)) {
        snprintf(path, sizeof path, "%s/view", dir);
        f = fopen(path, "r");
    }
    while (f && fgets(line, sizeof line, f))
        take_line(a, line);
    if (f)
        fclose(f);
    check(&a->set);
}

void files_save(app *a) {
    char dir[3072], path[PATH_MOST], part[PATH_MOST + 8];
    entry e[ENTRIES];
    int n = list_entries(a, e);
    if (!cache_folder(dir, sizeof dir))
        return;
    for (char *s = dir + 1; *s; s++)
        if (*s == '/') {
            *s = 0;
            mkdir(dir, 0700);
            *s = '/';
        }
    mkdir(dir, 0700);
    snprintf(path, sizeof path, "%s/view", dir);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = fopen(part, "w");
    if (!f)
        return; /* a folder that cannot be written is no failure of the window */
    for (int i = 0; i < n; i++)
        fprintf(f, "%s=%lld\n", e[i].name, e[i].flag ? (long long)*e[i].flag : (long long)*e[i].number);
    for (int i = 0; i < RECENTS && *a->recent[i]; i++)
        fprintf(f, "recent=%s\n", a->recent[i]);
    if (fclose(f) != 0 || rename(part, path) != 0)
        unlink(part);
}

void files_remember(app *a, const char *path) {
    char full[PATH_MOST];
    if (strchr(path, '\n') || !realpath(path, full))
        return;
    int at = 0;
    while (at < RECENTS - 1 && strcmp(a->recent[at], full) != 0)
        at++;
    memmove(a->recent[1], a->recent[0], (size_t)at * sizeof *a->recent);
    snprintf(a->recent[0], sizeof a->recent[0], "%s", full);
}

/* ---------------------------------------------------------------- folders, the demo */

static bool is_latent(const app *a, const char *path) {
    const tsr_model_info *m = tsr_model_get_info(a->model);
    tsr_latent_params params = a->o->latent;
    params.channels = m->latent_channels;
    params.model_scale = m->latent_scale;
    tsr_latent *z = NULL;
    bool is = tsr_latent_open(&z, path, &params) == TSR_OK;
    tsr_latent_close(&z);
    return is;
}

/* A file that is still being written does not open as a latent, and is looked at again the next
 * time. */
bool files_newest(const app *a, char *path, size_t size, long long *newest) {
    DIR *d = opendir(a->folder);
    bool found = false;
    for (struct dirent *e; d && (e = readdir(d));) {
        char at[PATH_MOST];
        struct stat st;
        if (e->d_name[0] == '.' || snprintf(at, sizeof at, "%s/%s", a->folder, e->d_name) >= (int)sizeof at)
            continue;
        if (stat(at, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        long long written = (long long)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
        if (written > *newest && is_latent(a, at)) {
            *newest = written;
            snprintf(path, size, "%s", at);
            found = true;
        }
    }
    if (d)
        closedir(d);
    return found;
}

bool files_demo(char *path, size_t size, const char *name) {
    static const char *const places[] = {"../share/tessera", "../assets", "../../assets"};
    char program[PATH_MOST];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    char *slash = n > 0 ? (program[n] = 0, strrchr(program, '/')) : NULL;
    if (!slash)
        return false;
    *slash = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (snprintf(path, size, "%s/%s/%s", program, places[i], name) < (int)size && access(path, R_OK) == 0)
            return true;
    return false;
}

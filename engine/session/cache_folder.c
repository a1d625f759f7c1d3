#include "session/cache_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SAMPLES = 16, SAMPLE = 4096, MOST = 1 << 20 };

/* FNV-1a. */
static uint64_t mix(uint64_t h, const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

tsr_status tsr_model_key(const tsr_model *m, uint64_t *out) {
    const tsr_model_info *i = tsr_model_get_info(m);
    unsigned char page[SAMPLE];
    FILE *f = fopen(i->path, "rb");
    if (!f)
        return tsr_fail(TSR_ERR_IO, "cannot read: %s: %s", i->path, strerror(errno));
    uint64_t h = mix(0xcbf29ce484222325u, (const unsigned char *)&i->file_bytes, sizeof i->file_bytes);
    for (int s = 0; s < SAMPLES; s++) {
        if (fseek(f, (long)(i->file_bytes / SAMPLES * s), SEEK_SET) != 0)
            break;
        h = mix(h, page, fread(page, 1, sizeof page, f));
    }
    bool failed = ferror(f);
    fclose(f);
    *out = h;
    return failed ? tsr_fail(TSR_ERR_IO, "cannot read: %s", i->path) : TSR_OK;
}

static bool folder(char *path, size_t size) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = base && *base == '/' ? snprintf(path, size, "%s/tessera", base)
            : home && *home      ? snprintf(path, size, "%s/.cache/tessera", home)
                                 : -1;
    return n > 0 && n < (int)size;
}

static void make_folders(char *path) {
    for (char *s = path + 1; *s; s++)
        if (*s == '/') {
            *s = 0;
            mkdir(path, 0700);
            *s = '/';
        }
    mkdir(path, 0700);
}

char *tsr_cache_read(const char *name) {
    char dir[3072], path[4096];
    if (!folder(dir, sizeof dir))
        return NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    char *text = f ? malloc(MOST + 1) : NULL;
    if (text)
        text[fread(text, 1, MOST, f)] = 0;
    if (f)
        fclose(f);
    return text;
}

void tsr_cache_write(const char *name, const char *text) {
    char dir[3072], path[4096], part[4160];
    if (!folder(dir, sizeof dir))
        return;
    make_folders(dir);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(part, sizeof part, "%s.%ld.part", path, (long)getpid());
    FILE *f = fopen(part, "wb");
    bool written = f && fputs(text, f) >= 0;
    written = f && fclose(f) == 0 && written;
    if (!written || rename(part, path) != 0) {
        tsr_log(TSR_LOG_DEBUG, "not kept: %s: %s", path, strerror(errno));
        unlink(part);
    }
}

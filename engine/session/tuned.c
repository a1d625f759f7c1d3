/* What tune found, kept in the cache folder for plans to come: one file for a device, model and precision. */
#include "session/cache_folder.h"
#include "session/session.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static bool name_of(char name[128], tsr_engine *e, const tsr_model *m, tsr_precision precision) {
    tsr_target target = {0};
    uint64_t key;
    e->backend->v->target(e->backend, &target);
    if (tsr_model_key(m, &key) != TSR_OK)
        return false;
    int n = snprintf(name, 128, "tune-%016llx-%s-%d-%s", (unsigned long long)key, tsr_precision_name(precision),
        e->params.threads, target.name);
    for (char *s = name; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '.')
            *s = '-';
    return n < 128;
}

void tsr_tuned_keep(tsr_engine *e, const tsr_model *m, tsr_precision precision, int width, int height) {
    char name[128], text[128];
    snprintf(text, sizeof text, "%d %d\n", width, height);
    if (name_of(name, e, m, precision))
        tsr_cache_write(name, text);
}

bool tsr_tuned_tile(tsr_engine *e, const tsr_model *m, tsr_precision precision, int *width, int *height) {
    char name[128];
    char *text = name_of(name, e, m, precision) ? tsr_cache_read(name) : NULL;
    bool found = text && sscanf(text, "%d %d", width, height) == 2 && *width > 0 && *height > 0;
    free(text);
    return found;
}

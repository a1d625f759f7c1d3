/* tessera inspect */
#include "cli.h"

#include <string.h>
#include <tessera/inspect.h>

struct listing {
    const char *path;
    char section[32]; /* the one being printed */
};

static void on_fact(void *user, const char *section, const char *key, const char *value) {
    struct listing *l = user;
    if (json_wanted()) {
        json j;
        json_begin(&j, "inspect");
        json_text(&j, "file", l->path);
        json_text(&j, "section", section);
        json_text(&j, "key", key);
        json_text(&j, "value", value);
        json_end(&j);
        return;
    }
    if (strcmp(l->section, section) != 0) {
        printf("%s%s\n", *l->section ? "\n" : "", section);
        snprintf(l->section, sizeof l->section, "%s", section);
    }
    printf("  %-*s %s\n", strcmp(section, "tensors") == 0 ? 60 : 18, key, value);
}

int cmd_inspect(const options *o) {
    int worst = EXIT_OK;
    for (int i = 0; i < o->count; i++) {
        if (i && !json_wanted())
            putchar('\n');
        struct listing l = {.path = o->args[i]};
        int status = failed(tsr_inspect(o->args[i], on_fact, &l));
        worst = status ? status : worst;
    }
    return worst;
}

/* tessera info */
#include "cli.h"

static void on_line(void *user, const char *key, const char *value) {
    (void)user;
    if (!json_wanted()) {
        printf("%-16s %s\n", key, value);
        return;
    }
    json j;
    json_begin(&j, "info");
    json_text(&j, "key", key);
    json_text(&j, "value", value);
    json_end(&j);
}

int cmd_info(const options *o) {
    tsr_engine *e = NULL;
    on_line(NULL, "tessera", tsr_version());
    int status = create_engine(&e, o);
    if (status == EXIT_OK)
        status = failed(tsr_engine_report(e, on_line, NULL));
    tsr_engine_destroy(&e);
    return status;
}

/* tessera plan */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A size where it looks like one and no file has that name. */
static int find_extent(tsr_extent *out, const options *o, const tsr_model *m) {
    const char *what = o->args[0];
    if (what[strspn(what, "0123456789x")] == 0 && access(what, F_OK) != 0)
        return parse_extent(out, what, m);
    tsr_latent *z = NULL;
    int status = open_latent(&z, what, o, m);
    if (status == EXIT_OK) {
        const tsr_latent_info *i = tsr_latent_get_info(z);
        *out = (tsr_extent){i->frames, i->height, i->width};
        if (i->videos > 1)
            say(TSR_LOG_INFO, "batch: %d videos, decoded one after the other", i->videos);
    }
    tsr_latent_close(&z);
    return status;
}

static int print_plan(const tsr_plan *p, const options *o) {
    if (json_wanted()) {
        say_plan(tsr_plan_get_info(p), o);
        return EXIT_OK;
    }
    char *text = tsr_plan_text(p);
    if (!text)
        return failed(TSR_ERR_MEMORY);
    fputs(text, stdout);
    free(text);
    return EXIT_OK;
}

int cmd_plan(const options *o) {
    tsr_model *m = NULL;
    tsr_engine *e = NULL;
    tsr_plan *p = NULL;
    tsr_extent extent;
    int64_t first, end;
    int status = open_model(&m, o);
    if (status == EXIT_OK)
        status = find_extent(&extent, o, m);
    if (status == EXIT_OK)
        status = clip_frames(o, output_frames(m, extent.frames), &first, &end);
    if (status == EXIT_OK)
        status = create_engine(&e, o);
    if (status == EXIT_OK)
        status = create_plan(&p, e, m, &extent, o, first, end);
    if (status == EXIT_OK)
        status = print_plan(p, o);
    tsr_plan_destroy(&p);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    return status;
}

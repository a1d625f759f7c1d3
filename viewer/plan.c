/* tessera plan */
#include "cli.h"

#include <stdlib.h>

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
    tsr_latent *z = NULL;
    tsr_engine *e = NULL;
    tsr_plan *p = NULL;
    tsr_extent extent;
    int64_t first, end;
    int status = open_model(&m, o);
    if (status == EXIT_OK)
        status = find_extent(&extent, &z, o, m);
    if (status == EXIT_OK)
        status = clip_frames(o, output_frames(m, extent.frames), &first, &end);
    if (status == EXIT_OK)
        status = create_engine(&e, o);
    if (status == EXIT_OK)
        status = measure_quality(e, m, z, o);
    if (status == EXIT_OK)
        status = create_plan(&p, e, m, &extent, o, first, end);
    if (status == EXIT_OK)
        status = print_plan(p, o);
    tsr_plan_destroy(&p);
    tsr_engine_destroy(&e);
    tsr_latent_close(&z);
    tsr_model_close(&m);
    return status;
}

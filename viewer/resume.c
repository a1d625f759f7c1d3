#include "resume.h"

#include "say.h"

#include <stdlib.h>

void resume_budget(options *o) {
    char *budget = o->plan.budget == 0 && !(o->plan.budget_share > 0) ? tsr_writer_recall(&o->writer, "budget") : NULL;
    long long bytes = budget ? strtoll(budget, NULL, 10) : 0;
    if (bytes > 0)
        o->plan.budget = bytes;
    free(budget);
}

static void add_file(resume *r, const char *name, const char *path) {
    char digest[33] = "";
    if (r->status == TSR_OK)
        r->status = tsr_file_digest(path, digest);
    if (r->f)
        fprintf(r->f, "%s %s\n", name, digest);
}

void resume_begin(resume *r, const options *o, const tsr_model *m) {
    *r = (resume){.f = NULL};
    r->f = open_memstream(&r->text, &r->size);
    if (!r->f)
        r->status = TSR_ERR_MEMORY;
    else
        fprintf(r->f, "tessera %s\ndither %s\nbatch-overlap %d\nvulkan %d\n", tsr_version(),
            o->no_dither ? "none" : "auto", o->batch_overlap, o->engine.vulkan_index);
    add_file(r, "model", tsr_model_get_info(m)->path);
    if (o->like)
        add_file(r, "like", o->like);
}

void resume_latent(resume *r, const tsr_latent *z) {
    const tsr_latent_info *i = tsr_latent_get_info(z);
    add_file(r, "latent", i->path);
    if (r->f)
        fprintf(r->f, "layout %d, divided by %.17g\n", (int)i->layout, i->scale);
}

/* Whatever of a plan the result depends on, and the arena for the rest of it. */
void resume_plan(resume *r, const tsr_plan_info *p) {
    if (r->f)
        fprintf(r->f, "plan %s on %s, %dx%d tiles of %dx%d overlapping by %dx%d, %lld bytes\nnote budget %lld\n",
            tsr_precision_name(p->precision), p->device, p->columns, p->rows, p->tile_width, p->tile_height,
            p->overlap_width, p->overlap_height, (long long)p->bytes.arena, (long long)p->budget);
}

int resume_end(resume *r) {
    bool good = r->f && !ferror(r->f);
    good &= r->f && fclose(r->f) == 0;
    if (!good)
        return failure(TSR_ERR_MEMORY, "out of memory: a journal");
    return failed(r->status);
}

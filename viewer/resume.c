#include "resume.h"

#include "say.h"

static const char *note_of(char name[32], int video) {
    snprintf(name, 32, "plan-%d", video);
    return name;
}

char *resume_recipe(const options *o, int video) {
    char name[32];
    return tsr_writer_recall(&o->writer, note_of(name, video));
}

static void add_file(resume *r, const char *name, const char *path) {
    char digest[33] = "";
    if (r->status == TSR_OK)
        r->status = tsr_file_digest(path, digest);
    if (r->f)
        fprintf(r->f, "%s %s\n", name, digest);
}

/* What is asked of plans but for the budget; what came of it is in their recipes. */
static void add_asked(FILE *f, const tsr_plan_params *p) {
    fprintf(f, "precision %s for %.17g\ntiles %dx%d, overlap %dx%d, %s, caches %d\n", tsr_precision_name(p->precision),
        p->quality, p->tile_width, p->tile_height, p->overlap_width, p->overlap_height,
        p->untiled ? "none"
        : p->exact ? "exact"
                   : "allowed",
        (int)p->caches);
}

void resume_begin(resume *r, const options *o, const tsr_model *m) {
    *r = (resume){.f = NULL};
    r->f = open_memstream(&r->text, &r->size);
    if (!r->f)
        r->status = TSR_ERR_MEMORY;
    else
        fprintf(r->f, "tessera %s\ndither %s\nbatch-overlap %d\nvulkan %d\n", tsr_version(),
            o->no_dither ? "none" : "auto", o->batch_overlap, o->engine.vulkan_index);
    if (r->f)
        add_asked(r->f, &o->plan);
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

void resume_plan(resume *r, int video, const tsr_plan_info *p) {
    char name[32];
    if (!r->f)
        return;
    if (!r->device)
        fprintf(r->f, "device %s\n", p->device);
    r->device = true;
    fprintf(r->f, "note %s %s\n", note_of(name, video), p->recipe);
}

tsr_status resume_replan(tsr_writer *w, int video, const tsr_plan_info *p) {
    char name[32];
    return tsr_writer_note(w, note_of(name, video), p->recipe);
}

int resume_end(resume *r) {
    bool good = r->f && !ferror(r->f);
    good &= r->f && fclose(r->f) == 0;
    if (!good)
        return failure(TSR_ERR_MEMORY, "out of memory: a journal");
    return failed(r->status);
}

/* tessera encode */
#include "cli.h"

#include <tessera/encode.h>
#include <tessera/media.h>

#include <stdlib.h>

struct encode {
    const options *o;
    tsr_model *model;
    tsr_engine *engine;
    tsr_plan *plan;
    tsr_reader *reader;
    tsr_latent_writer *writer;
    const tsr_media_info *media;
    bool overwrite;     /* what is there, as asked for or allowed when asked */
    int64_t first, end; /* frames of the clip */
    tsr_extent extent;
    size_t values; /* of a latent frame */
    float *drawn;  /* [values]: a sample; NULL: means are written */
    tsr_result result;
};

static int open_media(struct encode *c) {
    int64_t frames;
    int status = failed(tsr_reader_open(&c->reader, c->o->args[0]));
    if (status == EXIT_OK)
        status = failed(tsr_reader_count(c->reader, &frames));
    if (status != EXIT_OK)
        return status;
    c->media = tsr_reader_get_info(c->reader);
    say(TSR_LOG_INFO, "%s: %s, %lld frame%s of %dx%d, %d bits", c->media->path, c->media->kind, (long long)frames,
        plural(frames), c->media->width, c->media->height, c->media->depth);
    if (*c->media->notes)
        say(TSR_LOG_WARN, "%s: %s", c->media->path, c->media->notes);
    return clip_frames(c->o, frames, &c->first, &c->end);
}

static void say_padding(const struct encode *c) {
    const tsr_model_info *i = tsr_model_get_info(c->model);
    int width = c->extent.width * i->space_factor, height = c->extent.height * i->space_factor;
    int64_t frames = output_frames(c->model, c->extent.frames);
    if (width != c->media->width || height != c->media->height || frames != c->end - c->first)
        say(TSR_LOG_INFO, "size: %dx%dx%lld is filled up to %dx%dx%lld, whole latents", c->media->width,
            c->media->height, (long long)(c->end - c->first), width, height, (long long)frames);
}

static tsr_status open_writer(struct encode *c) {
    const tsr_model_info *i = tsr_model_get_info(c->model);
    tsr_latent_writer_params p = {
        .path = c->o->writer.path,
        .extent = c->extent,
        .channels = i->latent_channels,
        .scale = c->o->latent.scale != 0 ? c->o->latent.scale : i->latent_scale,
        .width = c->media->width,
        .height = c->media->height,
        .frames = c->end - c->first,
        .stats = c->o->stats,
        .overwrite = c->overwrite,
    };
    return tsr_latent_writer_open(&c->writer, &p);
}

static int open_output(struct encode *c) {
    c->values =
        (size_t)tsr_model_get_info(c->model)->latent_channels * (size_t)c->extent.height * (size_t)c->extent.width;
    c->drawn = c->o->sample ? malloc(c->values * sizeof *c->drawn) : NULL;
    if (c->o->sample && !c->drawn)
        return failure(TSR_ERR_MEMORY, "out of memory: a latent of %dx%d", c->extent.width, c->extent.height);
    c->overwrite = c->o->writer.overwrite;
    int status = may_write(c->o->writer.path, &c->overwrite);
    catch_interrupts(); /* there will be something to clean up */
    return status == EXIT_OK ? failed(open_writer(c)) : status;
}

static tsr_status read_frame(void *user, int64_t index, float *rgb) {
    struct encode *c = user;
    bool got = true;
    tsr_status status = TSR_OK;
    (void)index; /* they come in order */
    if (interrupted())
        return TSR_ERR_CANCELLED;
    status = tsr_reader_frame(c->reader, rgb, &got);
    return status != TSR_OK ? status : got ? TSR_OK : TSR_ERR_IO;
}

static tsr_status on_latent(void *user, int t, float *mean, const float *logvar) {
    struct encode *c = user;
    if (interrupted())
        return TSR_ERR_CANCELLED;
    if (c->drawn)
        tsr_encode_sample((uint64_t)c->o->seed, t, c->values, mean, logvar, c->drawn);
    return tsr_latent_writer_frame(c->writer, c->drawn ? c->drawn : mean, mean, logvar);
}

static void on_progress(void *user, const tsr_progress *p) {
    struct encode *c = user;
    if (interrupted()) /* a signal may have come before there was a run to cancel */
        tsr_cancel(c->engine);
    say_progress(p);
}

static void on_plan(void *user, const tsr_plan_info *plan, const char *why) {
    struct encode *c = user;
    say_replan(0, why);
    say_plan(plan, c->o);
}

static tsr_status skip_frames(struct encode *c) {
    tsr_status status = TSR_OK;
    bool got;
    for (int64_t i = 0; i < c->first && status == TSR_OK; i++)
        status = tsr_reader_frame(c->reader, NULL, &got);
    return status;
}

static tsr_status encode(struct encode *c) {
    tsr_encode_params p = {
        .width = c->media->width,
        .height = c->media->height,
        .frames = c->end - c->first,
        .read_frame = read_frame,
        .on_latent = on_latent,
        .on_progress = on_progress,
        .on_plan = on_plan,
        .user = c,
    };
    interrupt_cancels(c->engine);
    tsr_status status = skip_frames(c);
    if (status == TSR_OK)
        status = tsr_encode(c->engine, c->model, c->plan, &p, &c->result);
    progress_end();
    return status;
}

/* In f32, or, where the device has none, in bf16, whose range is 64 times that of fp16. */
static tsr_status plan_wide(struct encode *c) {
    tsr_plan_params p = c->o->plan;
    p.precision = TSR_PRECISION_F32;
    p.quality = 0;
    tsr_plan_destroy(&c->plan);
    tsr_status status = tsr_encode_plan(&c->plan, c->engine, c->model, &c->extent, &p);
    if (status != TSR_OK || tsr_plan_get_info(c->plan)->precision == TSR_PRECISION_F32)
        return status;
    p.precision = TSR_PRECISION_BF16;
    tsr_plan_destroy(&c->plan);
    return tsr_encode_plan(&c->plan, c->engine, c->model, &c->extent, &p);
}

/* From frame 0: what the network remembers of the frames before is spoilt, too, and those are gone. */
static tsr_status encode_again(struct encode *c) {
    char why[256];
    snprintf(why, sizeof why, "%s", tsr_last_error());
    tsr_status status = plan_wide(c);
    if (status != TSR_OK)
        return status;
    say(TSR_LOG_WARN, "%s; all is encoded again in %s", why, tsr_precision_name(tsr_plan_get_info(c->plan)->precision));
    say_plan(tsr_plan_get_info(c->plan), c->o);
    tsr_reader_close(&c->reader);
    tsr_latent_writer_close(&c->writer);
    status = tsr_reader_open(&c->reader, c->o->args[0]);
    if (status != TSR_OK)
        return status;
    c->media = tsr_reader_get_info(c->reader);
    status = open_writer(c);
    return status == TSR_OK ? encode(c) : status;
}

static int run(struct encode *c) {
    tsr_precision precision = tsr_plan_get_info(c->plan)->precision;
    tsr_status status = encode(c);
    if (status == TSR_ERR_NOT_FINITE && precision != TSR_PRECISION_F32 && precision != TSR_PRECISION_BF16)
        status = encode_again(c);
    if (interrupted())
        return failure(TSR_ERR_CANCELLED, "interrupted: %s; nothing was written", c->o->writer.path);
    if (status == TSR_OK)
        status = tsr_latent_writer_finish(c->writer);
    return failed(status);
}

static void say_done(const struct encode *c) {
    const tsr_result *r = &c->result;
    const char *path = c->o->writer.path;
    if (json_wanted()) {
        json j;
        json_begin(&j, "done");
        json_integer(&j, "frames", r->frames);
        json_integer(&j, "latents", c->extent.frames);
        json_pair(&j, "latent_size", c->extent.width, c->extent.height);
        json_number(&j, "seconds", r->seconds);
        json_phases(&j, r);
        json_integer(&j, "peak_bytes", r->peak_bytes);
        json_integer(&j, "planned_bytes", r->planned_bytes);
        json_text(&j, "output", path);
        json_end(&j);
        return;
    }
    char peak[32], planned[32];
    say(TSR_LOG_INFO,
        "%s: %d latent%s of %dx%d from %lld frame%s in %.1f s, %.2f frames/s; device memory %s, %s planned", path,
        c->extent.frames, plural(c->extent.frames), c->extent.width, c->extent.height, (long long)r->frames,
        plural(r->frames), r->seconds, (double)r->frames / r->seconds, bytes_text(peak, r->peak_bytes),
        bytes_text(planned, r->planned_bytes));
}

int cmd_encode(const options *o) {
    struct encode c = {.o = o};
    if (!o->writer.path)
        return usage_error("no output: give -o FILE.latent, FILE.safetensors or FILE.npy");
    int status = open_media(&c);
    if (status == EXIT_OK)
        status = open_model(&c.model, o);
    if (status == EXIT_OK)
        status = failed(tsr_encode_extent(c.model, c.media->width, c.media->height, c.end - c.first, &c.extent));
    if (status == EXIT_OK)
        status = open_output(&c);
    if (status == EXIT_OK)
        status = create_engine(&c.engine, o);
    if (status == EXIT_OK)
        status = failed(tsr_encode_plan(&c.plan, c.engine, c.model, &c.extent, &o->plan));
    if (status == EXIT_OK) {
        say_padding(&c);
        say_plan(tsr_plan_get_info(c.plan), o);
        status = run(&c);
    }
    if (status == EXIT_OK)
        say_done(&c);
    interrupt_cancels(NULL);
    tsr_latent_writer_close(&c.writer);
    tsr_plan_destroy(&c.plan);
    tsr_engine_destroy(&c.engine);
    tsr_model_close(&c.model);
    tsr_reader_close(&c.reader);
    free(c.drawn);
    return interrupted() ? EXIT_INTERRUPTED : status;
}

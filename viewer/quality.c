#include "quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 16, SAMPLE_FRAMES = 9 };
static const size_t SAMPLE_BYTES = (size_t)512 << 20; /* of the frames that are kept for it */

/* ---------------------------------------------------------------- saying it */

static void db_text(char buf[32], double db) {
    if (isinf(db))
        snprintf(buf, 32, "equal");
    else
        snprintf(buf, 32, "%.2f dB", db);
}

/* against: "f32", or the clip's name. */
static void say_quality(const char *against, int64_t frames, double mse, double ssim, const tsr_difference *worst) {
    double psnr = tsr_psnr(mse / (double)frames);
    ssim /= (double)frames;
    if (json_wanted()) {
        json j;
        json_begin(&j, "quality");
        json_text(&j, "against", against);
        json_integer(&j, "frames", frames);
        json_bool(&j, "equal", mse == 0);
        json_number(&j, "psnr", psnr);
        json_number(&j, "ssim", ssim);
        json_integer(&j, "worst_frame", worst->frame);
        json_number(&j, "worst_psnr", worst->psnr);
        json_end(&j);
        return;
    }
    char all[32], least[32];
    db_text(all, psnr);
    db_text(least, worst->psnr);
    say(TSR_LOG_INFO, "PSNR against %s: %s, SSIM %.4f over %lld frame%s; worst frame %lld: %s", against, all, ssim,
        (long long)frames, plural(frames), (long long)worst->frame, least);
}

/* ---------------------------------------------------------------- against the clip */

int quality_open(quality *q, const char *clip, int width, int height, int64_t first) {
    *q = (quality){0};
    bool got = true;
    int status = failed(tsr_reader_open(&q->clip, clip));
    if (status != EXIT_OK)
        return status;
    const tsr_media_info *i = tsr_reader_get_info(q->clip);
    if (i->width != width || i->height != height) {
        say(TSR_LOG_WARN, "not compared with %s: it is %dx%d, the render %dx%d", clip, i->width, i->height, width,
            height);
        quality_close(q);
        return EXIT_OK;
    }
    size_t bytes = 3 * (size_t)width * (size_t)height * sizeof(float);
    q->shown = malloc(bytes);
    q->source = malloc(bytes);
    if (!q->shown || !q->source)
        return failure(TSR_ERR_MEMORY, "out of memory: a frame of %dx%d", width, height);
    for (int64_t f = 0; f < first && got && status == EXIT_OK; f++)
        status = failed(tsr_reader_frame(q->clip, NULL, &got));
    return status;
}

static void to_float(const tsr_frame *f, float *out) {
    size_t plane = (size_t)f->width * (size_t)f->height;
    const uint8_t *b = f->data;
    const uint16_t *s = f->data;
    const float *v = f->data;
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++)
            out[3 * i + c] = f->pixels == TSR_PIXELS_RGB8    ? (float)b[3 * i + c] * (2 / 255.0f) - 1
                             : f->pixels == TSR_PIXELS_RGB16 ? (float)s[3 * i + c] * (2 / 65535.0f) - 1
                                                             : fminf(fmaxf(v[c * plane + i], -1), 1);
}

static tsr_status add_frame(quality *q, const float *a, const float *b, const tsr_frame *f) {
    tsr_difference d;
    tsr_status status = tsr_compare_frames(a, b, f->width, f->height, BLOCK, &d);
    if (status != TSR_OK)
        return status;
    d.frame = f->index;
    if (q->frames++ == 0 || d.mse > q->worst.mse)
        q->worst = d;
    q->mse += d.mse;
    q->ssim += d.ssim;
    return TSR_OK;
}

tsr_status quality_frame(quality *q, const tsr_frame *f) {
    bool got = false;
    if (!q->clip)
        return TSR_OK;
    tsr_status status = tsr_reader_frame(q->clip, q->source, &got);
    if (status != TSR_OK || !got) /* a clip that ends earlier is compared as far as it goes */
        return status;
    to_float(f, q->shown);
    return add_frame(q, q->shown, q->source, f);
}

void quality_say(const quality *q, const char *clip) {
    if (q->clip && q->frames == 0)
        say(TSR_LOG_WARN, "not compared with %s: it has no such frames", clip);
    else if (q->clip)
        say_quality(clip, q->frames, q->mse, q->ssim, &q->worst);
}

void quality_close(quality *q) {
    tsr_reader_close(&q->clip);
    free(q->shown);
    free(q->source);
    *q = (quality){0};
}

/* ---------------------------------------------------------------- against f32 */

/* Frames of the first decode are kept, those of the second compared with them. */
struct sample {
    quality sum;
    float *kept; /* [frames][height][width][3] */
    float *now;
    size_t values; /* of a frame */
    int64_t first;
    bool second;
};

static tsr_status on_frame(void *user, const tsr_frame *f) {
    struct sample *s = user;
    size_t plane = s->values / 3;
    const float *v = f->data;
    float *kept = s->kept + (size_t)(f->index - s->first) * s->values, *out = s->second ? s->now : kept;
    if (interrupted())
        return TSR_ERR_CANCELLED;
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++)
            out[3 * i + c] = v[c * plane + i];
    return s->second ? add_frame(&s->sum, kept, s->now, f) : TSR_OK;
}

/* The same tiles, so that nothing but the precision differs. */
static tsr_plan_params params_of(const options *o, const tsr_plan_info *plan, int64_t first, int64_t end, bool f32) {
    tsr_plan_params p = o->plan;
    bool tiled = plan->mode == TSR_MODE_TILED;
    p.precision = plan->precision;
    p.quality = plan->quality;
    p.untiled = !tiled;
    p.tile_width = tiled ? plan->tile_width : 0;
    p.tile_height = tiled ? plan->tile_height : 0;
    p.first_frame = (int)first;
    p.end_frame = (int)end;
    if (f32) { /* which takes more memory than the budget may allow: as much as there is */
        p.precision = TSR_PRECISION_F32;
        p.quality = 0;
        p.budget = 0;
        p.budget_share = 0;
    }
    return p;
}

/* A GPU has no f32: there the CPU decodes again. */
static tsr_status decode(struct sample *s, tsr_engine *e, tsr_model *m, tsr_latent *z, int video,
    const tsr_extent *extent, const tsr_plan_params *params, const tsr_engine_params *engine) {
    tsr_plan *plan = NULL;
    tsr_engine *cpu = NULL;
    tsr_engine_params on_cpu = *engine;
    tsr_decode_params d = TSR_DECODE_PARAMS_DEFAULT;
    tsr_status status = tsr_plan_create(&plan, e, m, extent, params);
    on_cpu.device = TSR_DEVICE_CPU;
    if (status == TSR_ERR_UNSUPPORTED && params->precision == TSR_PRECISION_F32 &&
        (status = tsr_engine_create(&cpu, &on_cpu)) == TSR_OK)
        status = tsr_plan_create(&plan, cpu, m, extent, params);
    if (cpu)
        interrupt_cancels(e = cpu);
    d.pixels = TSR_PIXELS_RGB_F32;
    d.video = video;
    d.on_frame = on_frame;
    d.user = s;
    if (status == TSR_OK)
        status = tsr_decode(e, m, z, plan, &d, NULL);
    tsr_plan_destroy(&plan);
    if (cpu)
        interrupt_cancels(NULL);
    tsr_engine_destroy(&cpu);
    return status;
}

int quality_precision(const options *o, tsr_engine *e, tsr_model *m, tsr_latent *z, int video,
    const tsr_plan_info *plan, int64_t first, int64_t end) {
    if (plan->precision == TSR_PRECISION_F32) {
        say_quality("f32", end - first, 0, (double)(end - first), &(tsr_difference){.psnr = INFINITY, .frame = first});
        return EXIT_OK;
    }
    struct sample s = {.values = 3 * (size_t)plan->width * (size_t)plan->height, .first = first};
    size_t most = SAMPLE_BYTES / (s.values * sizeof(float));
    int64_t frames = most < 1 ? 1 : most < SAMPLE_FRAMES ? (int64_t)most : SAMPLE_FRAMES;
    end = end - first < frames ? end : first + frames;
    s.kept = malloc((size_t)(end - first) * s.values * sizeof(float));
    s.now = malloc(s.values * sizeof(float));
    int status =
        s.kept && s.now ? EXIT_OK : failure(TSR_ERR_MEMORY, "out of memory: %lld frames", (long long)(end - first));
    for (int f32 = 0; f32 < 2 && status == EXIT_OK; f32++) {
        tsr_plan_params p = params_of(o, plan, first, end, f32);
        s.second = f32;
        status = failed(decode(&s, e, m, z, video, &plan->extent, &p, &o->engine));
    }
    if (status == EXIT_OK)
        say_quality("f32", s.sum.frames, s.sum.mse, s.sum.ssim, &s.sum.worst);
    free(s.kept);
    free(s.now);
    return status;
}

/* Measuring what blocks lose in 8 bits, and plans that hold a quality by it. */
#include "session/cache_folder.h"
#include "session/session.h"
#include "session/steps.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One latent, for kernels without time are the quickest to pack, and what a decode loses does not depend on how many
 * there are (43.5 dB with one, 43.7 with two of random weights in int8). */
enum { SIDE = 16 };

/* ---------------------------------------------------------------- what is known */

static void name_of(char name[64], const tsr_losses *l) {
    snprintf(name, 64, "losses-2-%s-%s-%016llx", tsr_precision_name(l->precision), l->noise ? "noise" : "clip",
        (unsigned long long)l->key);
}

static bool kept(const tsr_half *decoder, tsr_losses *l) {
    char name[64];
    name_of(name, l);
    char *text = tsr_cache_read(name);
    bool found = text && tsr_losses_parse(text, decoder, l);
    free(text);
    return found;
}

/* From the engine, else from the cache folder; those of noise only where they will do and there are no others. */
static tsr_status known(tsr_engine *e, const tsr_model *m, tsr_precision precision, bool noise, tsr_losses *out) {
    *out = (tsr_losses){.precision = precision};
    tsr_status status = tsr_model_key(m, &out->key);
    if (status != TSR_OK)
        return status;
    pthread_mutex_lock(&e->lock);
    bool have = e->losses.precision == precision && e->losses.key == out->key && (noise || !e->losses.noise);
    if (have)
        *out = e->losses;
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i <= noise && !have; i++) {
        out->noise = i;
        have = kept(&m->vae->decoder, out);
    }
    if (!have)
        out->precision = TSR_PRECISION_AUTO;
    return TSR_OK;
}

static void keep(tsr_engine *e, const tsr_losses *l) {
    char name[64], text[TSR_MIX_BLOCKS * 24 + 64];
    name_of(name, l);
    tsr_losses_print(text, sizeof text, l);
    tsr_cache_write(name, text);
    pthread_mutex_lock(&e->lock);
    e->losses = *l;
    pthread_mutex_unlock(&e->lock);
}

/* ---------------------------------------------------------------- measuring */

typedef struct trial {
    tsr_engine *asked, *e; /* whose caller waits; that decodes */
    tsr_model *m;
    tsr_latent *piece;
    tsr_extent extent;
    float *f32;  /* [3][height][width] */
    double loss; /* of the last decode */
    size_t n;
} trial;

static tsr_status look(void *user, const tsr_frame *f) {
    trial *t = user;
    const float *v = f->data;
    if (!t->f32) {
        t->f32 = malloc(f->bytes);
        if (!t->f32)
            return tsr_fail(TSR_ERR_MEMORY, "out of memory");
        memcpy(t->f32, v, f->bytes);
        t->n = f->bytes / sizeof *v;
    }
    t->loss = 0;
    for (size_t i = 0; i < t->n; i++)
        t->loss += ((double)v[i] - (double)t->f32[i]) * ((double)v[i] - (double)t->f32[i]);
    t->loss /= (double)t->n;
    return TSR_OK;
}

static void look_for_stop(void *user, const tsr_progress *p) {
    const trial *t = user;
    (void)p;
    if (atomic_load(&t->asked->cancelled))
        tsr_cancel(t->e);
}

/* The piece with these blocks wide, against f32, which comes first. */
static tsr_status decode(trial *t, tsr_precision precision, uint64_t wide) {
    tsr_plan *plan;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = look, .on_progress = look_for_stop, .user = t};
    params.precision = precision;
    params.untiled = true;
    tsr_status status = tsr_plan_mixed(&plan, t->e, &t->m->vae->decoder, &t->extent, &params, &(tsr_mix){.wide = wide});
    if (status == TSR_OK)
        status = tsr_decode(t->e, t->m, t->piece, plan, &d, NULL);
    tsr_plan_destroy(&plan);
    return status;
}

/* From the middle of the first video, or noise. */
static tsr_status cut(trial *t, const tsr_latent *z) {
    int channels = t->m->vae->decoder.in_channels, h = SIDE, w = SIDE;
    size_t c = (size_t)channels, whole = (size_t)SIDE * SIDE * c;
    if (z) {
        const tsr_latent_info *i = tsr_latent_get_info(z);
        h = i->height < SIDE ? i->height : SIDE;
        w = i->width < SIDE ? i->width : SIDE;
        whole = (size_t)i->height * (size_t)i->width * c;
    }
    float *frame = malloc(whole * sizeof *frame), *piece = tsr_noise((size_t)(h * w) * c);
    tsr_status status = frame && piece ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "out of memory");
    if (status == TSR_OK && z) {
        const tsr_latent_info *i = tsr_latent_get_info(z);
        size_t y0 = (size_t)(i->height - h) / 2, x0 = (size_t)(i->width - w) / 2;
        status = tsr_latent_read(z, 0, i->frames / 2, frame);
        for (size_t y = 0; y < (size_t)h; y++)
            memcpy(piece + y * (size_t)w * c, frame + ((y0 + y) * (size_t)i->width + x0) * c,
                (size_t)w * c * sizeof *piece);
    }
    t->extent = (tsr_extent){1, h, w};
    if (status == TSR_OK)
        status = tsr_latent_from_memory(&t->piece, piece, 1, h, w, channels);
    free(piece);
    free(frame);
    return status;
}

static tsr_status try_blocks(trial *t, tsr_losses *l) {
    const tsr_half *half = &t->m->vae->decoder;
    uint64_t resnets = 0;
    tsr_status status;
    l->blocks = half->blocks < TSR_MIX_BLOCKS ? half->blocks : TSR_MIX_BLOCKS;
    for (int b = 0; b < l->blocks; b++)
        resnets |= (uint64_t)(half->block[b].kind == TSR_BLOCK_RESNET) << b;
    TSR_TRY(decode(t, TSR_PRECISION_F32, 0));
    TSR_TRY(decode(t, l->precision, 0));
    l->whole = t->loss;
    for (int b = 0; b < l->blocks; b++)
        if (resnets >> b & 1) {
            TSR_TRY(decode(t, l->precision, resnets & ~((uint64_t)1 << b)));
            l->block[b] = t->loss;
        }
error:
    return status;
}

static tsr_status measure(tsr_engine *e, tsr_model *m, const tsr_latent *z, tsr_losses *l) {
    trial t = {.asked = e, .m = m};
    tsr_engine_params params = e->params;
    tsr_status status;
    double begin = tsr_now();
    params.device = TSR_DEVICE_CPU; /* which computes every mode, and f32 beside it */
    atomic_store(&e->cancelled, false);
    tsr_log(TSR_LOG_INFO, "measuring what each resnet loses in %s, once for this model: %s",
        tsr_precision_name(l->precision), tsr_model_get_info(m)->path);
    TSR_TRY(tsr_engine_create(&t.e, &params));
    t.e->quiet = true;
    TSR_TRY(cut(&t, z));
    TSR_TRY(try_blocks(&t, l));
    if (!isfinite(l->whole))
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "quality: %s gives numbers that are not finite; use --precision f32",
            tsr_precision_name(l->precision)));
    tsr_log(TSR_LOG_INFO, "measured in %.1f s: %.1f dB with all of them in %s", tsr_now() - begin,
        10 * log10(4 / l->whole), tsr_precision_name(l->precision));
error:
    free(t.f32);
    tsr_latent_close(&t.piece);
    tsr_engine_destroy(&t.e);
    return status;
}

/* Of the precision that is wished for: the one with 8 bits that is to be mixed; F32: none is. */
static tsr_precision eight_of(tsr_engine *e, const tsr_half *half, tsr_precision wished, char why[128]) {
    if (wished == TSR_PRECISION_AUTO)
        wished = e->backend->v->best(e->backend, half, why);
    return wished == TSR_PRECISION_INT8 || wished == TSR_PRECISION_FP8 ? wished : TSR_PRECISION_F32;
}

tsr_status tsr_quality_measure(tsr_engine *e, tsr_model *m, const tsr_latent *z, tsr_precision precision) {
    const tsr_half *half = &m->vae->decoder;
    tsr_losses l;
    char why[128];
    if (!half->present)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "quality: %s: the file holds no decoder; use one that does", m->vae->info.path);
    tsr_precision eight = eight_of(e, half, precision, why);
    if (eight == TSR_PRECISION_F32)
        return TSR_OK;
    tsr_status status = known(e, m, eight, !z, &l);
    if (status != TSR_OK || l.precision != TSR_PRECISION_AUTO)
        return status;
    l.precision = eight;
    l.noise = !z;
    status = measure(e, m, z, &l);
    if (status == TSR_OK)
        keep(e, &l);
    return status;
}

/* ---------------------------------------------------------------- deciding */

/* An error of 1.4 of 255 steps in the root mean square: below what coding the video for keeping loses. */
static const double AUTO_QUALITY = 45;

/* The precision without 8 bits: f32 on a CPU, 16 bits on a GPU. */
static tsr_precision wide_of(const tsr_target *target, const tsr_half *half) {
    tsr_numerics n;
    target->numerics(target->ctx, TSR_PRECISION_AUTO, half, &n);
    return n.precision;
}

static tsr_status mix(const tsr_losses *l, const tsr_half *half, tsr_plan_params *p, tsr_target *target) {
    char why[sizeof target->mix.why];
    memcpy(why, target->mix.why, sizeof why);
    tsr_status status = tsr_mix_choose(l, half, p->quality > 0 ? p->quality : AUTO_QUALITY, &target->mix);
    memcpy(target->mix.why, why, sizeof why);
    p->precision = l->precision;
    if (status == TSR_OK && isinf(target->mix.expected)) { /* nothing is left to mix */
        target->mix.wide = 0;
        p->precision = wide_of(target, half);
        snprintf(target->mix.why, sizeof target->mix.why, "no resnet bears 8 bits for that");
    }
    return status;
}

/* Where nobody knows what 8 bits lose: wide, but for decodes on a GPU, which is there for speed (docs/precision.md). */
static void choose_unmeasured(
    tsr_engine *e, const tsr_half *half, tsr_precision eight, tsr_plan_params *p, tsr_target *target) {
    char *why = target->mix.why;
    size_t size = sizeof target->mix.why;
    if (eight == TSR_PRECISION_F32 || !(target->host_is_device || half->encodes)) {
        p->precision = e->backend->v->best(e->backend, half, why);
        return;
    }
    p->precision = wide_of(target, half);
    target->mix.unmeasured = !half->encodes;
    if (half->encodes)
        snprintf(why, size, "what 8 bits lose is not measured for encodes");
    else
        snprintf(why, size, "%s is faster, but what it loses is not measured; --quality %g does, once",
            tsr_precision_name(eight), AUTO_QUALITY);
}

tsr_status tsr_quality_decide(
    tsr_engine *e, const tsr_model *m, const tsr_half *half, tsr_plan_params *p, tsr_target *target) {
    bool automatic = p->precision == TSR_PRECISION_AUTO;
    tsr_precision eight = eight_of(e, half, p->precision, target->mix.why);
    tsr_losses l = {0};
    tsr_status status = TSR_OK;
    if (eight != TSR_PRECISION_F32 && m && (p->quality > 0 || automatic))
        status = known(e, m, eight, true, &l);
    if (status != TSR_OK)
        return status;
    if (l.precision != TSR_PRECISION_AUTO)
        return mix(&l, half, p, target);
    if (eight != TSR_PRECISION_F32 && p->quality > 0)
        return m ? tsr_fail(TSR_ERR_ARGUMENT,
                       "plan: what resnets lose in %s is not measured; call tsr_quality_measure()",
                       tsr_precision_name(eight))
                 : tsr_fail(TSR_ERR_UNSUPPORTED, "plan: a quality is for decodes; leave it out, or name a precision");
    if (automatic)
        choose_unmeasured(e, half, eight, p, target);
    return TSR_OK;
}

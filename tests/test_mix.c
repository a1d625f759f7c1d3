/* Holding a quality: what resnets lose is measured once and kept, the choice is the cheapest, and it holds. */
#include "formats/latent_file.h"
#include "session/cache_folder.h"
#include "session/session.h"
#include "synthetic.h"
#include "temp.h"

#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tsr_extent extent = {2, 6, 5};

static struct rig {
    tsr_model *model;
    tsr_engine *engine;
    tsr_latent *latent;
    float *video; /* [frame][3][height][width] */
    size_t n;
    int measured; /* times, by the log */
} rig;

static void ok(tsr_status status) {
    cr_assert_eq(status, TSR_OK, "%s", tsr_last_error());
}

static void on_log(void *user, tsr_log_level level, const char *line) {
    (void)user, (void)level;
    rig.measured += strstr(line, "measured in ") != NULL;
}

static void open_engine(void) {
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CPU;
    ok(tsr_engine_create(&rig.engine, &params));
}

static void open_rig(void) {
    const char *path = temp_path("small.safetensors");
    ok(synth_model_write(path, &(synth_config){.channels = {32, 32, 64}, .layers = 1, .decoder = true}));
    ok(tsr_model_open(&rig.model, path));
    float *z = synth_latent(16, extent.frames, extent.height, extent.width, 0);
    ok(tsr_latent_from_memory(&rig.latent, z, extent.frames, extent.height, extent.width, 16));
    free(z);
    setenv("XDG_CACHE_HOME", temp_path("cache"), 1);
    tsr_log_set(TSR_LOG_INFO, on_log, NULL);
    open_engine();
}

static void close_rig(void) {
    tsr_log_set(TSR_LOG_WARN, NULL, NULL);
    tsr_engine_destroy(&rig.engine);
    tsr_latent_close(&rig.latent);
    tsr_model_close(&rig.model);
    cr_assert_eq(tsr_mem_used(), 0);
}

TestSuite(mix, .init = open_rig, .fini = close_rig);

static tsr_status plan(tsr_plan **out, tsr_precision precision, double quality) {
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    p.precision = precision;
    p.quality = quality;
    return tsr_plan_create(out, rig.engine, rig.model, &extent, &p);
}

static tsr_status keep(void *user, const tsr_frame *f) {
    (void)user;
    memcpy(rig.video + (size_t)f->index * f->bytes / sizeof(float), f->data, f->bytes);
    return TSR_OK;
}

static float *decode(const tsr_plan *p) {
    const tsr_plan_info *i = tsr_plan_get_info(p);
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep};
    rig.n = 3 * (size_t)i->frames * (size_t)i->width * (size_t)i->height;
    rig.video = malloc(rig.n * sizeof(float));
    ok(tsr_decode(rig.engine, rig.model, rig.latent, p, &d, NULL));
    return rig.video;
}

/* dB, of a plan of int8 for this quality against f32; 0: all of int8. */
static double held(double quality, double *wide_share) {
    tsr_plan *f32, *p;
    double sum = 0;
    ok(plan(&f32, TSR_PRECISION_F32, 0));
    ok(plan(&p, TSR_PRECISION_INT8, quality));
    float *a = decode(f32), *b = decode(p);
    for (size_t i = 0; i < rig.n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    int resnets = 0, wide = 0;
    for (int i = 0; i < p->half->blocks; i++) {
        resnets += p->half->block[i].kind == TSR_BLOCK_RESNET;
        wide += p->target.mix.wide >> i & 1;
    }
    *wide_share = (double)wide / resnets;
    free(a);
    free(b);
    tsr_plan_destroy(&p);
    tsr_plan_destroy(&f32);
    return 10 * log10(4 * (double)rig.n / sum);
}

Test(mix, a_quality_is_held) {
    double wide, all = held(0, &wide);
    ok(tsr_quality_measure(rig.engine, rig.model, rig.latent, TSR_PRECISION_INT8));
    cr_assert_eq(rig.measured, 1);
    for (double quality = ceil(all); quality < all + 8; quality += 3.5) {
        double have = held(quality, &wide);
        fprintf(stderr, "# all int8: %.2f dB; for %.2f dB: %.2f dB, %.0f%% of resnets wide\n", all, quality, have,
            100 * wide);
        cr_expect_geq(have, quality, "%.2f dB for %.2f", have, quality);
        cr_expect_leq(have, quality + 5, "%.2f dB for %.2f: more than was asked for", have, quality);
        cr_expect(wide > 0 && wide < 1);
    }
    double low = held(all - 4, &wide);
    cr_expect(fabs(low - all) < 1e-9 && wide == 0, "%.2f dB, where all of int8 has %.2f", low, all);
}

static void numbers(tsr_precision wished, double quality, tsr_precision want, const char *says) {
    tsr_plan *p;
    ok(plan(&p, wished, quality));
    const tsr_plan_info *i = tsr_plan_get_info(p);
    cr_expect_eq(i->precision, want, "%s", i->numbers);
    cr_expect(strstr(i->numbers, says), "%s", i->numbers);
    cr_expect_eq(i->unmeasured, strstr(i->numbers, "--quality") != NULL, "%s", i->numbers);
    char *text = tsr_plan_text(p);
    cr_expect(strstr(text, i->numbers));
    free(text);
    tsr_plan_destroy(&p);
}

Test(mix, measured_once_and_kept) {
    tsr_plan *p;
    cr_assert_eq(plan(&p, TSR_PRECISION_INT8, 50), TSR_ERR_ARGUMENT);
    cr_assert(strstr(tsr_last_error(), "not measured"));
    numbers(TSR_PRECISION_AUTO, 0, TSR_PRECISION_F32, "f32");
    ok(tsr_quality_measure(rig.engine, rig.model, NULL, TSR_PRECISION_INT8));
    ok(tsr_quality_measure(rig.engine, rig.model, NULL, TSR_PRECISION_INT8));
    cr_assert_eq(rig.measured, 1, "the engine remembers");
    tsr_engine_destroy(&rig.engine);
    open_engine();
    ok(tsr_quality_measure(rig.engine, rig.model, NULL, TSR_PRECISION_INT8));
    cr_assert_eq(rig.measured, 1, "the folder remembers");
    numbers(TSR_PRECISION_INT8, 90, TSR_PRECISION_F32, "f32, for 90 dB");
    numbers(TSR_PRECISION_INT8, 20, TSR_PRECISION_INT8, "expected for 20");
    numbers(TSR_PRECISION_INT8, 46, TSR_PRECISION_INT8, "; f32 in ");
    numbers(TSR_PRECISION_BF16, 90, TSR_PRECISION_BF16, "bf16");
    ok(tsr_quality_measure(rig.engine, rig.model, rig.latent, TSR_PRECISION_INT8));
    cr_assert_eq(rig.measured, 2, "real latents are better than noise");
    ok(tsr_quality_measure(rig.engine, rig.model, NULL, TSR_PRECISION_INT8));
    cr_assert_eq(rig.measured, 2);
}

Test(mix, files_are_checked) {
    tsr_losses l = {.precision = TSR_PRECISION_INT8, .whole = 4e-4}, back = {.precision = TSR_PRECISION_INT8};
    const tsr_half *decoder = &rig.model->vae->decoder;
    char text[TSR_MIX_BLOCKS * 24 + 64];
    l.blocks = decoder->blocks;
    for (int i = 0; i < l.blocks; i++)
        l.block[i] = i * 1e-6;
    tsr_losses_print(text, sizeof text, &l);
    cr_assert(tsr_losses_parse(text, decoder, &back) && back.whole == l.whole && back.block[3] == l.block[3]);
    cr_expect_not(tsr_losses_parse("", decoder, &back));
    cr_expect_not(tsr_losses_parse("3 1 1 1 1", decoder, &back));
    text[strlen(text) - 12] = 0;
    cr_expect_not(tsr_losses_parse(text, decoder, &back), "cut short");
    snprintf(text, sizeof text, "%d nan", l.blocks);
    cr_expect_not(tsr_losses_parse(text, decoder, &back));
}

/* Of all sets that lose little enough, none has more work in 8 bits: tried one by one. */
Test(mix, the_choice_is_the_cheapest) {
    const tsr_half *decoder = &rig.model->vae->decoder;
    tsr_losses l = {.precision = TSR_PRECISION_INT8, .blocks = decoder->blocks};
    uint32_t bits = 7;
    double allowed = 4 * pow(10, -4.8), best = 0, have = 0, work[TSR_MIX_BLOCKS] = {0};
    int resnet[16], resnets = 0;
    for (int i = 0; i < l.blocks; i++)
        if (decoder->block[i].kind == TSR_BLOCK_RESNET && resnets < 16) {
            const tsr_layer *conv = &decoder->layer[decoder->block[i].layer[1]];
            bits = bits * 1664525 + 1013904223;
            l.block[i] = allowed * (0.1 + (double)(bits >> 24) / 512);
            work[i] = (double)conv->cout * (conv->cin + conv->cout) * pow(8, conv->level); /* two levels double time */
            resnet[resnets++] = i;
        }
    tsr_mix mix;
    ok(tsr_mix_choose(&l, decoder, 47, &mix)); /* and one for safety */
    double lost = 0;
    for (int r = 0; r < resnets; r++)
        if (!(mix.wide >> resnet[r] & 1)) {
            have += work[resnet[r]];
            lost += l.block[resnet[r]];
        }
    for (int set = 0; set < 1 << resnets; set++) {
        double sum = 0, done = 0;
        for (int r = 0; r < resnets; r++)
            if (set >> r & 1) {
                sum += l.block[resnet[r]];
                done += work[resnet[r]];
            }
        best = sum <= allowed * 0.998 && done > best ? done : best;
    }
    cr_expect_leq(lost, allowed);
    cr_expect_geq(have, best * (1 - 1e-9), "%g of %g", have, best);
    cr_expect(best > 0 && mix.wide);
}

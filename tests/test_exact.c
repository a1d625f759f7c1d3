/* Exact tiles: decodes in bands of rows against decodes of whole frames, in every number type and tier; what is planned
 * for them, and that they run so from end to end. */
#include "direct.h"
#include "random.h"
#include "sanitized.h"
#include "shapes.h"
#include "synthetic.h"
#include "temp.h"

#include "backend/cpu/cpu.h"

#include <tessera/tessera.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())

/* ---------------------------------------------------------------- bands against whole frames */

static tsr_vae *model_new(void) {
    tsr_tensor_file *file;
    tsr_vae *vae;
    synth_config config = {.channels = {32, 32, 64}, .layers = 1, .decoder = true};
    const char *path = temp_path("model.safetensors");
    ok(synth_model_write(path, &config));
    ok(tsr_tensor_file_open(&file, path));
    ok(tsr_vae_create(&vae, file));
    return vae;
}

static float *decode(tsr_backend *b, const tsr_vae *m, const direct_params *params, const float *z, size_t *n) {
    direct *d;
    int c, frames, h, w;
    ok(direct_create(&d, b, &m->decoder, params));
    if (params->band)
        cr_assert_eq(direct_plan(d)->program[TSR_STEP_FIRST]->bands, (params->h + params->band - 1) / params->band);
    direct_extent(d, &c, &frames, &h, &w);
    *n = (size_t)c * (size_t)frames * (size_t)h * (size_t)w;
    float *out = calloc(*n, sizeof *out);
    ok(direct_run(d, z, out));
    direct_destroy(&d);
    return out;
}

/* Over a range of 2; 999 where nothing differs. */
static double psnr(const float *a, const float *b, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return squares > 0 ? 10 * log10(4 * (double)n / squares) : 999;
}

static void check(const tsr_vae *m, direct_params params, bool reference, double wanted) {
    static const struct { int band, level; } cut[] = {{1, 1}, {2, 2}, {3, 1}, {64, 1}};
    tsr_backend *b;
    size_t n;
    ok(tsr_cpu_create(&b,
        &(tsr_cpu_params){.threads = 1, .reference = reference})); /* small sizes: others would wait more than work */
    float *z = synth_latent(16, params.steps, params.h, params.w, 3), *want = decode(b, m, &params, z, &n);
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        params.band = cut[i].band;
        params.page_level = cut[i].level;
        float *have = decode(b, m, &params, z, &n);
        double db = psnr(have, want, n);
        cr_log_info("%s, bands of %d from level %d: %.1f dB\n", tsr_precision_name(params.precision), cut[i].band,
            cut[i].level, db);
        cr_expect(db >= wanted, "%s, %s: bands of %d from level %d: %.1f dB", tsr_precision_name(params.precision),
            reference ? "plain C" : "fastest", cut[i].band, cut[i].level, db);
        free(have);
    }
    free(want);
    free(z);
    b->v->destroy(b);
}

static void check_all(tsr_precision precision, double wanted) {
    tsr_vae *m = model_new();
    check(m, (direct_params){.steps = 3, .h = 5, .w = 2, .precision = precision}, false, wanted);
    if (precision == TSR_PRECISION_F32 || precision == TSR_PRECISION_INT8)
        check(m, (direct_params){.steps = 3, .h = 3, .w = 1, .precision = precision}, true, 999);
    if (precision == TSR_PRECISION_F32) {
        check(m, (direct_params){.steps = 1, .h = 7, .w = 2}, false, wanted);
    }
    tsr_vae_destroy(&m);
}

Test(bands, f32) {
    only_as_shipped();
    check_all(TSR_PRECISION_F32, 110);
}
Test(bands, fp16) {
    check_all(TSR_PRECISION_FP16, 110);
}
Test(bands, bf16) {
    check_all(TSR_PRECISION_BF16, 110);
}
Test(bands, int8) {
    check_all(TSR_PRECISION_INT8, 999);
}
Test(bands, fp8) {
    check_all(TSR_PRECISION_FP8, 110);
}

/* ---------------------------------------------------------------- what is planned */

static bool is_page(const tsr_op *op) {
    return op->kind == TSR_OP_PAGE_IN || op->kind == TSR_OP_PAGE_OUT;
}

/* What runs in bands sees bands only, but for statistics; across rows only where there is a halo; statistics and
 * neighbours that another section has finished. */
static void check_op(const tsr_program *p, int i, const int *written_in) {
    const tsr_op *op = &p->op[i];
    const tsr_buffer *in = op->in.buf < 0 ? NULL : &p->buffer[op->in.buf],
                     *out = op->out.buf < 0 ? NULL : &p->buffer[op->out.buf];
    bool paged = (in && in->paged) || (out && out->paged);
    if (op->section < 0) {
        cr_assert(!paged && (!in || !in->whole) && (!out || !out->whole));
        return;
    }
    cr_assert(i >= p->section[op->section].first && i < p->section[op->section].end);
    cr_assert(!paged || is_page(op));
    cr_assert(is_page(op) || !in || in->whole);
    cr_assert(is_page(op) || !out || out->whole || op->kind == TSR_OP_STATS);
    if (op->kind == TSR_OP_PAGE_IN) /* of what is whole by now */
        cr_assert_lt(written_in[op->in.buf], op->section);
    if (op->kind == TSR_OP_NORM)
        cr_assert_lt(written_in[op->stats], op->section);
    if (op->kind == TSR_OP_CONV && p->kernel[op->kernel].kh > 1)
        cr_assert(in->halo == 1 && op->in.y0 == 1 && out->halo == 0);
}

static void check_program(const tsr_program *p) {
    int *written_in = calloc((size_t)p->buffers, sizeof *written_in), next = 0;
    cr_assert(p->sections > 0 && p->bands == (p->params.h + p->params.band - 1) / p->params.band);
    for (int i = 0; i < p->buffers; i++)
        written_in[i] = -1;
    for (int i = 0; i < p->ops; i++) {
        check_op(p, i, written_in);
        if (p->op[i].out.buf >= 0)
            written_in[p->op[i].out.buf] = p->op[i].section;
        if (next < p->sections && p->section[next].first == i)
            next++;
    }
    cr_assert_eq(next, p->sections);
    free(written_in);
}

/* No two buffers of the arena, or of the host block, that live at the same time share memory: a section is one time. */
static void check_places(const tsr_plan *p, tsr_step step) {
    const tsr_program *g = p->program[step];
    for (int i = 0; i < g->buffers; i++) {
        const tsr_buffer *a = &g->buffer[i];
        size_t at = p->buffer_at[step][i];
        cr_assert_leq(at + a->bytes, a->paged ? p->host_bytes : p->arena_bytes);
        for (int j = 0; j < i; j++) {
            const tsr_buffer *b = &g->buffer[j];
            size_t to = p->buffer_at[step][j];
            bool apart = a->last_op < b->first_op || b->last_op < a->first_op || a->paged != b->paged;
            bool in_place = g->op[b->last_op].kind == TSR_OP_NORM || g->op[a->last_op].kind == TSR_OP_NORM || a->head ||
                            b->head; /* whole frames of deep levels: test_plan looks at those */
            cr_assert(apart || (in_place && !a->whole && !b->whole) || at + a->bytes <= to || to + b->bytes <= at);
        }
        for (int k = 0; a->paged && k < g->caches; k++)
            cr_assert(p->host_at[k] == SIZE_MAX || p->host_at[k] + g->cache[k].bytes <= at);
        for (int k = 0; k < g->ops; k++) /* what an op touches lives through its section */
            if (g->op[k].section >= 0 && (g->op[k].in.buf == i || g->op[k].out.buf == i || g->op[k].stats == i))
                cr_assert(a->first_op <= g->section[g->op[k].section].first &&
                          a->last_op >= g->section[g->op[k].section].end - 1);
    }
}

static void check_plan(const tsr_plan *p) {
    const tsr_plan_bytes *b = &p->info.bytes;
    cr_assert_eq(b->total, b->weights + b->arena + b->caches + b->slots + b->frames);
    cr_assert_leq(b->total, p->info.budget);
    cr_assert_eq(b->arena, (int64_t)p->arena_bytes);
    cr_assert_geq(b->host, (int64_t)p->host_bytes);
    cr_assert_eq(p->info.mode == TSR_MODE_EXACT, p->info.bands > 0);
    cr_assert_neq(p->info.mode, TSR_MODE_TILED);
    for (tsr_step s = 0; s < TSR_STEP_COUNT && p->program[s] && p->info.bands; s++) {
        check_program(p->program[s]);
        check_places(p, s);
    }
}

static int64_t bytes_named(void) { /* "... (123456 bytes)" */
    const char *at = strchr(tsr_last_error(), '(');
    return at ? atoll(at + 1) : -1;
}

Test(plans, of_any_size_and_budget) {
    int modes[TSR_MODE_EXACT + 1] = {0}, refused = 0;
    tsr_vae *v = shapes_vae(&(synth_config){.channels = {32, 32, 64, 64}, .layers = 1, .decoder = true});
    tsr_target target = shapes_target();
    target.bands = true;
    for (int c = 0; c < (SANITIZED ? 100 : 400); c++) {
        tsr_extent e = {1 + below(5), 1 + below(c % 3 ? 30 : 200), 1 + below(c % 4 ? 30 : 200)};
        tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
        params.precision = TSR_PRECISION_F32 + below(5);
        params.exact = true;
        params.budget = 3000000 + ((int64_t)1 << below(c % 2 ? 28 : 33));
        params.tile_height = below(4) ? 0 : 8 * (1 + below(20));
        tsr_plan *p;
        tsr_status status = tsr_plan_make(&p, &v->decoder, &target, &e, &params);
        if (status == TSR_ERR_BUDGET) {
            int64_t need = bytes_named();
            cr_assert_gt(need, params.budget, "%s", tsr_last_error());
            params.budget = need - 1;
            cr_assert_eq(tsr_plan_make(&p, &v->decoder, &target, &e, &params), TSR_ERR_BUDGET);
            cr_assert_eq(bytes_named(), need, "%s", tsr_last_error());
            params.budget = need; /* that much it is */
            status = tsr_plan_make(&p, &v->decoder, &target, &e, &params);
            refused++;
        }
        cr_assert_eq(status, TSR_OK, "%s", tsr_last_error());
        check_plan(p);
        modes[p->info.mode]++;
        tsr_plan_free(&p);
    }
    cr_assert(modes[TSR_MODE_UNTILED] > 10 && modes[TSR_MODE_EXACT] > 20 && refused > 4,
        "%d untiled, %d exact, %d refused", modes[TSR_MODE_UNTILED], modes[TSR_MODE_EXACT], refused);
    tsr_vae_destroy(&v);
}

static tsr_mode mode_of(const tsr_vae *v, const tsr_target *target, tsr_plan_params params, double *against_tiles) {
    tsr_plan *p;
    ok(tsr_plan_make(&p, &v->decoder, target, &(tsr_extent){5, 60, 90}, &params));
    tsr_mode mode = p->info.mode;
    *against_tiles = 0;
    for (int i = p->candidates - 1; i > 0; i--)
        if (p->candidate[i].mode == TSR_MODE_TILED && p->candidate[i].fits)
            *against_tiles = p->candidate[0].seconds / p->candidate[i].seconds;
    cr_assert(mode != TSR_MODE_EXACT || strstr(p->info.why, "no seams"), "%s", p->info.why);
    tsr_plan_free(&p);
    return mode;
}

/* Where the host's memory is the device's, and nobody asks for tiles. */
Test(plans, bands_stand_in_for_tiles) {
    tsr_vae *v = shapes_vae(&(synth_config){.channels = {32, 32, 64, 64}, .layers = 1, .decoder = true});
    tsr_target target = shapes_target(), card;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT, asked;
    target.flops_f32 = target.flops_16 = target.flops_8 = 2e11; /* a CPU's */
    target.bandwidth = 2e10;
    target.link_bandwidth = 0;
    card = target;
    double share;
    params.precision = TSR_PRECISION_F32;
    params.budget = 200 << 20;
    target.bands = target.host_is_device = card.bands = true;
    cr_assert_eq(mode_of(v, &target, params, &share), TSR_MODE_EXACT);
    cr_assert(share > 0 && share <= 1.2, "%.2f of the time of tiles", share);
    cr_assert_eq(mode_of(v, &card, params, &share), TSR_MODE_TILED, "rows would cross a link");
    asked = params, asked.tile_width = asked.tile_height = 160;
    cr_assert_eq(mode_of(v, &target, asked, &share), TSR_MODE_TILED);
    asked = params, asked.overlap_width = asked.overlap_height = 32;
    cr_assert_eq(mode_of(v, &target, asked, &share), TSR_MODE_TILED);
    asked = params, asked.caches = TSR_CACHES_DEVICE;
    cr_assert_eq(mode_of(v, &target, asked, &share), TSR_MODE_TILED);
    target.link_bandwidth = 1e8; /* dear rows */
    cr_assert_eq(mode_of(v, &target, params, &share), TSR_MODE_TILED);
    target.link_bandwidth = 0;
    target.host_free = 512 << 20; /* of which the device's are taken, too */
    cr_assert_eq(mode_of(v, &target, params, &share), TSR_MODE_TILED);
    tsr_vae_destroy(&v);
}

Test(plans, where_bands_are_not_made_say_so) {
    tsr_vae *v = shapes_vae(&(synth_config){.channels = {32, 32, 64, 64}, .layers = 1, .decoder = true});
    tsr_target target = shapes_target();
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *p;
    params.exact = true;
    params.budget = 20000000;
    cr_assert_eq(tsr_plan_make(&p, &v->decoder, &target, &(tsr_extent){3, 60, 60}, &params), TSR_ERR_BUDGET);
    cr_assert(strstr(tsr_last_error(), "exact tiles are not made"), "%s", tsr_last_error());
    tsr_vae_destroy(&v);
}

/* ---------------------------------------------------------------- from end to end */

typedef struct job {
    tsr_model *model;
    tsr_latent *latent;
    tsr_engine *engine;
    float *video; /* [frame][3][height][width] */
    tsr_plan_info info;
    tsr_result result;
} job;

static tsr_status keep(void *user, const tsr_frame *f) {
    job *j = user;
    memcpy((char *)j->video + (size_t)f->index * f->bytes, f->data, f->bytes);
    return TSR_OK;
}

/* Decodes; info and result are of the last plan. The caller's to free. */
static float *render(job *j, tsr_plan_params params) {
    const tsr_latent_info *i = tsr_latent_get_info(j->latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    tsr_plan *plan;
    ok(tsr_plan_create(&plan, j->engine, j->model, &extent, &params));
    j->info = *tsr_plan_get_info(plan);
    j->video = malloc(sizeof(float) * 3 * (size_t)j->info.frames * (size_t)j->info.width * (size_t)j->info.height);
    ok(tsr_decode(j->engine, j->model, j->latent, plan,
        &(tsr_decode_params){.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep, .user = j}, &j->result));
    cr_assert_eq(j->result.host_peak_bytes, j->info.bytes.host);
    cr_assert_eq(j->result.peak_bytes, j->info.bytes.total, "%lld bytes where %lld were planned",
        (long long)j->result.peak_bytes, (long long)j->info.bytes.total);
    tsr_plan_destroy(&plan);
    return j->video;
}

Test(video, in_bands_is_that_of_whole_frames) {
    job j = {0};
    const char *path = temp_path("exact.safetensors");
    ok(synth_model_write(path, &(synth_config){.channels = {32, 32, 64}, .layers = 1, .decoder = true}));
    ok(tsr_model_open(&j.model, path));
    float *z = synth_latent(16, 3, 12, 5, 0);
    ok(tsr_latent_from_memory(&j.latent, z, 3, 12, 5, 16));
    free(z);
    tsr_engine_params engine = TSR_ENGINE_PARAMS_DEFAULT;
    engine.device = TSR_DEVICE_CPU;
    engine.threads = 1;
    ok(tsr_engine_create(&j.engine, &engine));
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = TSR_PRECISION_F32;
    params.exact = true;
    float *whole = render(&j, params);
    cr_assert_eq(j.info.mode, TSR_MODE_UNTILED);
    size_t n = 3 * (size_t)j.info.frames * (size_t)j.info.width * (size_t)j.info.height;
    params.tile_height = 16;
    float *bands = render(&j, params);
    cr_assert(j.info.mode == TSR_MODE_EXACT && j.info.bands == 3, "%s", j.info.why);
    cr_assert_geq(psnr(bands, whole, n), 110, "%.1f dB", psnr(bands, whole, n));
    free(bands);
    free(whole);
    tsr_engine_destroy(&j.engine);
    tsr_latent_close(&j.latent);
    tsr_model_close(&j.model);
    cr_assert(tsr_mem_used() == 0 && tsr_mem_host_used() == 0);
}

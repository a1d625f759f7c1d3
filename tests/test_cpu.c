/* The CPU backend around its ops: memory as planned, failing, cancelling, caches that leave and
 * come back. */
#include "sanitized.h"
#include "synthetic.h"
#include "temp.h"

#include "backend/cpu/cpu.h"
#include "backend/cpu/simd.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())

enum { LATENTS = 4, H = 5, W = 4 };

typedef struct rig {
    tsr_vae *vae;
    tsr_backend *b;
    tsr_plan *plan;
    tsr_exec *x;
    tsr_slab slab;
    atomic_bool cancel;
    float *z; /* [LATENTS][H][W][16] */
} rig;

static void rig_model(rig *r) {
    const char *path = temp_path("model.safetensors");
    tsr_tensor_file *file;
    *r = (rig){0};
    ok(synth_model_write(path, &(synth_config){.channels = {32, 32, 64, 64}, .decoder = true}));
    ok(tsr_tensor_file_open(&file, path));
    ok(tsr_vae_create(&r->vae, file));
    r->z = synth_latent(16, LATENTS, H, W, 0);
}

static tsr_plan *plan_of(const rig *r, tsr_precision precision, tsr_extent extent) {
    tsr_target target;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *plan;
    r->b->v->target(r->b, &target);
    params.precision = precision;
    params.budget = 1ll << 31;
    ok(tsr_plan_make(&plan, &r->vae->decoder, &target, &extent, &params));
    return plan;
}

static void rig_plan(rig *r, bool reference, int threads, int latents) {
    ok(tsr_cpu_create(&r->b, &(tsr_cpu_params){.reference = reference, .threads = threads}));
    r->b->cancel = &r->cancel;
    r->plan = plan_of(r, TSR_PRECISION_F32, (tsr_extent){latents, H, W});
}

static tsr_status rig_prepare(rig *r) {
    tsr_status status = r->b->v->slab_alloc(r->b, (size_t)r->plan->slots * r->plan->slot_bytes, &r->slab);
    return status == TSR_OK ? r->b->v->prepare(r->b, r->plan, &r->x) : status;
}

static void rig_release(rig *r) {
    r->b->v->exec_destroy(r->b, &r->x);
    r->b->v->slab_free(r->b, &r->slab);
}

static void rig_close(rig *r) {
    rig_release(r);
    tsr_plan_free(&r->plan);
    r->b->v->destroy(r->b);
    tsr_vae_destroy(&r->vae);
    free(r->z);
    cr_assert_eq(tsr_mem_used(), 0, "%zu bytes are still in use", tsr_mem_used());
}

static tsr_status step(rig *r, int t, int slot) {
    tsr_step_args args = {.step = tsr_plan_step(r->plan, t),
        .input = r->z + (size_t)t * H * W * 16,
        .slab = &r->slab,
        .slot_at = (size_t)slot * r->plan->slot_bytes};
    return r->b->v->step(r->b, r->x, &args);
}

static size_t values(const rig *r, int t) {
    const tsr_program *p = r->plan->program[tsr_plan_step(r->plan, t)];
    return (size_t)p->out_frames * (size_t)p->out_c * (size_t)p->out_h * (size_t)p->out_w;
}

/* All frames, one step's after the other; between two steps `between` may do what it likes. */
static float *decode(rig *r, int latents, void (*between)(rig *r)) {
    size_t at = 0, all = 0;
    for (int t = 0; t < latents; t++)
        all += values(r, t);
    float *out = malloc(all * sizeof *out);
    for (int t = 0; t < latents; t++) {
        ok(step(r, t, t % r->plan->slots));
        const char *slot = (const char *)r->slab.host + (size_t)(t % r->plan->slots) * r->plan->slot_bytes;
        memcpy(out + at, slot, values(r, t) * sizeof *out);
        at += values(r, t);
        if (between)
            between(r);
    }
    return out;
}

Test(cpu, takes_what_the_plan_says_and_nothing_while_decoding) {
    for (int reference = 0; reference < 2; reference++)
        for (int latents = 1; latents <= (SANITIZED && reference ? 1 : LATENTS); latents += 3) {
            rig r;
            rig_model(&r);
            rig_plan(&r, reference, 0, latents);
            const tsr_plan_bytes *b = &r.plan->info.bytes;
            tsr_mem_reset_peak();
            ok(rig_prepare(&r));
            tsr_mem_fail_at(0); /* the first one that is asked for now fails */
            free(decode(&r, latents, NULL));
            tsr_mem_fail_at(-1);
            cr_assert_eq((int64_t)tsr_mem_peak(), b->total - b->frames, "peak %zu, planned %lld", tsr_mem_peak(),
                (long long)(b->total - b->frames));
            rig_close(&r);
        }
}

Test(cpu, every_allocation_may_fail) {
    rig r;
    rig_model(&r);
    rig_plan(&r, false, 0, LATENTS);
    int failures = 0;
    for (int n = 0;; n++) {
        tsr_mem_fail_at(n);
        tsr_status status = rig_prepare(&r);
        tsr_mem_fail_at(-1);
        rig_release(&r);
        cr_assert_eq(tsr_mem_used(), 0);
        if (status == TSR_OK)
            break;
        cr_assert_eq(status, TSR_ERR_MEMORY);
        failures++;
    }
    cr_assert_eq(failures, 3, "slots, activations with caches, and weights, not %d", failures);
    rig_close(&r);
}

Test(cpu, stops_when_told) {
    rig r;
    rig_model(&r);
    rig_plan(&r, false, 0, LATENTS);
    ok(rig_prepare(&r));
    atomic_store(&r.cancel, true);
    cr_assert_eq(step(&r, 0, 0), TSR_ERR_CANCELLED);
    atomic_store(&r.cancel, false);
    cr_assert_eq(step(&r, 0, 0), TSR_OK);
    rig_close(&r);
}

/* Convolutions of ours, which may take a second each, leave off in the middle. */
Test(cpu, stops_within_a_convolution) {
    rig r;
    rig_model(&r);
    rig_plan(&r, false, 0, LATENTS);
    ok(rig_prepare(&r));
    ok(step(&r, 0, 0));
    const tsr_program *p = r.plan->program[TSR_STEP_FIRST];
    int stopped = 0;
    for (int i = 0; i < p->ops; i++) {
        const tsr_bound_op *b = &r.x->op[TSR_STEP_FIRST][i];
        if (p->op[i].kind != TSR_OP_CONV || !strstr(b->tier->name, "AVX2"))
            continue;
        tsr_op_io io = b->io;
        const tsr_buffer *out = &p->buffer[p->op[i].out.buf];
        size_t bytes = (size_t)out->h * (size_t)out->w * (size_t)out->c * tsr_dtype_size(out->dtype);
        char *before = malloc(bytes), *at = (char *)io.out + (size_t)p->op[i].out.t0 * bytes;
        atomic_store(&r.cancel, true);
        io.stop = &r.cancel;
        memset(at, 0x55, bytes);
        memcpy(before, at, bytes);
        ok(b->tier->op[TSR_OP_CONV].run(&io));
        cr_assert_arr_eq(at, before, bytes, "op %d", i);
        free(before);
        stopped++;
    }
    rig_close(&r);
    if (!stopped)
        cr_skip_test("no convolution of ours runs on this CPU");
}

static void swap_caches(rig *r) { /* out to the host, over them with rubbish, and back */
    size_t n = r->plan->cache_bytes;
    char *host = malloc(n), *rubbish = malloc(n);
    memset(rubbish, 0x7f, n);
    ok(r->b->v->park(r->b, r->x, 0, host));
    ok(r->b->v->unpark(r->b, r->x, 0, rubbish));
    ok(r->b->v->unpark(r->b, r->x, 0, host));
    free(host);
    free(rubbish);
}

static double difference(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        most = d <= most ? most : d; /* NaN counts */
    }
    return most;
}

Test(cpu, caches_leave_and_come_back) {
    rig r;
    rig_model(&r);
    rig_plan(&r, false, 0, LATENTS);
    ok(rig_prepare(&r));
    float *stay = decode(&r, LATENTS, NULL), *leave = decode(&r, LATENTS, swap_caches);
    size_t n = 0;
    for (int t = 0; t < LATENTS; t++)
        n += values(&r, t);
    cr_assert(!memcmp(stay, leave, n * sizeof *stay), "they differ by %g", difference(stay, leave, n));
    free(stay);
    free(leave);
    rig_close(&r);
}

Test(cpu, threads_and_tiers_agree) {
    only_as_shipped();
    static const struct {
        bool reference;
        int threads;
    } kinds[] = {{false, 2}, {false, 1}, {false, 3}, {true, 2}, {true, 1}};
    float *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        rig r;
        rig_model(&r);
        rig_plan(&r, kinds[i].reference, kinds[i].threads, 3); /* each kind of step once */
        ok(rig_prepare(&r));
        n = values(&r, 0) + values(&r, 1) + values(&r, 2);
        float *out = decode(&r, 3, NULL);
        if (first) {
            double off = difference(first, out, n);
            cr_assert_leq(off, 1e-4, "%s, %d threads: off by %g", kinds[i].reference ? "reference" : "fastest",
                kinds[i].threads, off);
            free(out);
        } else {
            first = out;
        }
        rig_close(&r);
    }
    free(first);
    tsr_threads_set(0);
}

/* A tile of one size after another of the same: nothing is left behind that matters. */
Test(cpu, a_second_video_does_not_see_the_first) {
    rig r;
    rig_model(&r);
    rig_plan(&r, false, 0, LATENTS);
    ok(rig_prepare(&r));
    float *once = decode(&r, LATENTS, NULL), *again = decode(&r, LATENTS, NULL);
    cr_assert(!memcmp(once, again, values(&r, 0) * sizeof *once));
    free(once);
    free(again);
    rig_close(&r);
}

/* ---------------------------------------------------------------- one plan after another */

/* Kernels whose first byte is not what packing wrote there: those that were left alone since. */
static int marked(const rig *r, const tsr_plan *plan, bool mark) {
    int n = 0;
    for (int i = 0; i < plan->weights; i++) {
        unsigned char *at = (unsigned char *)r->x->packed[i].at;
        if (mark)
            memset(at, 0xa5, 16);
        n += at[0] == 0xa5 && at[15] == 0xa5;
    }
    return n;
}

/* On to `next` in the pages of `plan`, which hold what would not go unnoticed: NaN, the largest codes. */
static void turn_in_dirty_pages(rig *r, const tsr_plan *plan, const tsr_plan *next) {
    char *arena = r->x->arena;
    size_t bytes = plan->arena_bytes + plan->cache_bytes * (size_t)plan->cache_sets;
    memset(arena, 0xff, bytes);
    ok(r->b->v->turn(r->b, next, &r->x));
    cr_assert(next->arena_bytes + next->cache_bytes * (size_t)next->cache_sets <= bytes, "it has no pages to keep");
    cr_assert(r->x->arena == arena && arena[0] == (char)0xff, "they are fresh");
}

static void turn_and_compare(tsr_precision precision) {
    rig r;
    rig_model(&r);
    rig_plan(&r, false, 0, LATENTS);
    tsr_plan_free(&r.plan);
    tsr_plan *other = plan_of(&r, precision, (tsr_extent){LATENTS, 3 * H, 2 * W});
    r.plan = plan_of(&r, precision, (tsr_extent){LATENTS, H, W});
    ok(rig_prepare(&r));
    float *fresh = decode(&r, LATENTS, NULL);
    int64_t used = (int64_t)tsr_mem_used();
    ok(r.b->v->turn(r.b, other, &r.x));
    turn_in_dirty_pages(&r, other, r.plan);
    cr_assert_eq((int64_t)tsr_mem_used(), used);
    float *turned = decode(&r, LATENTS, NULL);
    size_t n = 0;
    for (int t = 0; t < LATENTS; t++)
        n += values(&r, t);
    cr_assert(!memcmp(fresh, turned, n * sizeof *fresh), "they differ by %g", difference(fresh, turned, n));
    cr_assert_eq(marked(&r, r.plan, false), 0);
    marked(&r, r.plan, true);
    ok(r.b->v->turn(r.b, other, &r.x));
    cr_assert_gt(marked(&r, other, false), 0, "all kernels were packed again");
    tsr_mem_fail_at(0);
    cr_assert_eq(r.b->v->turn(r.b, r.plan, &r.x), TSR_ERR_MEMORY);
    tsr_mem_fail_at(-1);
    cr_assert_null(r.x);
    tsr_plan_free(&other);
    free(fresh);
    free(turned);
    rig_close(&r);
}

Test(cpu, another_plan_keeps_packed_weights) {
    turn_and_compare(TSR_PRECISION_F32);
    turn_and_compare(TSR_PRECISION_INT8);
}

/* Weights and all, but in the pages that are there. */
static void turn_precision_and_compare(tsr_precision from, tsr_precision to) {
    rig r;
    rig_model(&r);
    rig_plan(&r, false, 0, LATENTS);
    tsr_plan_free(&r.plan);
    tsr_plan *other = plan_of(&r, from, (tsr_extent){LATENTS, 3 * H, 2 * W});
    r.plan = plan_of(&r, to, (tsr_extent){LATENTS, H, W});
    ok(rig_prepare(&r));
    float *fresh = decode(&r, LATENTS, NULL);
    int64_t used = (int64_t)tsr_mem_used();
    ok(r.b->v->turn(r.b, other, &r.x));
    tsr_mem_reset_peak();
    size_t before = tsr_mem_used();
    turn_in_dirty_pages(&r, other, r.plan);
    cr_assert_eq(tsr_mem_peak(), before, "%zu bytes at once, %zu are planned", tsr_mem_peak(), before);
    cr_assert_eq((int64_t)tsr_mem_used(), used);
    float *turned = decode(&r, LATENTS, NULL);
    cr_assert(!memcmp(fresh, turned, values(&r, 0) * sizeof *fresh));
    for (int n = 0; r.x; n++) { /* which fails in every place */
        cr_assert_lt(n, 2);
        tsr_mem_fail_at(n);
        cr_assert_eq(r.b->v->turn(r.b, other, &r.x), TSR_ERR_MEMORY);
        tsr_mem_fail_at(-1);
        cr_assert_null(r.x);
        cr_assert_eq(tsr_mem_used(), r.slab.bytes);
        if (n == 0)
            ok(r.b->v->prepare(r.b, r.plan, &r.x));
    }
    tsr_plan_free(&other);
    free(fresh);
    free(turned);
    rig_close(&r);
}

Test(cpu, another_precision_packs_anew) {
    turn_precision_and_compare(TSR_PRECISION_INT8, TSR_PRECISION_F32);
    turn_precision_and_compare(TSR_PRECISION_F32, TSR_PRECISION_INT8);
}

/* On from f32, whose weights are of the same type and size as the rounded ones of fp16. */
Test(cpu, another_rounding_packs_anew) {
    static const tsr_precision all[] = {TSR_PRECISION_INT8, TSR_PRECISION_FP8, TSR_PRECISION_FP16, TSR_PRECISION_BF16};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rig r;
        rig_model(&r);
        rig_plan(&r, false, 0, LATENTS);
        tsr_plan *f32 = r.plan;
        r.plan = plan_of(&r, all[i], (tsr_extent){LATENTS, H, W});
        ok(rig_prepare(&r));
        float *fresh = decode(&r, LATENTS, NULL);
        r.b->v->exec_destroy(r.b, &r.x);
        ok(r.b->v->prepare(r.b, f32, &r.x));
        ok(r.b->v->turn(r.b, r.plan, &r.x));
        float *turned = decode(&r, LATENTS, NULL);
        cr_expect(!memcmp(fresh, turned, values(&r, 0) * sizeof *fresh), "%s", tsr_precision_name(all[i]));
        tsr_plan_free(&f32);
        free(fresh);
        free(turned);
        rig_close(&r);
    }
}

static void count_line(void *user, const char *key, const char *value) {
    int *lines = user;
    cr_assert(key && value && *key && *value);
    (*lines)++;
}

Test(cpu, says_what_it_is) {
    rig r;
    char why[128];
    int lines = 0;
    tsr_target target;
    rig_model(&r);
    rig_plan(&r, false, 0, 1);
    r.b->v->report(r.b, count_line, &lines);
    cr_assert_geq(lines, 3);
    tsr_precision best = r.b->v->best(r.b, &r.vae->decoder, why);
    cr_assert(
        best == TSR_PRECISION_INT8 ? strstr(why, "faster than f32") != NULL : best == TSR_PRECISION_F32, "%s", why);
    tsr_backend *plain;
    cr_assert_eq(tsr_cpu_create(&plain, &(tsr_cpu_params){.reference = true}), TSR_OK);
    cr_assert_eq(plain->v->best(plain, &r.vae->decoder, why), TSR_PRECISION_F32);
    plain->v->destroy(plain);
    r.b->v->target(r.b, &target);
    cr_assert(target.memory_free > 0 && target.memory_free <= target.memory_total);
    cr_assert(target.flops_f32 > 0 && target.bandwidth > 0);
    cr_assert(r.b->v->gemm_rate(r.b, TSR_PRECISION_F32, 128, 128, 128) > 0);
    bool codes = tsr_tier_codes_gemm(((const tsr_cpu *)r.b)->tiers) != NULL;
    cr_assert_eq(r.b->v->gemm_rate(r.b, TSR_PRECISION_INT8, 128, 128, 128) > 0, codes);
    cr_assert(r.b->v->copy_rate(r.b, 1 << 20) > 0);
    cr_assert_eq(r.b->v->copy_rate(r.b, 0), 0);
    rig_close(&r);
}

/* ---------------------------------------------------------------- loops */

/* v / (1 + e^-v) of every instruction set here, past the ends of its exponent and of what is a number. */
static void check_silu(const tsr_simd *simd, float gain_of_all) {
    enum { N = 3 << 15, CHANNELS = 96 };
    static float x[N], y[N], scale[CHANNELS], shift[CHANNELS], gain[CHANNELS];
    static uint8_t code[N], two[N / CHANNELS][2][CHANNELS];
    const float odd[] = {NAN, -NAN, INFINITY, 1e30f, -1e6f, 87, -87, 88.5f, -88.5f, 0};
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * (300.0f / N);
    memcpy(x, odd, sizeof odd);
    for (int i = 0; i < CHANNELS; i++) {
        scale[i] = 1;
        gain[i] = gain_of_all;
    }
    simd->affine(x, y, N / CHANNELS, CHANNELS, scale, shift, true);
    simd->codes(x, code, N / CHANNELS, CHANNELS, 1, scale, shift, gain, 28, true);
    simd->codes(x, two[0][0], N / CHANNELS, CHANNELS, 2, scale, shift, gain, 14, true);
    for (int i = 0; i < N; i++) {
        double v = (double)x[i], right = v / (1 + exp(-v)), by = (double)gain_of_all;
        bool same = isnan(v)   ? isnan(y[i])
                    : isinf(v) ? (double)y[i] == v
                               : fabs((double)y[i] - right) <= 2e-7 * fmax(1, fabs(v));
        cr_assert(same, "silu of %g is %g", v, (double)y[i]);
        /* where codes are made, SiLU may be a table of polynomials */
        double error = isnan(v) ? code[i] : fabs(code[i] - fmin(255, fmax(0, right * by + 28)));
        cr_assert(isnan(v) ? error == 0 : error <= 0.5 + by * 2.3e-5, "the code of %g is %d", v, code[i]);
        int down = two[i / CHANNELS][0][i % CHANNELS], up = two[i / CHANNELS][1][i % CHANNELS];
        cr_assert(up == down || up == down + 1);
        cr_assert(down + up == code[i] || (code[i] == 255 && down + up >= 255), "planes of %g: %d, %d", v, down, up);
        cr_assert(!isinf(v) || down + up == 510);
    }
}

Test(loops, silu_holds_at_every_size) {
    for (float gain = 100; gain > 1; gain /= 5) { /* codes of SiLU up to 2, 11 and 57 */
        check_silu(&tsr_simd_baseline, gain);
#ifdef __x86_64__
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            check_silu(&tsr_simd_avx2, gain);
#endif
        check_silu(tsr_simd_best(), gain);
    }
}

static void check_recode(const tsr_simd *simd, tsr_code_range old, tsr_code_range now) {
    uint8_t all[256], want[256], have[256];
    for (int q = 0; q < 256; q++)
        have[q] = all[q] = (uint8_t)q;
    tsr_requantise(all, old, want, now, 256);
    simd->recode(have, have, 256, old.scale / now.scale, old.zero, now.zero);
    cr_assert_arr_eq(have, want, 256, "from %g, %d to %g, %d", (double)old.scale, old.zero, (double)now.scale, now.zero);
}

Test(loops, cached_codes_are_those_of_the_definition) {
    for (int i = 0; i < 3000; i++) {
        tsr_code_range old = {exp2f((float)(i % 37) / 128), 20 + i % 41};
        tsr_code_range now = {i % 17 ? exp2f((float)(i % 53 * 11) / 128) : NAN, i % 63};
        check_recode(&tsr_simd_baseline, old, now);
#ifdef __x86_64__
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            check_recode(&tsr_simd_avx2, old, now);
#endif
        check_recode(tsr_simd_best(), old, now);
    }
}

/* ---------------------------------------------------------------- rates that are kept */

static char kept_name[256], kept_text[256]; /* one file of a cache folder */
static int kept_times;

static char *read_kept(const char *name) {
    return strcmp(name, kept_name) == 0 ? strdup(kept_text) : NULL;
}

static void keep(const char *name, const char *text) {
    snprintf(kept_name, sizeof kept_name, "%s", name);
    snprintf(kept_text, sizeof kept_text, "%s", text);
    kept_times++;
}

/* The rates of a start, whose folder holds this. */
static tsr_target start(tsr_cpu_params params) {
    tsr_backend *b;
    tsr_target target;
    ok(tsr_cpu_create(&b, &params));
    b->kept = read_kept;
    b->keep = keep;
    b->v->target(b, &target);
    b->v->destroy(b);
    return target;
}

static void age(long long seconds, double gemm, double bandwidth) {
    snprintf(
        kept_text, sizeof kept_text, "tessera rates 1\n%lld %g %g\n", (long long)time(NULL) - seconds, gemm, bandwidth);
}

Test(cpu, a_second_start_has_the_rates_of_the_first) {
    const tsr_cpu_params one = {.threads = 1}, plain = {.threads = 1, .reference = true};
    tsr_target first = start(one), second = start(one);
    cr_assert_eq(kept_times, 1);
    cr_assert(first.flops_f32 == second.flops_f32 && first.bandwidth == second.bandwidth);
    char name[256];
    strcpy(name, kept_name);
    start(plain);
    cr_assert(kept_times == 2 && strcmp(name, kept_name) != 0, "other ops have rates of their own");
    age(60, 3e9, 4e9);
    second = start(plain);
    cr_assert(kept_times == 2 && second.flops_f32 == 3e9 && second.bandwidth == 4e9);
}

Test(cpu, rates_are_measured_again_and_the_better_stay) {
    const tsr_cpu_params plain = {.threads = 1};
    start(plain);
    age(7200, 2e6, 1e17); /* on a machine that others had; better than can be */
    tsr_target later = start(plain);
    cr_assert(kept_times == 2 && later.flops_f32 > 2e6 && later.bandwidth == 1e17);
    age(-7200, 2e6, 2e6); /* the clock was wrong then */
    cr_assert(start(plain).flops_f32 > 2e6 && kept_times == 3);
    const char *const rubbish[] = {"", "tessera rates 1\n", "tessera rates 1\n99999999999 nan inf\n",
        "tessera rates 1\n99999999999 -1 1e300\n", "tessera rates 2\n1 1e9 1e9\n"};
    for (int i = 0; i < 5; i++) {
        strcpy(kept_text, rubbish[i]);
        tsr_target t = start(plain);
        cr_assert(kept_times == 4 + i && t.flops_f32 > 0 && t.flops_f32 < 1e17 && t.bandwidth > 0);
    }
}

/*
 * Every op of every tier against the plain C reference: random and extreme inputs, guard bytes
 * around each buffer, error bounds by op. A new tier that is in tsr_tier_at() is checked without a
 * change here.
 *
 *     kernelcheck            TAP: one line a tier and case
 *     kernelcheck --bench    time and GFLOP/s of each tier at the published model's shapes, next to
 * a plain product
 */
#include "kernel_case.h"
#include "sanitized.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- bounds */

/* How far a value of the buffer's type may be from the next. */
static double quantum(const tsr_buffer *b, const tsr_quant *q, double x) {
    switch (b->dtype) {
    case TSR_F16:
        return fabs(x) * 0x1p-10 + 0x1p-24;
    case TSR_BF16:
        return fabs(x) * 0x1p-7 + 0x1p-126;
    case TSR_E4M3:
        return fabs(x) * 0x1p-3 + 0x1p-9 * (double)q->scale;
    case TSR_U8:
        return (double)q->scale;
    default:
        return 0;
    }
}

static double work(const spec *s) { /* multiply-adds */
    return (double)s->cin * s->cout * s->nt * s->h * s->w * s->kt * s->k * s->k * s->phases;
}
static const double LARGE = 2e7;

/* What errors are measured by. CONV: the reference with every number's absolute value; in large
 * cases, whose inputs are random, what that comes to. ATTENTION: the largest input.
 * Others: 1. */
static void magnitudes(const spec *s, world *like, float *out, size_t n) {
    world v;
    const tsr_buffer *b = &like->buffer[IN];
    size_t size = tsr_dtype_size(b->dtype);
    float most = s->kind == TSR_OP_ATTENTION ? 0 : 1;
    if (s->kind != TSR_OP_CONV || work(s) > LARGE) {
        for (size_t i = 0; i < b->bytes / size && s->kind == TSR_OP_ATTENTION; i++) {
            float x;
            tsr_ref_get(&like->program, b, like->in.at + i * size, 0, 1, &x);
            most = fabsf(x) < 1e29f ? fmaxf(most, fabsf(x)) : most; /* not those that make scores infinite */
        }
        if (s->kind == TSR_OP_CONV)
            most = 0.5f * sqrtf((float)s->cin * (float)(s->kt * s->k * s->k));
        for (size_t i = 0; i < n; i++)
            out[i] = most;
        return;
    }
    world_new(&v, s, FILL_ZERO);
    if (has_range(like, IN)) { /* codes are not negative: nothing cancels where zero is 0 */
        memcpy(v.in.at, like->in.at, b->bytes);
        memcpy(v.scales.at, like->scales.at, v.scales.bytes);
        v.range.zero = 0;
    }
    for (size_t i = 0; i < b->bytes / size && !has_range(like, IN); i++) {
        float x;
        tsr_ref_get(&v.program, b, like->in.at + i * size, 0, 1, &x);
        x = fabsf(x);
        tsr_ref_put(&v.program, b, v.in.at + i * size, 0, 1, &x);
    }
    for (size_t i = 0; i < v.weights.bytes / 4; i++)
        ((float *)v.weights.at)[i] = fabsf(((float *)like->weights.at)[i]);
    for (size_t i = 0; i < v.biases.bytes / 4; i++)
        ((float *)v.biases.at)[i] = fabsf(((float *)like->biases.at)[i]);
    run_once(tsr_tier_at(0), &v);
    const tsr_buffer *to = &v.buffer[OUT];
    for (size_t i = 0; i < n; i++)
        tsr_ref_get(&v.program, to, v.out.at + i * tsr_dtype_size(to->dtype), 0, 1, &out[i]);
    world_free(&v);
}

/* Largest error allowed at a value of the reference. */
static double bound_of(const world *v, double want, double magnitude, double input, const double *stats) {
    const spec *s = v->s;
    double terms = (double)s->cin * s->kt * s->k * s->k, ulp = 0x1p-24,
           count = (double)s->cin / TSR_GROUPS * rows_summed(s) * s->w;
    switch (s->kind) {
    case TSR_OP_CONV: /* rounding errors of a sum walk at random; phases exchange one bias of 0.3
                         for another */
        return (4 + 2 * sqrt(terms)) * ulp * (magnitude + fabs(want)) + 1e-37 + (s->phases == 4 ? 3 * ulp * 0.6 : 0);
    case TSR_OP_NORM: { /* |x scale| + |shift|, some roundings each */
        double mean = stats[0] / count,
               deviation = sqrt(fmax(0, stats[1] / count - mean * mean) + tsr_norm_eps(&v->buffer[IN]));
        return 8 * ulp * ((fabs(input) + fabs(mean)) / deviation * 2 + 2 + fabs(want));
    }
    case TSR_OP_ATTENTION: /* a weight is as wrong as its score, which may be sqrt(c) times the
                              square of an input */
        return 8 * ulp * (8 + sqrt((double)s->cout) * magnitude * magnitude) * magnitude;
    default:
        return 0;
    }
}

/* ---------------------------------------------------------------- comparing */

typedef struct verdict {
    char text[200]; /* empty: fine */
    double worst;   /* error by bound */
} verdict;

static bool same_bytes(const guarded *a, const guarded *b) {
    return memcmp(a->at, b->at, a->bytes) == 0;
}

static void compare_stats(const world *want, const world *have, verdict *r) {
    const double *a = (const double *)want->stats.at, *b = (const double *)have->stats.at;
    double count = (double)want->s->cin / TSR_GROUPS * want->s->h * want->s->w;
    for (size_t i = 0; i < want->stats.bytes / sizeof *a; i += 2) {
        if (i / 2 % (size_t)want->buffer[STATS].w >= TSR_GROUPS) { /* extremes are exact */
            if ((a[i] != b[i] || a[i + 1] != b[i + 1]) && !isnan(a[i]) && !isnan(a[i + 1]))
                snprintf(r->text, sizeof r->text, "extremes %g, %g, not %g, %g", b[i], b[i + 1], a[i], a[i + 1]);
            continue;
        }
        double spread = sqrt(count * fabs(a[i + 1])); /* at least the sum of |x| */
        double error[2] = {fabs(a[i] - b[i]) / (1e-12 * spread + 1e-300),
            fabs(a[i + 1] - b[i + 1]) / (1e-12 * fabs(a[i + 1]) + 1e-300)};
        for (int j = 0; j < 2; j++) {
            if (isfinite(a[i + (size_t)j]) != isfinite(b[i + (size_t)j]))
                snprintf(r->text, sizeof r->text, "sum %zu is %g, not %g", i + (size_t)j, b[i + (size_t)j],
                    a[i + (size_t)j]);
            if (isfinite(a[i + (size_t)j]) && error[j] > r->worst)
                r->worst = error[j];
        }
    }
}

static void compare_out(const world *want, const float *magnitude, const world *have, verdict *r) {
    const tsr_buffer *b = &want->buffer[OUT], *in = &want->buffer[IN];
    size_t size = tsr_dtype_size(b->dtype), n = b->bytes / size, frame = frame_bytes(b) / size;
    int top = tsr_picture_begin(b, want->s->band);
    for (size_t i = 0; i < n; i++) {
        float x, y, input = 0;
        int row = (int)(i % frame / ((size_t)b->w * (size_t)b->c));
        if (b->whole && (row < top || row >= top + b->whole)) /* outside of the picture: nobody reads what comes out */
            continue;
        tsr_ref_get(&want->program, b, want->out.at + i * size, 0, 1, &x);
        tsr_ref_get(&want->program, b, have->out.at + i * size, 0, 1, &y);
        size_t t = i / frame;
        bool inside = t >= BEFORE && t < BEFORE + (size_t)want->s->nt;
        if (want->s->kind == TSR_OP_NORM && inside)
            tsr_ref_get(&want->program, in, want->in.at + i * tsr_dtype_size(in->dtype), 0, 1, &input);
        size_t group = i % (size_t)b->c / ((size_t)b->c / TSR_GROUPS + (b->c < TSR_GROUPS));
        const double *stats = (const double *)want->stats.at + ((inside ? t - BEFORE : 0) * TSR_GROUPS + group) * 2;
        if (isfinite(x) != isfinite(y) && !r->text[0])
            snprintf(r->text, sizeof r->text, "value %zu is %g, not %g", i, (double)y, (double)x);
        if (!isfinite(x) || x == y)
            continue;
        double allowed = bound_of(want, (double)x, (double)magnitude[i], (double)input, stats) +
                         1.01 * quantum(b, &want->quant[1], (double)x);
        double error = fabs((double)x - (double)y) / allowed;
        if (!(error <= 1) && !r->text[0])
            snprintf(r->text, sizeof r->text, "value %zu is %.9g, not %.9g: %.1f times the bound", i, (double)y,
                (double)x, error);
        r->worst = fmax(r->worst, error);
    }
}

/* Rows that PAGE_IN and PAGE_OUT move are those of the definition: nobody else moves them. */
static void compare_pages(const world *v, verdict *r) {
    bool in = v->s->kind == TSR_OP_PAGE_IN;
    const tsr_buffer *band = &v->buffer[in ? OUT : IN], *frames = &v->buffer[in ? IN : OUT];
    const char *rows = in ? v->out.at : v->in.at, *whole = in ? v->in.at : v->out.at;
    size_t row = frame_bytes(band) / (size_t)band->h;
    int first = tsr_picture_begin(band, v->s->band), y0 = in ? 0 : band->halo, y1 = band->h - y0;
    for (int t = BEFORE; t < BEFORE + v->s->nt; t++)
        for (int y = y0; y < y1; y++) {
            const char *a = rows + ((size_t)t * (size_t)band->h + (size_t)y) * row;
            int p = y - first;
            bool inside = p >= 0 && p < frames->h, same = true;
            const char *b = inside ? whole + ((size_t)t * (size_t)frames->h + (size_t)p) * row : NULL;
            for (size_t i = 0; i < row; i++)
                same &= inside ? a[i] == b[i] : !in || a[i] == 0;
            if (!same)
                snprintf(r->text, sizeof r->text, "frame %d, row %d of the band is wrong", t, y);
        }
}

/* The range, and codes that may be rounded to the next: few, but where all pixels of a channel are the same number so is
 * the rounding of all. */
static void compare_codes(const world *want, const world *have, fill f, verdict *r) {
    const tsr_code_range *a = &want->range, *b = &have->range;
    if (a->zero != b->zero || (a->scale != b->scale && !(isnan(a->scale) && isnan(b->scale))))
        snprintf(r->text, sizeof r->text, "range is %g, %d, not %g, %d", (double)b->scale, b->zero, (double)a->scale,
            a->zero);
    size_t others = 0;
    for (size_t i = 0; i < want->out.bytes; i++) {
        int error = abs((int)(uint8_t)want->out.at[i] - (int)(uint8_t)have->out.at[i]);
        r->worst = fmax(r->worst, error);
        others += error > 0;
    }
    if (f != FILL_ZERO && others > 2 + want->out.bytes / 200)
        snprintf(r->text, sizeof r->text, "%zu of %zu codes differ", others, want->out.bytes);
}

/* magnitude: by what errors of the output's numbers are measured. */
static verdict compare(const world *want, const float *magnitude, const world *have, fill f) {
    verdict r = {"", 0};
    tsr_op_kind kind = want->s->kind;
    if (kind == TSR_OP_STATS)
        compare_stats(want, have, &r);
    else if (kind == TSR_OP_PAGE_IN || kind == TSR_OP_PAGE_OUT)
        compare_pages(have, &r);
    else if (kind == TSR_OP_NORM && has_range(want, OUT))
        compare_codes(want, have, f, &r);
    else if (kind == TSR_OP_CONV || kind == TSR_OP_NORM || kind == TSR_OP_ATTENTION || kind == TSR_OP_QUANTISE)
        compare_out(want, magnitude, have, &r);
    else if (!same_bytes(&want->out, &have->out) || !same_bytes(&want->cached, &have->cached) ||
             !same_bytes(&want->slot, &have->slot))
        snprintf(r.text, sizeof r.text, "bytes differ");
    if (!same_bytes(&want->in, &have->in) || (kind != TSR_OP_STATS && !same_bytes(&want->stats, &have->stats)))
        snprintf(r.text, sizeof r.text, "an input changed");
    if (r.worst > 1 && !r.text[0])
        snprintf(r.text, sizeof r.text, "%.1f times the bound", r.worst);
    return r;
}

/* ---------------------------------------------------------------- the two programs */

/* The reference takes long for large cases, and is itself only held to its guards and to giving the
 * same twice. */
static bool worth_it(const tsr_tier *t, const spec *s, fill f) {
    if (f == FILL_SCORES && s->kind != TSR_OP_ATTENTION)
        return false;
    bool small = s->kind != TSR_OP_CONV || work(s) <= LARGE;
    if (t == tsr_tier_at(0))
        return f == FILL_RANDOM && (small || !SANITIZED);
    return small || f == FILL_RANDOM || (f == FILL_NOT_FINITE && !SANITIZED);
}

/* What became of a case in one tier. */
typedef struct outcome {
    bool can, ran;
    char why[300]; /* empty: good */
    double worst;
} outcome;
enum { MOST_TIERS = 16 };

static void check_tier(const tsr_tier *t, const world *want, const float *magnitude, world *fresh, fill f, outcome *o) {
    world have;
    world_copy(&have, fresh);
    const char *wrong = run_once(t, &have);
    verdict r = {"", 0};
    if (!wrong)
        r = compare(want, magnitude, &have, f);
    o->ran = true;
    o->worst = fmax(o->worst, r.worst);
    if (wrong || r.text[0])
        snprintf(o->why, sizeof o->why, "%s inputs: %s", fill_name[f], wrong ? wrong : r.text);
    world_free(&have);
}

/* One case with one fill in all tiers that have not failed yet: the reference, which is slow, runs once. */
static void check_fill(const spec *s, fill f, outcome *of) {
    bool wanted = false;
    for (int i = 0; tsr_tier_at(i); i++)
        wanted |= of[i].can && !of[i].why[0] && worth_it(tsr_tier_at(i), s, f);
    if (!wanted)
        return;
    world fresh, want;
    world_new(&fresh, s, f);
    world_copy(&want, &fresh);
    const char *wrong = run_once(tsr_tier_at(0), &want);
    const tsr_buffer *out = &want.buffer[OUT];
    size_t n = out->bytes / tsr_dtype_size(out->dtype);
    float *magnitude = malloc(n * sizeof *magnitude);
    if (wrong)
        snprintf(of[0].why, sizeof of[0].why, "%s inputs: %s", fill_name[f], wrong);
    else
        magnitudes(s, &want, magnitude, n);
    for (int i = 0; tsr_tier_at(i) && !wrong; i++)
        if (of[i].can && !of[i].why[0] && worth_it(tsr_tier_at(i), s, f))
            check_tier(tsr_tier_at(i), &want, magnitude, &fresh, f, &of[i]);
    free(magnitude);
    world_free(&want);
    world_free(&fresh);
}

/* The count of those that failed. */
static int check_case(const spec *s, int *number) {
    outcome of[MOST_TIERS] = {0};
    int failed = 0;
    char text[160];
    world v;
    world_describe(&v, s);
    for (int i = 0; tsr_tier_at(i); i++)
        of[i].can = tier_runs(tsr_tier_at(i), &v);
    for (fill f = 0; f < FILLS; f++)
        check_fill(s, f, of);
    for (int i = 0; tsr_tier_at(i); i++) {
        bool good = !of[i].why[0];
        if (!of[i].ran && good)
            continue;
        printf("%s %d - %s: %s\n", good ? "ok" : "not ok", ++*number, tsr_tier_at(i)->name, spec_text(text, s));
        if (good && i > 0)
            printf("# %.2f of the bound\n", of[i].worst);
        if (!good)
            printf("# %s\n", of[i].why);
        failed += !good;
    }
    fflush(stdout);
    return failed;
}

static int check_all(void) {
    int number = 0, failed = 0;
    for (int j = 0; j < kernel_spec_count; j++) {
        case_seed = 1000 * (uint64_t)j;
        failed += check_case(&kernel_specs[j], &number);
    }
    printf("1..%d\n", number);
    return failed > 0;
}

/* The published decoder's shapes where a step spends its time, for latents of 16 x 16. */
static const spec benched[] = {
    CONV(512, 512, 1, 16, 16, 3, 3, .accumulate = true),
    CONV(512, 512, 1, 16, 16, 1, 3, .accumulate = true),
    CONV(512, 512, 2, 32, 32, 3, 3, .accumulate = true),
    CONV(512, 256, 4, 64, 64, 3, 3, .ny = 0),
    CONV(256, 256, 4, 64, 64, 3, 3, .accumulate = true),
    CONV(256, 256, 1, 64, 64, 1, 3, .accumulate = true),
    CONV(256, 128, 4, 128, 128, 3, 3, .ny = 0),
    CONV(128, 128, 4, 128, 128, 3, 3, .accumulate = true),
    CONV(128, 128, 1, 128, 128, 1, 3, .accumulate = true),
    CONV(128, 3, 4, 128, 128, 3, 3, .ny = 0),
    CONV(512, 256, 4, 64, 64, 1, 1, .ny = 0),
    CONV(256, 128, 4, 128, 128, 1, 1, .ny = 0),
    UP(512, 512, 1, 16, 16, 2, 2),
    UP(512, 512, 2, 32, 32, 2, 2),
    UP(256, 256, 4, 64, 64, 3, 1),
    UP(256, 256, 1, 64, 64, 1, 1),
    PLAIN(TSR_OP_STATS, 128, 4, 128, 128, .ny = 0),
    PLAIN(TSR_OP_NORM, 128, 4, 128, 128, .silu = true),
    PLAIN(TSR_OP_STATS, 512, 1, 16, 16, .ny = 0),
    PLAIN(TSR_OP_NORM, 512, 1, 16, 16, .silu = true),
    CONV(512, 512, 1, 16, 16, 3, 3, .accumulate = true, .in = TSR_U8),
    CONV(1024, 512, 1, 16, 16, 3, 3, .accumulate = true, .in = TSR_U8), /* of two planes */
    CONV(1024, 512, 1, 16, 16, 1, 3, .accumulate = true, .in = TSR_U8),
    CONV(512, 512, 2, 32, 32, 3, 3, .accumulate = true, .in = TSR_U8),
    CONV(256, 256, 4, 64, 64, 3, 3, .accumulate = true, .in = TSR_U8),
    CONV(128, 128, 4, 128, 128, 3, 3, .accumulate = true, .in = TSR_U8),
    CONV(128, 128, 1, 128, 128, 1, 3, .accumulate = true, .in = TSR_U8),
    PLAIN(TSR_OP_STATS, 128, 4, 128, 128, .out = TSR_U8),
    PLAIN(TSR_OP_NORM, 128, 4, 128, 128, .silu = true, .out = TSR_U8),
    {TSR_OP_ATTENTION, 1536, 512, 1, 16, 16, 1, 1, 1, 1, 0, 0, 1, 1, .ny = 0},
    {TSR_OP_ATTENTION, 1536, 512, 1, 64, 64, 1, 1, 1, 1, 0, 0, 1, 1, .ny = 0},
};

static double flops_of(const world *v) {
    const spec *s = v->s;
    const tsr_buffer *out = &v->buffer[OUT];
    double pixels = (double)s->nt * out->h * out->w;
    if (s->kind == TSR_OP_ATTENTION)
        return 4.0 * s->cout * s->h * s->w * pixels;
    return s->kind == TSR_OP_CONV ? 2.0 * s->cin * s->cout * s->kt * s->k * s->k * pixels : 0;
}

/* Seconds of the fastest of a few runs that take half a second in all. */
static double time_op(const tsr_tier *t, world *v) {
    bound b;
    double best = INFINITY, all = 0;
    if (bound_new(&b, t, v) != TSR_OK)
        return NAN;
    for (int i = 0; i < 20 && (i < 2 || all < 0.5); i++) {
        double begin = tsr_now();
        impl_of(t, v)->run(&b.io);
        double took = tsr_now() - begin;
        best = fmin(best, took);
        all += took;
    }
    bound_free(&b);
    return best;
}

/* The plain product of the same sizes: [pixels][taps cin] x [taps cin][cout], rows cut so that it
 * fits memory. */
static double gemm_rate(const world *v, int tiers) {
    const spec *s = v->s;
    int n = s->cout, k = s->cin * s->kt * s->k * s->k, m = s->nt * v->buffer[OUT].h * v->buffer[OUT].w;
    m = m > 4096 ? 4096 : m;
    float *x = calloc((size_t)m * (size_t)k + (size_t)k * (size_t)n + (size_t)m * (size_t)n, sizeof *x);
    double best = INFINITY;
    for (int i = 0; x && i < 4; i++) {
        double begin = tsr_now();
        tsr_tier_gemm(tiers)(
            m, n, k, x, k, x + (size_t)m * (size_t)k, n, 0, x + (size_t)m * (size_t)k + (size_t)k * (size_t)n, n);
        best = fmin(best, tsr_now() - begin);
    }
    free(x);
    return 2.0 * m * n * k / best;
}

static int bench_all(const char *only) {
    int tiers = 0;
    while (tsr_tier_at(tiers))
        tiers++;
    printf("%-44s %-9s %9s %9s %9s %9s\n", "op", "tier", "ms", "GFLOP/s", "product", "GB/s");
    for (size_t j = 0; j < sizeof benched / sizeof *benched; j++) {
        world v;
        char text[160];
        spec_text(text, &benched[j]);
        if (only && !strstr(text, only))
            continue;
        case_seed = j;
        world_new(&v, &benched[j], FILL_RANDOM);
        double flops = flops_of(&v), product = benched[j].kind == TSR_OP_CONV ? gemm_rate(&v, tiers) : 0;
        double bytes = (double)v.in.bytes + (benched[j].kind == TSR_OP_STATS ? 0 : (double)v.out.bytes);
        for (int i = flops > 2e9 ? 1 : 0; i < tiers; i++) {
            if (!tier_runs(tsr_tier_at(i), &v))
                continue;
            double seconds = time_op(tsr_tier_at(i), &v);
            printf("%-44s %-9s %9.3f %9.1f %9.1f %9.1f\n", text, tsr_tier_at(i)->name, seconds * 1e3,
                flops / seconds * 1e-9, product * 1e-9, bytes / seconds * 1e-9);
            fflush(stdout);
        }
        world_free(&v);
    }
    return 0;
}

int main(int argc, char **argv) {
    tsr_threads_set(0);
    if (argc > 1 && !strcmp(argv[1], "--bench"))
        return bench_all(argc > 2 ? argv[2] : NULL);
    if (argc > 1) {
        fprintf(stderr, "usage: kernelcheck [--bench [PART OF A NAME]]\n");
        return 2;
    }
    return check_all();
}

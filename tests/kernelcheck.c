/*
 * Every op of every tier against the plain C reference: random and extreme inputs, guard bytes around each buffer,
 * error bounds by op. A new tier that is in tsr_tier_at() is checked without a change here.
 *
 *     kernelcheck            TAP: one line a tier and case
 *     kernelcheck --bench    time and GFLOP/s of each tier at the published model's shapes, next to a plain product
 */
#include "backend/cpu/ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- cases */

typedef struct spec {
    tsr_op_kind kind;
    int cin, cout, nt, h, w;              /* h, w of the input */
    int kt, k, st, s, top, bottom;        /* CONV; kernels are square, left = top, right = bottom */
    int phases, out_dt;
    bool accumulate, silu, replicate;
    int y0, ny;                           /* rows of the output; ny 0: all */
    tsr_dtype in, out;
    tsr_quant quant[2];                   /* of in and out, where they are of 8 bits */
} spec;

#define CONV(cin, cout, nt, h, w, kt, k, ...)                                                      \
    {TSR_OP_CONV, cin, cout, nt, h, w, kt, k, 1, 1, (k) / 2, (k) / 2, 1, 1, __VA_ARGS__}
#define DOWN(cin, cout, nt, h, w, kt, st) {TSR_OP_CONV, cin, cout, nt, h, w, kt, 3, st, 2, 0, 1, 1, 1, .ny = 0}
#define UP(cin, cout, nt, h, w, kt, out_dt) {TSR_OP_CONV, cin, cout, nt, h, w, kt, 2, 1, 1, 1, 1, 4, out_dt, .ny = 0}
#define PLAIN(kind, c, nt, h, w, ...) {kind, c, c, nt, h, w, 1, 1, 1, 1, 0, 0, 1, 1, __VA_ARGS__}

static const spec cases[] = {
    /* the published model's convolutions, small pictures */
    CONV(16, 512, 1, 5, 7, 3, 3, .ny = 0),
    CONV(16, 512, 1, 5, 7, 1, 3, .ny = 0),
    CONV(512, 512, 1, 3, 4, 3, 3, .accumulate = true),
    CONV(512, 512, 1, 5, 3, 1, 3, .ny = 0),
    CONV(512, 512, 2, 2, 3, 3, 3, .ny = 0),
    CONV(512, 256, 4, 3, 3, 3, 3, .ny = 0),
    CONV(256, 256, 4, 4, 5, 3, 3, .accumulate = true),
    CONV(256, 128, 4, 5, 7, 3, 3, .ny = 0),
    CONV(128, 128, 4, 9, 11, 3, 3, .accumulate = true),
    CONV(128, 128, 1, 19, 17, 1, 3, .accumulate = true),
    CONV(128, 3, 4, 17, 19, 3, 3, .ny = 0),
    CONV(128, 3, 1, 17, 19, 1, 3, .ny = 0),
    CONV(512, 1536, 1, 5, 7, 1, 1, .ny = 0),
    CONV(512, 512, 1, 5, 7, 1, 1, .accumulate = true),
    CONV(512, 256, 4, 6, 6, 1, 1, .ny = 0),
    CONV(256, 128, 4, 9, 7, 1, 1, .ny = 0),
    CONV(3, 128, 4, 24, 16, 3, 3, .ny = 0), /* encoder */
    CONV(512, 32, 1, 4, 6, 3, 3, .ny = 0),
    DOWN(128, 128, 4, 16, 12, 1, 1),
    DOWN(256, 256, 2, 8, 6, 3, 2),
    DOWN(512, 512, 1, 6, 4, 3, 2),
    /* merged upsamplers */
    UP(512, 512, 1, 3, 4, 2, 2),
    UP(512, 512, 2, 2, 3, 2, 2),
    UP(512, 512, 1, 5, 3, 1, 1),
    UP(256, 256, 4, 3, 4, 3, 1),
    UP(256, 256, 1, 9, 7, 1, 1),
    UP(64, 64, 2, 1, 1, 2, 2),
    UP(64, 64, 1, 1, 9, 2, 2),
    UP(40, 24, 3, 7, 1, 3, 1),
    /* pictures wider than any block */
    CONV(32, 64, 3, 37, 41, 3, 3, .accumulate = true),
    CONV(64, 32, 1, 9, 150, 1, 3, .ny = 0),
    UP(32, 32, 2, 33, 40, 3, 1),
    /* other widths and small pictures */
    CONV(32, 32, 1, 1, 1, 3, 3, .ny = 0),
    CONV(32, 32, 4, 1, 9, 3, 3, .accumulate = true),
    CONV(64, 64, 3, 9, 1, 3, 3, .ny = 0),
    CONV(96, 160, 2, 5, 6, 3, 3, .ny = 0),
    CONV(40, 40, 1, 3, 3, 3, 3, .accumulate = true),
    CONV(1, 1, 1, 4, 4, 3, 3, .ny = 0),
    CONV(7, 5, 2, 6, 5, 3, 3, .ny = 0),
    CONV(16, 48, 1, 2, 70, 1, 3, .ny = 0),
    CONV(1024, 64, 1, 3, 5, 1, 1, .ny = 0),
    CONV(32, 32, 2, 12, 8, 3, 3, .y0 = 5, .ny = 4), /* rows of a picture */
    CONV(32, 32, 1, 12, 8, 1, 3, .y0 = 0, .ny = 3),
    /* number types */
    CONV(64, 64, 2, 8, 8, 3, 3, .in = TSR_F16, .out = TSR_F16),
    CONV(64, 64, 2, 8, 8, 3, 3, .in = TSR_BF16, .out = TSR_F32, .accumulate = true),
    CONV(64, 64, 2, 8, 8, 3, 3, .in = TSR_U8, .out = TSR_F32, .quant = {{0.02f, 14}}),
    CONV(64, 64, 2, 8, 8, 3, 3, .in = TSR_E4M3, .out = TSR_F16, .quant = {{0.01f, 0}}),

    PLAIN(TSR_OP_STATS, 32, 1, 1, 1, .ny = 0),
    PLAIN(TSR_OP_STATS, 64, 3, 5, 7, .ny = 0),
    PLAIN(TSR_OP_STATS, 128, 4, 40, 33, .ny = 0),
    PLAIN(TSR_OP_STATS, 512, 2, 9, 8, .ny = 0),
    PLAIN(TSR_OP_STATS, 96, 2, 9, 8, .in = TSR_F16),
    PLAIN(TSR_OP_NORM, 32, 1, 1, 1, .silu = true),
    PLAIN(TSR_OP_NORM, 64, 3, 5, 7, .silu = true),
    PLAIN(TSR_OP_NORM, 128, 4, 40, 33, .silu = true),
    PLAIN(TSR_OP_NORM, 512, 1, 9, 8, .silu = false),
    PLAIN(TSR_OP_NORM, 96, 2, 9, 8, .silu = true, .y0 = 2, .ny = 5),
    PLAIN(TSR_OP_NORM, 64, 2, 6, 5, .silu = true, .in = TSR_F16, .out = TSR_F16),
    PLAIN(TSR_OP_NORM, 64, 2, 6, 5, .silu = true, .out = TSR_U8, .quant = {{0}, {0.03f, 10}}),
    PLAIN(TSR_OP_NORM, 64, 2, 6, 5, .silu = true, .in = TSR_F16, .out = TSR_E4M3, .quant = {{0}, {0.02f, 0}}),
    PLAIN(TSR_OP_QUANTISE, 64, 2, 6, 5, .out = TSR_F16),
    PLAIN(TSR_OP_QUANTISE, 64, 2, 6, 5, .out = TSR_U8, .quant = {{0}, {0.01f, 128}}),
    {TSR_OP_ATTENTION, 96, 32, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, .ny = 0},
    {TSR_OP_ATTENTION, 192, 64, 3, 5, 7, 1, 1, 1, 1, 0, 0, 1, 1, .ny = 0},
    {TSR_OP_ATTENTION, 1536, 512, 1, 9, 16, 1, 1, 1, 1, 0, 0, 1, 1, .ny = 0},
    {TSR_OP_ATTENTION, 96, 32, 1, 40, 33, 1, 1, 1, 1, 0, 0, 1, 1, .ny = 0}, /* more than a block of keys */
    {TSR_OP_ATTENTION, 96, 32, 1, 9, 7, 1, 1, 1, 1, 0, 0, 1, 1, .y0 = 3, .ny = 4},
    {TSR_OP_ATTENTION, 96, 32, 2, 4, 7, 1, 1, 1, 1, 0, 0, 1, 1, .in = TSR_F16, .out = TSR_F16},
    PLAIN(TSR_OP_INPUT, 16, 1, 5, 7, .ny = 0),
    PLAIN(TSR_OP_INPUT, 3, 4, 6, 8, .out = TSR_F16),
    PLAIN(TSR_OP_CACHE_LOAD, 64, 2, 5, 7, .ny = 0),
    PLAIN(TSR_OP_CACHE_SAVE, 64, 2, 5, 7, .ny = 0),
    PLAIN(TSR_OP_CACHE_SAVE, 64, 2, 5, 7, .replicate = true, .in = TSR_F16),
    PLAIN(TSR_OP_STORE, 3, 4, 6, 8, .ny = 0),
    PLAIN(TSR_OP_STORE, 32, 1, 5, 7, .out = TSR_F16),
};

/* What the inputs are like. */
typedef enum fill { FILL_RANDOM, FILL_OUTLIERS, FILL_LARGE, FILL_TINY, FILL_ZERO, FILL_OFFSET, FILL_NOT_FINITE, FILLS } fill;
static const char *const fill_name[FILLS] = {"random", "outliers", "large", "tiny", "zero", "offset", "not finite"};

static uint64_t seed;

static uint32_t bits(void) {
    seed += 0x9E3779B97F4A7C15;
    uint64_t z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (uint32_t)(z >> 32);
}

static float uniform(void) { /* [-1, 1) */
    return (float)(int32_t)bits() * 0x1p-31f;
}

static float value(fill f) {
    float u = uniform();
    uint32_t pick = bits() % 256;
    switch (f) {
    case FILL_OUTLIERS: return pick == 0 ? 1e4f * u : pick < 32 ? 0 : u;
    case FILL_LARGE: return 1e12f * u;
    case FILL_TINY: return 1e-20f * u;
    case FILL_ZERO: return 0;
    case FILL_OFFSET: return 100 + u;
    case FILL_NOT_FINITE: return pick < 2 && bits() % 64 == 0 ? pick ? INFINITY : NAN : u;
    default: return u;
    }
}

/* ---------------------------------------------------------------- guarded memory */

enum { GUARD = 4096, FILLER = 0xA5 };

typedef struct guarded {
    char *block, *at;
    size_t bytes;
} guarded;

static guarded guarded_new(size_t bytes) { /* starts on a line; what follows the last byte is guarded too */
    guarded g = {aligned_alloc(GUARD, 2 * GUARD + tsr_align(bytes + GUARD, GUARD)), NULL, bytes};
    if (!g.block)
        abort();
    g.at = g.block + GUARD;
    memset(g.block, FILLER, 2 * GUARD + tsr_align(bytes + GUARD, GUARD));
    return g;
}

static bool guarded_whole(const guarded *g) {
    for (int i = 0; i < GUARD; i++)
        if ((unsigned char)g->at[-1 - i] != FILLER || (unsigned char)g->at[g->bytes + (size_t)i] != FILLER)
            return false;
    return true;
}

/* ---------------------------------------------------------------- a program of one op */

enum { IN, OUT, STATS, BUFFERS };
enum { BEFORE = 1, AFTER = 1 }; /* frames of a buffer that the op has nothing to do with */

typedef struct world { /* inputs, and what one tier makes of them */
    const spec *s;
    tsr_op op;
    tsr_buffer buffer[BUFFERS];
    tsr_kernel kernel;
    tsr_cache cache;
    tsr_quant quant[2];
    tsr_program program;
    guarded in, out, stats, cached, input, slot, affine, weights, biases;
} world;

static bool is_eight(tsr_dtype t) {
    return t == TSR_U8 || t == TSR_E4M3;
}

static tsr_buffer buffer_of(tsr_dtype type, int head, int frames, int h, int w, int c, int quant) {
    size_t bytes = (size_t)(head + frames) * (size_t)h * (size_t)w * (size_t)c * tsr_dtype_size(type);
    return (tsr_buffer){"", type, head, frames, h, w, c, is_eight(type) ? quant : -1, 0, 0, bytes};
}

static void world_describe(world *v, const spec *s) {
    *v = (world){.s = s};
    bool spread = s->phases == 4, stats = s->kind == TSR_OP_STATS;
    int oh = spread ? 2 * s->h : (s->h + s->top + s->bottom - s->k) / s->s + 1;
    int ow = spread ? 2 * s->w : (s->w + s->top + s->bottom - s->k) / s->s + 1;
    int head = s->kind == TSR_OP_CACHE_LOAD || s->kind == TSR_OP_CACHE_SAVE ? 2 : s->kt - s->st;
    v->quant[0] = s->quant[0];
    v->quant[1] = s->quant[1];
    v->buffer[IN] = buffer_of(s->in, head, BEFORE + s->nt * s->st + AFTER, s->h, s->w, s->cin, 0);
    v->buffer[OUT] = buffer_of(s->out, s->kind == TSR_OP_CACHE_LOAD ? 2 : 0, BEFORE + s->nt * s->out_dt + AFTER, oh, ow, s->cout, 1);
    v->buffer[STATS] = buffer_of(TSR_F64, 0, s->nt, 1, TSR_GROUPS, 2, -1);
    v->kernel = (tsr_kernel){0, TSR_FOLD_NONE, s->cin, s->cout, s->kt, s->k, s->k, s->st, s->s, s->s, s->top, s->top, s->bottom,
        s->bottom, s->phases, s->phases};
    v->cache = (tsr_cache){0, s->in, 2, s->h, s->w, s->cin, 2 * (size_t)s->h * (size_t)s->w * (size_t)s->cin * tsr_dtype_size(s->in)};
    v->op = (tsr_op){.kind = s->kind, .kernel = s->kind == TSR_OP_CONV ? 0 : -1, .stats = s->kind == TSR_OP_NORM ? STATS : -1,
        .cache = s->kind == TSR_OP_CACHE_LOAD || s->kind == TSR_OP_CACHE_SAVE ? 0 : -1,
        .in = {IN, BEFORE + s->st - 1, s->nt, 0, s->h}, .out = {OUT, BEFORE, s->nt, s->y0, s->ny ? s->ny : oh},
        .out_dt = s->out_dt, .accumulate = s->accumulate, .silu = s->silu, .replicate = s->replicate};
    if (s->ny && s->kind != TSR_OP_CONV && s->kind != TSR_OP_ATTENTION) { /* those read rows around */
        v->op.in.y0 = s->y0;
        v->op.in.ny = s->ny;
    }
    if (stats)
        v->op.out = (tsr_view){STATS, 0, s->nt, 0, 1};
    if (s->kind == TSR_OP_CACHE_LOAD)
        v->op.out = (tsr_view){OUT, -2, 2, 0, oh};
    if (s->kind == TSR_OP_CACHE_SAVE)
        v->op.in = (tsr_view){IN, BEFORE + s->nt - 2, s->replicate ? 1 : 2, 0, s->h};
    v->program = (tsr_program){.ops = 1, .op = &v->op, .buffers = BUFFERS, .buffer = v->buffer, .kernels = 1, .kernel = &v->kernel,
        .caches = 1, .cache = &v->cache, .quants = 2, .quant = v->quant, .in_frames = 8, .in_h = oh, .in_w = ow, .in_c = s->cout};
}

/* Numbers of a kind into a buffer, as its type and codes hold them. */
static void fill_buffer(const world *v, int which, const guarded *g, fill f) {
    const tsr_buffer *b = &v->buffer[which];
    size_t size = tsr_dtype_size(b->dtype);
    for (size_t i = 0; i < b->bytes / size; i++) {
        float x = value(f);
        tsr_ref_put(&v->program, b, g->at + i * size, 0, 1, &x);
    }
}

static void fill_uniform(const guarded *g, float scale) {
    for (size_t i = 0; i < g->bytes / sizeof(float); i++)
        ((float *)g->at)[i] = scale * uniform();
}

static size_t frame_of(const tsr_buffer *b) {
    return b->bytes / (size_t)(b->head + b->frames);
}

/* Sums that belong to the input, or, for STATS, junk to be overwritten. */
static void fill_stats(world *v) {
    tsr_op op = v->op;
    tsr_op_io io = {.program = &v->program, .op = &op, .in = v->in.at + frame_of(&v->buffer[IN]) * (size_t)v->buffer[IN].head, .out = v->stats.at};
    op.out = (tsr_view){STATS, 0, v->s->nt, 0, 1};
    if (v->s->kind == TSR_OP_NORM)
        tsr_ref_stats(&io);
}

static void world_new(world *v, const spec *s, fill f) {
    world_describe(v, s);
    const tsr_kernel *k = &v->kernel;
    size_t slot = (size_t)(s->nt + BEFORE) * (size_t)s->h * (size_t)s->w * (size_t)s->cin * tsr_dtype_size(s->out);
    size_t input = 8 * (size_t)s->h * (size_t)s->w * (size_t)s->cin * sizeof(float);
    v->in = guarded_new(v->buffer[IN].bytes);
    v->out = guarded_new(v->buffer[OUT].bytes);
    v->stats = guarded_new(v->buffer[STATS].bytes);
    v->cached = guarded_new(v->cache.bytes);
    v->input = guarded_new(input);
    v->slot = guarded_new(slot);
    v->affine = guarded_new(2 * (size_t)s->cin * sizeof(float));
    v->weights = guarded_new(tsr_kernel_weights(k) * sizeof(float));
    v->biases = guarded_new(tsr_kernel_biases(k) * sizeof(float));
    fill_buffer(v, IN, &v->in, f);
    fill_buffer(v, OUT, &v->out, f == FILL_NOT_FINITE ? FILL_RANDOM : f);
    memset(v->stats.at, 0, v->stats.bytes);
    memset(v->slot.at, 0, v->slot.bytes);
    for (size_t i = 0; i < v->cached.bytes; i++)
        v->cached.at[i] = (char)bits();
    fill_uniform(&v->input, 1);
    fill_uniform(&v->affine, 2);
    fill_uniform(&v->weights, sqrtf(3.0f / (float)(s->cin * s->kt * s->k * s->k)));
    fill_uniform(&v->biases, 0.3f);
    fill_stats(v);
}

static guarded *guards_of(world *v) {
    return &v->in;
}
enum { GUARDS = 9 };

/* The same inputs in memory of their own. */
static void world_copy(world *v, world *from) {
    world_describe(v, from->s);
    for (int i = 0; i < GUARDS; i++) {
        guards_of(v)[i] = guarded_new(guards_of(from)[i].bytes);
        memcpy(guards_of(v)[i].at, guards_of(from)[i].at, guards_of(from)[i].bytes);
    }
}

static void world_free(world *v) {
    for (int i = 0; i < GUARDS; i++)
        free(guards_of(v)[i].block);
}

/* ---------------------------------------------------------------- running one tier */

typedef struct bound {
    const tsr_tier *tier;
    tsr_op_io io;
    tsr_packed packed;
    guarded kernel, scratch;
} bound;

static const tsr_op_impl *impl_of(const tsr_tier *t, const world *v) {
    return &t->op[v->s->kind];
}

static bool tier_runs(const tsr_tier *t, const world *v) {
    const tsr_op_impl *i = impl_of(t, v);
    return i->run && (!i->can || i->can(&v->program, &v->op));
}

static tsr_status bound_new(bound *b, const tsr_tier *t, world *v) {
    const tsr_op_impl *impl = impl_of(t, v);
    tsr_status status = TSR_OK;
    tsr_buffer *in = &v->buffer[IN], *out = &v->buffer[v->op.out.buf];
    guarded *to = v->op.out.buf == STATS ? &v->stats : &v->out;
    *b = (bound){.tier = t};
    b->scratch = guarded_new(impl->scratch ? impl->scratch(&v->program, &v->op) : 0);
    b->io = (tsr_op_io){.program = &v->program, .op = &v->op, .in = v->in.at + frame_of(in) * (size_t)in->head,
        .out = to->at + frame_of(out) * (size_t)out->head, .stats_in = (double *)v->stats.at, .cache = v->cached.at,
        .gamma = (float *)v->affine.at, .beta = (float *)v->affine.at + v->s->cin, .slot = v->slot.at, .slot_dtype = v->s->out,
        .input = (float *)v->input.at, .scratch = b->scratch.at};
    if (v->s->kind == TSR_OP_CONV) {
        b->kernel = guarded_new(t->kernel_bytes(&v->kernel, v->s->in));
        b->packed = (tsr_packed){&v->kernel, b->kernel.at, NULL};
        b->io.kernel = &b->packed;
        TSR_TRY(t->pack(&b->packed, &v->program, &v->op, (float *)v->weights.at, (float *)v->biases.at));
    }
    if (impl->bind)
        TSR_TRY(impl->bind(&b->io.bound, &v->program, &v->op, b->io.kernel));
error:
    return status;
}

static void bound_free(bound *b) {
    if (b->io.bound)
        b->tier->op[b->io.op->kind].unbind(b->io.bound);
    if (b->packed.layout)
        b->tier->unpack(&b->packed);
    free(b->kernel.block);
    free(b->scratch.block);
}

/* Runs the op and reports what is wrong but numbers, or NULL. */
static const char *run_once(const tsr_tier *t, world *v) {
    bound b;
    const char *wrong = NULL;
    if (bound_new(&b, t, v) != TSR_OK || impl_of(t, v)->run(&b.io) != TSR_OK)
        wrong = tsr_last_error();
    for (int i = 0; i < GUARDS && !wrong; i++)
        if (!guarded_whole(&guards_of(v)[i]))
            wrong = "wrote past a buffer";
    if (!wrong && (!guarded_whole(&b.scratch) || (b.kernel.block && !guarded_whole(&b.kernel))))
        wrong = "wrote past scratch or kernel";
    bound_free(&b);
    return wrong;
}

/* ---------------------------------------------------------------- bounds */

/* How far a value of the buffer's type may be from the next. */
static double quantum(const tsr_buffer *b, const tsr_quant *q, double x) {
    switch (b->dtype) {
    case TSR_F16: return fabs(x) * 0x1p-10 + 0x1p-24;
    case TSR_BF16: return fabs(x) * 0x1p-7 + 0x1p-126;
    case TSR_E4M3: return fabs(x) * 0x1p-3 + 0x1p-9 * (double)q->scale;
    case TSR_U8: return (double)q->scale;
    default: return 0;
    }
}

static double work(const spec *s) { /* multiply-adds */
    return (double)s->cin * s->cout * s->nt * s->h * s->w * s->kt * s->k * s->k * s->phases;
}
static const double LARGE = 2e7;

/* What errors are measured by. CONV: the reference with every number's absolute value; in large cases, whose inputs
 * are random, what that comes to. ATTENTION: the largest finite input. Others: 1. */
static void magnitudes(const spec *s, world *like, float *out, size_t n) {
    world v;
    const tsr_buffer *b = &like->buffer[IN];
    size_t size = tsr_dtype_size(b->dtype);
    float most = 1;
    if (s->kind != TSR_OP_CONV || work(s) > LARGE) {
        for (size_t i = 0; i < b->bytes / size && s->kind == TSR_OP_ATTENTION; i++) {
            float x;
            tsr_ref_get(&like->program, b, like->in.at + i * size, 0, 1, &x);
            most = isfinite(x) ? fmaxf(i ? most : 0, fabsf(x)) : most;
        }
        if (s->kind == TSR_OP_CONV)
            most = 0.5f * sqrtf((float)s->cin * (float)(s->kt * s->k * s->k));
        for (size_t i = 0; i < n; i++)
            out[i] = most;
        return;
    }
    world_new(&v, s, FILL_ZERO);
    for (size_t i = 0; i < b->bytes / size; i++) {
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
    double terms = (double)s->cin * s->kt * s->k * s->k, ulp = 0x1p-24, count = (double)s->cin / TSR_GROUPS * s->h * s->w;
    switch (s->kind) {
    case TSR_OP_CONV: /* rounding errors of a sum walk at random; phases exchange one bias of 0.3 for another */
        return (4 + 2 * sqrt(terms)) * ulp * (magnitude + fabs(want)) + 1e-37 + (s->phases == 4 ? 3 * ulp * 0.6 : 0);
    case TSR_OP_NORM: { /* |x scale| + |shift|, some roundings each */
        double mean = stats[0] / count, deviation = sqrt(fmax(0, stats[1] / count - mean * mean) + TSR_NORM_EPS);
        return 8 * ulp * ((fabs(input) + fabs(mean)) / deviation * 2 + 2 + fabs(want));
    }
    case TSR_OP_ATTENTION: /* a weight is as wrong as its score, which may be sqrt(c) times the square of an input */
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
        double spread = sqrt(count * fabs(a[i + 1])); /* at least the sum of |x| */
        double error[2] = {fabs(a[i] - b[i]) / (1e-12 * spread + 1e-300), fabs(a[i + 1] - b[i + 1]) / (1e-12 * fabs(a[i + 1]) + 1e-300)};
        for (int j = 0; j < 2; j++) {
            if (isfinite(a[i + (size_t)j]) != isfinite(b[i + (size_t)j]))
                snprintf(r->text, sizeof r->text, "sum %zu is %g, not %g", i + (size_t)j, b[i + (size_t)j], a[i + (size_t)j]);
            if (isfinite(a[i + (size_t)j]) && error[j] > r->worst)
                r->worst = error[j];
        }
    }
}

static void compare_out(const world *want, const world *have, verdict *r) {
    const tsr_buffer *b = &want->buffer[OUT], *in = &want->buffer[IN];
    size_t size = tsr_dtype_size(b->dtype), n = b->bytes / size, frame = frame_of(b) / size;
    float *magnitude = malloc(n * sizeof *magnitude);
    magnitudes(want->s, (world *)want, magnitude, n);
    for (size_t i = 0; i < n; i++) {
        float x, y, input = 0;
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
        double allowed = bound_of(want, (double)x, (double)magnitude[i], (double)input, stats) + 1.01 * quantum(b, &want->quant[1], (double)x);
        double error = fabs((double)x - (double)y) / allowed;
        if (!(error <= 1) && !r->text[0])
            snprintf(r->text, sizeof r->text, "value %zu is %.9g, not %.9g: %.1f times the bound", i, (double)y, (double)x, error);
        r->worst = fmax(r->worst, error);
    }
    free(magnitude);
}

static verdict compare(const world *want, const world *have) {
    verdict r = {"", 0};
    tsr_op_kind kind = want->s->kind;
    if (kind == TSR_OP_STATS)
        compare_stats(want, have, &r);
    else if (kind == TSR_OP_CONV || kind == TSR_OP_NORM || kind == TSR_OP_ATTENTION || kind == TSR_OP_QUANTISE)
        compare_out(want, have, &r);
    else if (!same_bytes(&want->out, &have->out) || !same_bytes(&want->cached, &have->cached) || !same_bytes(&want->slot, &have->slot))
        snprintf(r.text, sizeof r.text, "bytes differ");
    if (!same_bytes(&want->in, &have->in) || (kind != TSR_OP_STATS && !same_bytes(&want->stats, &have->stats)))
        snprintf(r.text, sizeof r.text, "an input changed");
    if (r.worst > 1 && !r.text[0])
        snprintf(r.text, sizeof r.text, "%.1f times the bound", r.worst);
    return r;
}

/* ---------------------------------------------------------------- the two programs */

static const char *spec_text(char buf[160], const spec *s) {
    int n = snprintf(buf, 160, "%s %d->%d @ %dx%dx%d", tsr_op_kind_name(s->kind), s->cin, s->cout, s->nt, s->h, s->w);
    if (s->kind == TSR_OP_CONV)
        n += snprintf(buf + n, (size_t)(160 - n), " k %dx%dx%d s %d,%d%s%s", s->kt, s->k, s->k, s->st, s->s,
            s->phases == 4 ? " 4 phases" : "", s->accumulate ? " +=" : "");
    if (s->ny)
        n += snprintf(buf + n, (size_t)(160 - n), " rows %d+%d", s->y0, s->ny);
    snprintf(buf + n, (size_t)(160 - n), " %s>%s", tsr_dtype_name(s->in), tsr_dtype_name(s->out));
    return buf;
}

/* The reference takes long for large cases, and is itself only held to its guards and to giving the same twice. */
static bool worth_it(const tsr_tier *t, const spec *s, fill f) {
    if (t == tsr_tier_at(0))
        return f == FILL_RANDOM;
    return s->kind != TSR_OP_CONV || work(s) <= LARGE || f == FILL_RANDOM || f == FILL_NOT_FINITE;
}

/* One case in one tier with all fills. */
static bool check_case(const tsr_tier *t, const spec *s, char *why, size_t room, double *worst) {
    why[0] = 0;
    *worst = 0;
    for (fill f = 0; f < FILLS && !why[0]; f++) {
        world want, have;
        if (!worth_it(t, s, f))
            continue;
        world_new(&want, s, f);
        world_copy(&have, &want);
        const char *wrong = run_once(tsr_tier_at(0), &want);
        if (!wrong)
            wrong = run_once(t, &have);
        verdict r = {"", 0};
        if (!wrong)
            r = compare(&want, &have);
        *worst = fmax(*worst, r.worst);
        if (wrong || r.text[0])
            snprintf(why, room, "%s inputs: %s", fill_name[f], wrong ? wrong : r.text);
        world_free(&want);
        world_free(&have);
    }
    return !why[0];
}

static int check_all(void) {
    int number = 0, failed = 0;
    for (int i = 0; tsr_tier_at(i); i++)
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++) {
            const tsr_tier *t = tsr_tier_at(i);
            char text[160], why[300];
            double worst;
            world v;
            seed = 1000 * j;
            world_describe(&v, &cases[j]);
            if (!tier_runs(t, &v))
                continue;
            bool good = check_case(t, &cases[j], why, sizeof why, &worst);
            printf("%s %d - %s: %s\n", good ? "ok" : "not ok", ++number, t->name, spec_text(text, &cases[j]));
            if (good && i > 0)
                printf("# %.2f of the bound\n", worst);
            if (!good)
                printf("# %s\n", why);
            fflush(stdout);
            failed += !good;
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

/* The plain product of the same sizes: [pixels][taps cin] x [taps cin][cout], rows cut so that it fits memory. */
static double gemm_rate(const world *v, int tiers) {
    const spec *s = v->s;
    int n = s->cout, k = s->cin * s->kt * s->k * s->k, m = s->nt * v->buffer[OUT].h * v->buffer[OUT].w;
    m = m > 4096 ? 4096 : m;
    float *x = calloc((size_t)m * (size_t)k + (size_t)k * (size_t)n + (size_t)m * (size_t)n, sizeof *x);
    double best = INFINITY;
    for (int i = 0; x && i < 4; i++) {
        double begin = tsr_now();
        tsr_tier_gemm(tiers)(m, n, k, x, k, x + (size_t)m * (size_t)k, n, 0, x + (size_t)m * (size_t)k + (size_t)k * (size_t)n, n);
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
        seed = j;
        world_new(&v, &benched[j], FILL_RANDOM);
        double flops = flops_of(&v), product = benched[j].kind == TSR_OP_CONV ? gemm_rate(&v, tiers) : 0;
        double bytes = (double)v.in.bytes + (benched[j].kind == TSR_OP_STATS ? 0 : (double)v.out.bytes);
        for (int i = flops > 2e9 ? 1 : 0; i < tiers; i++) {
            if (!tier_runs(tsr_tier_at(i), &v))
                continue;
            double seconds = time_op(tsr_tier_at(i), &v);
            printf("%-44s %-9s %9.3f %9.1f %9.1f %9.1f\n", text, tsr_tier_at(i)->name, seconds * 1e3, flops / seconds * 1e-9,
                product * 1e-9, bytes / seconds * 1e-9);
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

#include "kernel_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *spec_text(char buf[160], const spec *s) {
    int n = snprintf(buf, 160, "%s %d->%d @ %dx%dx%d", tsr_op_kind_name(s->kind), s->cin, s->cout, s->nt, s->h, s->w);
    if (s->kind == TSR_OP_CONV)
        n += snprintf(buf + n, (size_t)(160 - n), " k %dx%dx%d s %d,%d%s%s", s->kt, s->k, s->k, s->st, s->s,
            s->phases == 4 ? " 4 phases" : "", s->accumulate ? " +=" : "");
    if (s->in_place)
        n += snprintf(buf + n, (size_t)(160 - n), " in place");
    if (s->ny)
        n += snprintf(buf + n, (size_t)(160 - n), " rows %d+%d", s->y0, s->ny);
    if (s->whole)
        n += snprintf(buf + n, (size_t)(160 - n), " band %d of %d rows", s->band, s->whole);
    snprintf(buf + n, (size_t)(160 - n), " %s>%s", tsr_dtype_name(s->in), tsr_dtype_name(s->out));
    return buf;
}

/* ---------------------------------------------------------------- inputs */

const char *const fill_name[FILLS] = {
    "random", "outliers", "large", "tiny", "zero", "offset", "not finite", "infinite scores"};
uint64_t case_seed;

static uint32_t bits(void) {
    case_seed += 0x9E3779B97F4A7C15;
    uint64_t z = (case_seed ^ case_seed >> 30) * 0xBF58476D1CE4E5B9;
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
    case FILL_OUTLIERS:
        return pick == 0 ? 1e4f * u : pick < 32 ? 0 : u;
    case FILL_LARGE:
        return 1e12f * u;
    case FILL_TINY:
        return 1e-20f * u;
    case FILL_ZERO:
        return 0;
    case FILL_OFFSET:
        return 100 + u;
    case FILL_NOT_FINITE:
        return pick < 2 && bits() % 64 == 0 ? pick ? INFINITY : NAN : u;
    default:
        return u;
    }
}

/* ---------------------------------------------------------------- guarded memory */

enum { GUARD = 4096, FILLER = 0xA5 };

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

static bool is_eight(tsr_dtype t) {
    return t == TSR_U8 || t == TSR_E4M3;
}

static tsr_buffer buffer_of(tsr_dtype type, int head, int frames, int h, int w, int c, int quant) {
    size_t bytes = (size_t)(head + frames) * (size_t)h * (size_t)w * (size_t)c * tsr_dtype_size(type);
    return (tsr_buffer){"", type, head, frames, h, w, c, is_eight(type) ? quant : -1, 0, 0, bytes};
}

static bool is_page(const spec *s) {
    return s->kind == TSR_OP_PAGE_IN || s->kind == TSR_OP_PAGE_OUT;
}

int rows_summed(const spec *s) {
    return s->whole ? s->whole : s->h;
}

/* From a world of whole frames: what program_in_bands makes of an op. */
static void cut_band(world *v) {
    const spec *s = v->s;
    tsr_buffer *in = &v->buffer[IN], *out = &v->buffer[OUT];
    bool across = s->kind == TSR_OP_CONV && s->k > 1;
    int halo = s->kind != TSR_OP_CONV || across, spread = s->phases == 4 ? 2 : 1;
    in->halo = halo;
    in->whole = s->whole;
    out->halo = s->kind == TSR_OP_CONV ? 0 : halo;
    out->whole = spread * s->whole;
    if (across) { /* rows around are there */
        *out = buffer_of(s->out, 0, out->frames, spread * (s->h - 2), out->w, s->cout, 1);
        out->whole = spread * s->whole;
        v->op.in.y0 = 1;
        v->op.in.ny = s->h - 2;
        v->op.out.ny = out->h;
    } else if (s->kind == TSR_OP_STATS || s->kind == TSR_OP_PAGE_OUT) { /* rows of its own only */
        v->op.in.y0 = 1;
        v->op.in.ny = s->h - 2;
    }
    if (!is_page(s))
        return;
    tsr_buffer *frames = s->kind == TSR_OP_PAGE_IN ? in : out;
    tsr_view *view = s->kind == TSR_OP_PAGE_IN ? &v->op.in : &v->op.out;
    *frames = buffer_of(s->in, 0, frames->frames, s->whole, s->w, s->cin, 0);
    frames->paged = true;
    view->y0 = s->kind == TSR_OP_PAGE_IN ? -halo : 0;
}

void world_describe(world *v, const spec *s) {
    *v = (world){.s = s};
    bool spread = s->phases == 4, stats = s->kind == TSR_OP_STATS;
    int oh = spread ? 2 * s->h : (s->h + s->top + s->bottom - s->k) / s->s + 1;
    int ow = spread ? 2 * s->w : (s->w + s->top + s->bottom - s->k) / s->s + 1;
    int head = s->kind == TSR_OP_CACHE_LOAD || s->kind == TSR_OP_CACHE_SAVE ? 2 : s->kt - s->st;
    v->quant[0] = s->quant[0];
    v->quant[1] = s->quant[1];
    v->buffer[IN] = buffer_of(s->in, head, BEFORE + s->nt * s->st + AFTER, s->h, s->w, s->cin, 0);
    v->buffer[IN].shift = s->shift;
    v->buffer[OUT] =
        buffer_of(s->out, s->kind == TSR_OP_CACHE_LOAD ? 2 : 0, BEFORE + s->nt * s->out_dt + AFTER, oh, ow, s->cout, 1);
    bool extremes = s->out == TSR_U8 && s->quant[1].scale == 0;
    v->buffer[STATS] = buffer_of(TSR_F64, 0, s->nt, 1, TSR_GROUPS + (extremes ? s->cin : 0), 2, -1);
    v->range = (tsr_code_range){0.02f, 14};
    v->kernel = (tsr_kernel){0, TSR_FOLD_NONE, s->cin, s->cout, s->kt, s->k, s->k, s->st, s->s, s->s, s->top, s->top,
        s->bottom, s->bottom, s->phases, s->phases};
    v->cache = (tsr_cache){
        0, s->in, 2, s->h, s->w, s->cin, 2 * (size_t)s->h * (size_t)s->w * (size_t)s->cin * tsr_dtype_size(s->in)};
    v->op = (tsr_op){.kind = s->kind,
        .kernel = s->kind == TSR_OP_CONV ? 0 : -1,
        .stats = s->kind == TSR_OP_NORM ? STATS : -1,
        .cache = s->kind == TSR_OP_CACHE_LOAD || s->kind == TSR_OP_CACHE_SAVE ? 0 : -1,
        .in = {IN, BEFORE + s->st - 1, s->nt, 0, s->h},
        .out = {OUT, BEFORE, s->nt, s->y0, s->ny ? s->ny : oh},
        .out_dt = s->out_dt,
        .accumulate = s->accumulate,
        .silu = s->silu,
        .replicate = s->replicate};
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
    if (s->whole)
        cut_band(v);
    v->program = (tsr_program){.ops = 1,
        .op = &v->op,
        .buffers = BUFFERS,
        .buffer = v->buffer,
        .kernels = 1,
        .kernel = &v->kernel,
        .caches = 1,
        .cache = &v->cache,
        .quants = 2,
        .quant = v->quant,
        .in_frames = 8,
        .in_h = oh,
        .in_w = ow,
        .in_c = s->cout};
}

bool has_range(const world *v, int which) {
    return tsr_ref_is_u8(&v->program, which);
}

/* Numbers of a kind into a buffer, as its type and codes hold them. */
static void fill_buffer(const world *v, int which, const guarded *g, fill f) {
    const tsr_buffer *b = &v->buffer[which];
    size_t size = tsr_dtype_size(b->dtype);
    if (has_range(v, which)) {
        for (size_t i = 0; i < b->bytes; i++)
            g->at[i] = (char)bits();
        return;
    }
    for (size_t i = 0; i < b->bytes / size; i++) {
        float x = value(f);
        tsr_ref_put(&v->program, b, g->at + i * size, 0, 1, &x);
    }
}

/* Rows outside of the picture are what a conv pads with. */
static void pad_band(const world *v) {
    const tsr_buffer *b = &v->buffer[IN];
    size_t row = frame_bytes(b) / (size_t)b->h;
    int first = tsr_picture_begin(b, v->s->band), last = first + b->whole - 1;
    for (int t = 0; t < b->head + b->frames; t++)
        for (int y = 0; y < b->h; y++)
            if (y < first || y > last)
                memset(
                    v->in.at + frame_bytes(b) * (size_t)t + row * (size_t)y, has_range(v, IN) ? v->range.zero : 0, row);
}

size_t frame_bytes(const tsr_buffer *b) {
    return b->bytes / (size_t)(b->head + b->frames);
}

/* Queries of 1e30, -1e30 and 0 in turn, in their first channel, meet keys of -1e30 that become 0
 * late in the frame, of the last frame never: rows whose scores are first -inf and then finite,
 * -inf alone, +inf, and finite. */
static void fill_scores(const world *v) {
    const tsr_buffer *b = &v->buffer[IN];
    int c = b->c / 3, pixels = b->h * b->w, last = v->op.in.t0 + v->op.in.nt - 1;
    for (int t = -b->head; t < b->frames; t++)
        for (int i = 0; i < pixels; i++) {
            char *pixel = tsr_pixel(b, v->in.at + frame_bytes(b) * (size_t)b->head, t, 0, i);
            bool late = i > pixels * 9 / 10 && (t != last || v->s->nt == 1);
            tsr_ref_put(&v->program, b, pixel, 0, 1, &(float){i % 3 == 0 ? 1e30f : i % 3 == 1 ? -1e30f : 0});
            tsr_ref_put(&v->program, b, pixel, c, 1, &(float){late ? 0 : -1e30f});
        }
}

static void fill_uniform(const guarded *g, float scale) {
    for (size_t i = 0; i < g->bytes / sizeof(float); i++)
        ((float *)g->at)[i] = scale * uniform();
}

/* Sums that belong to the input, or, for STATS, junk to be overwritten. */
static void fill_stats(world *v) {
    tsr_op op = v->op;
    tsr_op_io io = {.program = &v->program,
        .op = &op,
        .in = v->in.at + frame_bytes(&v->buffer[IN]) * (size_t)v->buffer[IN].head,
        .out = v->stats.at,
        .band = v->s->band};
    op.out = (tsr_view){STATS, 0, v->s->nt, 0, 1};
    if (v->s->kind == TSR_OP_NORM)
        tsr_ref_stats(&io);
}

void world_new(world *v, const spec *s, fill f) {
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
    v->affine = guarded_new(3 * (size_t)s->cin * sizeof(float)); /* and gain */
    v->scales = guarded_new((size_t)s->cout * sizeof(float));
    v->weights = guarded_new(tsr_kernel_weights(k) * sizeof(float));
    v->biases = guarded_new(tsr_kernel_biases(k) * sizeof(float));
    fill_buffer(v, IN, &v->in, f);
    if (v->buffer[IN].whole)
        pad_band(v);
    if (f == FILL_SCORES)
        fill_scores(v);
    fill_buffer(v, OUT, &v->out, f == FILL_NOT_FINITE ? FILL_RANDOM : f);
    if (s->in_place)
        memcpy(v->out.at, v->in.at, v->in.bytes);
    memset(v->stats.at, 0, v->stats.bytes);
    for (size_t i = 0; s->whole && s->kind == TSR_OP_STATS && i < v->stats.bytes / sizeof(double); i++)
        ((double *)v->stats.at)[i] = (double)(i % 5); /* of the bands before */
    memset(v->slot.at, 0, v->slot.bytes);
    for (size_t i = 0; i < v->cached.bytes; i++)
        v->cached.at[i] = (char)bits();
    fill_uniform(&v->input, 1);
    fill_uniform(&v->affine, 2);
    fill_uniform(&v->weights, sqrtf(3.0f / (float)(s->cin * s->kt * s->k * s->k)));
    fill_uniform(&v->biases, 0.3f);
    for (int i = 0; i < s->cout; i++)
        ((float *)v->scales.at)[i] = 1e-4f * (1.5f + uniform());
    for (int i = 0; i < s->cin; i++)
        ((float *)v->affine.at)[2 * s->cin + i] = 1.2f + uniform();
    for (size_t i = 0; s->in == TSR_U8 && i < v->weights.bytes / sizeof(float); i++) /* codes */
        ((float *)v->weights.at)[i] = rintf(fmaxf(-127, fminf(127, 150 * uniform())));
    fill_stats(v);
}

static guarded *guards_of(world *v) {
    return &v->in;
}

void world_copy(world *v, world *from) {
    world_describe(v, from->s);
    for (int i = 0; i < GUARDS; i++) {
        guards_of(v)[i] = guarded_new(guards_of(from)[i].bytes);
        memcpy(guards_of(v)[i].at, guards_of(from)[i].at, guards_of(from)[i].bytes);
    }
}

void world_free(world *v) {
    for (int i = 0; i < GUARDS; i++)
        free(guards_of(v)[i].block);
}

/* ---------------------------------------------------------------- running one tier */

const tsr_op_impl *impl_of(const tsr_tier *t, const world *v) {
    return &t->op[v->s->kind];
}

bool tier_runs(const tsr_tier *t, const world *v) {
    const tsr_op_impl *i = impl_of(t, v);
    return i->run && (!i->can || i->can(&v->program, &v->op));
}

tsr_status bound_new(bound *b, const tsr_tier *t, world *v) {
    const tsr_op_impl *impl = impl_of(t, v);
    tsr_status status = TSR_OK;
    tsr_buffer *in = &v->buffer[IN], *out = &v->buffer[v->op.out.buf];
    guarded *to = v->op.out.buf == STATS ? &v->stats : &v->out;
    *b = (bound){.tier = t};
    b->scratch = guarded_new(impl->scratch ? impl->scratch(&v->program, &v->op) : 0);
    b->io = (tsr_op_io){.program = &v->program,
        .op = &v->op,
        .in = v->in.at + frame_bytes(in) * (size_t)in->head,
        .out = to->at + frame_bytes(out) * (size_t)out->head,
        .stats_in = (double *)v->stats.at,
        .cache = v->cached.at,
        .cache_range = tsr_cache_range(&v->cache, v->cached.at),
        .gamma = (float *)v->affine.at,
        .beta = (float *)v->affine.at + v->s->cin,
        .slot = v->slot.at,
        .slot_dtype = v->s->out,
        .input = (float *)v->input.at,
        .scratch = b->scratch.at,
        .range = &v->range,
        .gain = (float *)v->affine.at + 2 * v->s->cin,
        .band = v->s->band};
    if (v->s->in_place)
        b->io.in = b->io.out;
    if (v->s->kind == TSR_OP_CONV) {
        b->kernel = guarded_new(t->kernel_bytes(&v->kernel, v->s->in));
        b->packed = (tsr_packed){.kernel = &v->kernel, .scale = (float *)v->scales.at, .at = b->kernel.at};
        b->io.kernel = &b->packed;
        TSR_TRY(t->pack(&b->packed, &v->program, &v->op, (float *)v->weights.at, (float *)v->biases.at));
    }
    if (impl->bind)
        TSR_TRY(impl->bind(&b->io.bound, &v->program, &v->op, b->io.kernel));
error:
    return status;
}

void bound_free(bound *b) {
    if (b->io.bound)
        b->tier->op[b->io.op->kind].unbind(b->io.bound);
    if (b->packed.layout)
        b->tier->unpack(&b->packed);
    free(b->kernel.block);
    free(b->scratch.block);
}

const char *run_once(const tsr_tier *t, world *v) {
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

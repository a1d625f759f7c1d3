/*
 * Convolutions of u8 with s8 codes through oneDNN, where the CPU multiplies them without saturating
 * (VNNI). Scales and the zero point change from step to step, and are given when it runs:
 *
 *     y = s ws (sum of code code) + (b - s ws z (sum of the filter's codes))
 *
 * as post-ops with a vector each: oneDNN 2.6 has no fast convolution with scales of run time. It
 * pads with code 0 where z is meant: the filter's taps that fall outside are made good in a second
 * pass over the picture's edge. Bands have rows of z there, which are 0 meanwhile: else they would be
 * rounded otherwise than whole frames. The residual is added in place by a sum post-op.
 *
 * Packed kernel: codes in the layout of the record; scale, bias f32, and sums s32 of the taps that
 * lie outside at each kind of edge, [EDGES][cout], the last of which is all of them.
 */
#include "backend/cpu/onednn.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = 64, ABOVE = 1, BELOW = 2, LEFT = 4, RIGHT = 8, EDGES = 17, ALL = 16 };

static size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

/* oneDNN pads channels to blocks of 4 by 16 to 64. */
static size_t codes_bytes(const tsr_kernel *k) {
    size_t taps = (size_t)(k->kt * k->kh * k->kw);
    return round_up((size_t)k->cout, 64) * round_up((size_t)k->cin, 64) * taps;
}

static float *scales_at(const tsr_packed *k) {
    return (float *)((char *)k->at + codes_bytes(k->kernel));
}

static int32_t *sums_at(const tsr_packed *k) {
    return (int32_t *)(scales_at(k) + 2 * k->kernel->cout);
}

static size_t kernel_bytes(const tsr_kernel *k, tsr_dtype input) {
    if (input != TSR_U8)
        return 0;
    return codes_bytes(k) + (2 + EDGES) * (size_t)k->cout * sizeof(float);
}

static bool can(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    const tsr_kernel *k = &p->kernel[op->kernel];
    bool codes = in->dtype == TSR_U8 && in->quant >= 0 && p->quant[in->quant].scale == 0;
    bool whole = op->out.y0 == 0 && op->out.ny == out->h && op->cache < 0 && (op->out_dt == 1 || op->in.nt == 1);
    bool near =
        k->pad_top <= 1 && k->pad_bottom <= 1 && k->pad_left <= 1 && k->pad_right <= 1 && k->sy == 1 && k->sx == 1;
    return codes && whole && near && k->phases == 1 && out->dtype == TSR_F32;
}

/* ---------------------------------------------------------------- the primitive */

typedef struct descs {
    dnnl_memory_desc_t src, weights, vector, dst; /* vector: [cout], of the post-ops */
} descs;

static tsr_status describe(const tsr_program *p, const tsr_op *op, descs *d) {
    tsr_status status;
    const tsr_kernel *k = &p->kernel[op->kernel];
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    int depth = (op->in.nt - 1) * k->st + k->kt;
    DNNL_TRY(
        dnnl_memory_desc_init_by_tag(&d->src, 5, (dnnl_dims_t){1, k->cin, depth, in->h, in->w}, dnnl_u8, dnnl_ndhwc));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(
        &d->weights, 5, (dnnl_dims_t){k->cout, k->cin, k->kt, k->kh, k->kw}, dnnl_s8, dnnl_format_tag_any));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(&d->vector, 5, (dnnl_dims_t){1, k->cout, 1, 1, 1}, dnnl_f32, dnnl_ncdhw));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(
        &d->dst, 5, (dnnl_dims_t){1, k->cout, op->in.nt, out->h, out->w}, dnnl_f32, dnnl_ndhwc));
error:
    return status;
}

/* weights: the layout they lie in; NULL: whichever is fastest. */
static tsr_status create_desc(
    const tsr_program *p, const tsr_op *op, const dnnl_memory_desc_t *weights, dnnl_primitive_desc_t *out) {
    tsr_status status;
    const tsr_kernel *k = &p->kernel[op->kernel];
    descs d;
    dnnl_convolution_desc_t conv;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    *out = NULL;
    TSR_TRY(describe(p, op, &d));
    DNNL_TRY(dnnl_convolution_forward_desc_init(&conv, dnnl_forward_inference, dnnl_convolution_direct, &d.src,
        weights ? weights : &d.weights, NULL, &d.dst, (dnnl_dims_t){k->st, 1, 1},
        (dnnl_dims_t){0, k->pad_top - op->in.y0, k->pad_left},
        (dnnl_dims_t){0, k->pad_bottom - op->in.y0, k->pad_right})); /* bands have halo rows there */
    DNNL_TRY(dnnl_primitive_attr_create(&attr));
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    DNNL_TRY(dnnl_post_ops_create(&post));
    DNNL_TRY(dnnl_post_ops_append_binary(post, dnnl_binary_mul, &d.vector));
    DNNL_TRY(dnnl_post_ops_append_binary(post, dnnl_binary_add, &d.vector));
    if (op->accumulate)
        DNNL_TRY(dnnl_post_ops_append_sum(post, 1));
    DNNL_TRY(dnnl_primitive_attr_set_post_ops(attr, post));
    DNNL_TRY(dnnl_primitive_desc_create(out, &conv, attr, tsr_dnnl_engine(), NULL));
error:
    if (post)
        dnnl_post_ops_destroy(post);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

/* Scratch: scale [cout], bias [cout], oneDNN's own. */
static size_t vectors_bytes(const tsr_kernel *k) {
    return round_up(2 * (size_t)k->cout * sizeof(float), LINE);
}

typedef struct asked {
    const tsr_program *p;
    const tsr_op *op;
} asked;

static tsr_status create_any(const void *ctx, dnnl_primitive_desc_t *out) {
    const asked *a = ctx;
    return create_desc(a->p, a->op, NULL, out);
}

static size_t scratch(const tsr_program *p, const tsr_op *op) {
    const tsr_kernel *k = &p->kernel[op->kernel];
    const tsr_buffer *in = &p->buffer[op->in.buf];
    tsr_dnnl_shape s = {k->cin, k->cout, k->kt, k->kh, k->kw, k->st, 1, 1, k->pad_top - op->in.y0, k->pad_left,
        k->pad_bottom - op->in.y0, k->pad_right, op->in.nt, in->h, in->w, op->accumulate, true, tsr_threads()};
    return vectors_bytes(k) + tsr_dnnl_sizes_of(&s, create_any, &(asked){p, op}).scratch;
}

/* ---------------------------------------------------------------- packing */

/* Whether tap (b, c) reads outside of the picture at an edge. */
static bool outside(const tsr_kernel *k, int edge, int b, int c) {
    return edge == ALL || ((edge & ABOVE) && b < k->pad_top) || ((edge & BELOW) && b >= k->kh - k->pad_bottom) ||
           ((edge & LEFT) && c < k->pad_left) || ((edge & RIGHT) && c >= k->kw - k->pad_right);
}

static void sum_filter(const tsr_kernel *k, const int8_t *filter, int32_t *sums, int o) {
    for (int edge = 0; edge < EDGES; edge++)
        sums[edge * k->cout + o] = 0;
    for (int tap = 0; tap < k->kt * k->kh * k->kw; tap++) {
        int32_t sum = 0;
        for (int i = 0; i < k->cin; i++)
            sum += filter[tap * k->cin + i];
        for (int edge = 0; edge < EDGES; edge++)
            if (outside(k, edge, tap / k->kw % k->kh, tap % k->kw))
                sums[edge * k->cout + o] += sum;
    }
}

static tsr_status pack(
    tsr_packed *packed, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases) {
    const tsr_kernel *k = packed->kernel;
    size_t n = tsr_kernel_weights(k), filter = n / (size_t)k->cout;
    dnnl_primitive_desc_t desc = NULL;
    tsr_status status = TSR_OK;
    int8_t *codes = malloc(n);
    dnnl_memory_desc_t *layout = calloc(1, sizeof *layout);
    packed->layout = layout;
    if (!codes || !layout)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory"));
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)weights[i];
    for (int o = 0; o < k->cout; o++)
        sum_filter(k, codes + (size_t)o * filter, sums_at(packed), o);
    memcpy(scales_at(packed), packed->scale, (size_t)k->cout * sizeof(float));
    memcpy(scales_at(packed) + k->cout, biases, (size_t)k->cout * sizeof(float));
    TSR_TRY(create_desc(p, op, NULL, &desc));
    *layout = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    if (dnnl_memory_desc_get_size(layout) > codes_bytes(k))
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "oneDNN wants %zu bytes for weights of %zu; run with the plain C tier",
            dnnl_memory_desc_get_size(layout), codes_bytes(k)));
    TSR_TRY(tsr_dnnl_reorder(k, dnnl_s8, codes, layout, packed->at));
error:
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    free(codes);
    return status;
}

static void unpack(tsr_packed *k) {
    free(k->layout);
    k->layout = NULL;
}

static bool packed_for(const tsr_packed *k, const tsr_program *p, const tsr_op *op) {
    dnnl_primitive_desc_t desc;
    if (create_desc(p, op, NULL, &desc) != TSR_OK)
        return false; /* pack() will say so */
    bool same = dnnl_memory_desc_equal(k->layout, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
    dnnl_primitive_desc_destroy(desc);
    return same;
}

/* ---------------------------------------------------------------- binding */

typedef struct conv {
    dnnl_primitive_t primitive;
    dnnl_memory_t src, weights, bias, scale, dst, scratch;
} conv;

static tsr_status bind(void **bound, const tsr_program *p, const tsr_op *op, const tsr_packed *kernel) {
    tsr_status status;
    descs d;
    dnnl_engine_t engine = tsr_dnnl_engine();
    dnnl_primitive_desc_t desc = NULL;
    conv *c = calloc(1, sizeof *c);
    *bound = c;
    if (!c)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    TSR_TRY(describe(p, op, &d));
    TSR_TRY(create_desc(p, op, kernel->layout, &desc));
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    size_t planned = scratch(p, op) - vectors_bytes(kernel->kernel);
    if (dnnl_memory_desc_get_size(pad) > planned)
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "oneDNN wants %zu bytes of scratch, planned were %zu",
            dnnl_memory_desc_get_size(pad), planned));
    DNNL_TRY(dnnl_primitive_create(&c->primitive, desc));
    DNNL_TRY(dnnl_memory_create(&c->src, &d.src, engine, NULL));
    DNNL_TRY(dnnl_memory_create(&c->weights, kernel->layout, engine, kernel->at));
    DNNL_TRY(dnnl_memory_create(&c->bias, &d.vector, engine, NULL));
    DNNL_TRY(dnnl_memory_create(&c->scale, &d.vector, engine, NULL));
    DNNL_TRY(dnnl_memory_create(&c->dst, &d.dst, engine, NULL));
    DNNL_TRY(dnnl_memory_create(&c->scratch, pad, engine, NULL));
error:
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    return status;
}

static void unbind(void *bound) {
    conv *c = bound;
    dnnl_memory_t memory[] = {c->scratch, c->dst, c->scale, c->bias, c->weights, c->src};
    for (size_t j = 0; j < sizeof memory / sizeof *memory; j++)
        if (memory[j])
            dnnl_memory_destroy(memory[j]);
    if (c->primitive)
        dnnl_primitive_destroy(c->primitive);
    free(c);
}

/* ---------------------------------------------------------------- running */

typedef struct edges {
    const tsr_op_io *io;
    const int32_t *sums;
    const float *scale; /* s ws */
    float *out;         /* the first frame */
} edges;

/* Padding codes z instead of 0, for the pixels whose filter reaches over the edge. */
static void mend_pixel(const edges *e, float *to, int edge) {
    int cout = e->io->kernel->kernel->cout;
    const int32_t *sum = e->sums + edge * cout;
    float zero = (float)e->io->range->zero;
    for (int o = 0; o < cout; o++)
        to[o] += e->scale[o] * (zero * (float)sum[o]);
}

static void mend_rows(void *ctx, size_t begin, size_t end) { /* of [frames][rows] */
    const edges *e = ctx;
    const tsr_buffer *out = &e->io->program->buffer[e->io->op->out.buf];
    int top = tsr_picture_begin(out, e->io->band), bottom = top + tsr_picture_rows(out) - 1;
    for (size_t r = begin; r < end; r++) {
        int y = (int)(r % (size_t)out->h), row = (y == top ? ABOVE : 0) | (y == bottom ? BELOW : 0);
        float *to = e->out + r * (size_t)out->w * (size_t)out->c;
        int step = row || out->w == 1 ? 1 : out->w - 1; /* between: the two ends only */
        for (int x = 0; x < out->w; x += step)
            mend_pixel(e, to + (size_t)x * (size_t)out->c, row | (x == 0 ? LEFT : 0) | (x == out->w - 1 ? RIGHT : 0));
    }
}

/* The rows of a band, [frames][h][w][c], that are outside of the picture. */
static void fill_outside(const tsr_op_io *io, uint8_t *in, int value) {
    const tsr_buffer *b = &io->program->buffer[io->op->in.buf];
    const tsr_kernel *k = io->kernel->kernel;
    int frames = (io->op->in.nt - 1) * k->st + k->kt, top, end;
    size_t row = (size_t)b->w * (size_t)b->c;
    tsr_io_rows(io, (tsr_view){.buf = io->op->in.buf, .ny = b->h}, &top, &end);
    for (int t = 0; t < frames; t++, in += (size_t)b->h * row) {
        memset(in, value, row * (size_t)top);
        memset(in + row * (size_t)end, value, row * (size_t)(b->h - end));
    }
}

static tsr_status run(const tsr_op_io *io) {
    tsr_status status;
    const conv *c = io->bound;
    const tsr_op *op = io->op;
    const tsr_kernel *k = io->kernel->kernel;
    const tsr_buffer *from = &io->program->buffer[op->in.buf], *to = &io->program->buffer[op->out.buf];
    const float *ws = scales_at(io->kernel), *b = ws + k->cout;
    const int32_t *sums = sums_at(io->kernel);
    float *scale = io->scratch, *bias = scale + k->cout;
    for (int o = 0; o < k->cout; o++) {
        scale[o] = io->range->scale * ws[o];
        bias[o] = b[o] - scale[o] * (float)(io->range->zero * sums[ALL * k->cout + o]);
    }
    ptrdiff_t in_frame = (ptrdiff_t)from->h * from->w * from->c, out_frame = (ptrdiff_t)to->h * to->w * to->c;
    uint8_t *in = (uint8_t *)io->in + (op->in.t0 - (k->kt - 1)) * in_frame;
    edges e = {io, sums, scale, (float *)io->out + op->out.t0 * out_frame};
    fill_outside(io, in, 0);
    DNNL_TRY(dnnl_memory_set_data_handle(c->src, in));
    DNNL_TRY(dnnl_memory_set_data_handle(c->bias, bias));
    DNNL_TRY(dnnl_memory_set_data_handle(c->scale, scale));
    DNNL_TRY(dnnl_memory_set_data_handle(c->dst, e.out));
    DNNL_TRY(dnnl_memory_set_data_handle(c->scratch, (char *)io->scratch + vectors_bytes(k)));
    DNNL_TRY(dnnl_primitive_execute(c->primitive, tsr_dnnl_stream(), 6,
        (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, c->src}, {DNNL_ARG_WEIGHTS, c->weights}, {DNNL_ARG_DST, c->dst},
            {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, c->scale},
            {DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1, c->bias}, {DNNL_ARG_SCRATCHPAD, c->scratch}}));
    DNNL_TRY(dnnl_stream_wait(tsr_dnnl_stream()));
    tsr_parallel_for((size_t)op->in.nt * (size_t)to->h, 8, mend_rows, &e);
    fill_outside(io, in, io->range->zero);
error:
    return status;
}

/* ---------------------------------------------------------------- the tier */

/* Without VNNI, products of codes are added in pairs in 16 bits, which saturates. */
static bool here(void) {
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    return tsr_dnnl_engine() && tsr_dnnl_stream() &&
           (isa == dnnl_cpu_isa_avx2_vnni || (isa & dnnl_cpu_isa_avx512_core_vnni) == dnnl_cpu_isa_avx512_core_vnni);
}

static void codes_gemm(int m, int n, int k, const uint8_t *x, const int8_t *w, int32_t *y) {
    int32_t none = 0;
    dnnl_gemm_u8s8s32('N', 'N', 'F', m, n, k, 1, x, k, 0, w, n, 0, 0, y, n, &none);
}

const tsr_tier tsr_tier_vnni = {
    .name = "oneDNN u8",
    .here = here,
    .codes_gemm = codes_gemm,
    .kernel_bytes = kernel_bytes,
    .pack = pack,
    .unpack = unpack,
    .packed_for = packed_for,
    .op = {[TSR_OP_CONV] = {can, scratch, bind, unbind, run}},
};

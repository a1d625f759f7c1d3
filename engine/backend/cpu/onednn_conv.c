/*
 * f32 convolutions through oneDNN, channels last, weights in the blocked layout that it asks for.
 * Causal padding in time is the head in front of the frames, so a conv in time has none of its own.
 * The residual is added in place by a sum post-op.
 *
 * The merged upsampler is four small convolutions, one a phase and frame, into scratch, from where
 * a scatter puts their pixels at (2h+p, 2w+r) and corrects the bias at the picture's edge: oneDNN
 * writes to strides only in its slowest code.
 *
 * Packed kernel: four or one weights [cout][kt][kh][kw][cin] in the layouts of the record, each on
 * a cache line, then biases [phases][classes][cout]. Which layout oneDNN wants depends on the
 * picture's size; all have at most weights_bound() bytes.
 */
#include "backend/cpu/onednn.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = 64, MOST_PHASES = 4 };

/* ---------------------------------------------------------------- the shape of one primitive */

typedef tsr_dnnl_shape shape;

static int phases_of(const tsr_program *p, const tsr_op *op) {
    return p->kernel[op->kernel].phases;
}

static shape kernel_shape(const tsr_kernel *k, int phase, int frames, int h, int w) {
    bool spread = k->phases == 4;
    int p = phase / 2, r = phase % 2;
    return (shape){
        k->cin,
        k->cout,
        k->kt,
        k->kh,
        k->kw,
        k->st,
        k->sy,
        k->sx,
        .top = spread ? 1 - p : k->pad_top,
        .left = spread ? 1 - r : k->pad_left,
        .bottom = spread ? p : k->pad_bottom,
        .right = spread ? r : k->pad_right,
        .frames = frames,
        .h = h,
        .w = w,
        .threads = tsr_threads(),
    };
}

/* Of an op's phase: phases run a frame at a time, which bounds their scratch. */
static shape op_shape(const tsr_program *p, const tsr_op *op, int phase) {
    const tsr_kernel *k = &p->kernel[op->kernel];
    const tsr_buffer *in = &p->buffer[op->in.buf];
    shape s = kernel_shape(k, phase, k->phases == 4 ? 1 : op->in.nt, in->h, in->w);
    if (k->phases == 1) { /* in a band, halo rows take the place of padding */
        s.top -= op->in.y0;
        s.bottom -= op->in.y0;
    }
    s.sum = op->accumulate;
    return s;
}

typedef struct descs {
    dnnl_memory_desc_t src, weights, bias, dst;
} descs;

static tsr_status describe(const shape *s, descs *d) {
    tsr_status status;
    int depth = (s->frames - 1) * s->st + s->kt;
    int oh = (s->h + s->top + s->bottom - s->kh) / s->sy + 1, ow = (s->w + s->left + s->right - s->kw) / s->sx + 1;
    DNNL_TRY(
        dnnl_memory_desc_init_by_tag(&d->src, 5, (dnnl_dims_t){1, s->cin, depth, s->h, s->w}, dnnl_f32, dnnl_ndhwc));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(
        &d->weights, 5, (dnnl_dims_t){s->cout, s->cin, s->kt, s->kh, s->kw}, dnnl_f32, dnnl_format_tag_any));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(&d->bias, 1, (dnnl_dims_t){s->cout}, dnnl_f32, dnnl_x));
    DNNL_TRY(
        dnnl_memory_desc_init_by_tag(&d->dst, 5, (dnnl_dims_t){1, s->cout, s->frames, oh, ow}, dnnl_f32, dnnl_ndhwc));
error:
    return status;
}

/* weights: the layout they lie in; NULL: whichever is fastest. */
static tsr_status create_desc(const shape *s, const dnnl_memory_desc_t *weights, dnnl_primitive_desc_t *out) {
    tsr_status status;
    descs d;
    dnnl_convolution_desc_t conv;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    *out = NULL;
    TSR_TRY(describe(s, &d));
    DNNL_TRY(dnnl_convolution_forward_desc_init(&conv, dnnl_forward_inference, dnnl_convolution_direct, &d.src,
        weights ? weights : &d.weights, &d.bias, &d.dst, (dnnl_dims_t){s->st, s->sy, s->sx},
        (dnnl_dims_t){0, s->top, s->left}, (dnnl_dims_t){0, s->bottom, s->right}));
    DNNL_TRY(dnnl_primitive_attr_create(&attr));
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (s->sum) {
        DNNL_TRY(dnnl_post_ops_create(&post));
        DNNL_TRY(dnnl_post_ops_append_sum(post, 1));
        DNNL_TRY(dnnl_primitive_attr_set_post_ops(attr, post));
    }
    DNNL_TRY(dnnl_primitive_desc_create(out, &conv, attr, tsr_dnnl_engine(), NULL));
error:
    if (post)
        dnnl_post_ops_destroy(post);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

/* ---------------------------------------------------------------- sizes */

static tsr_status create_any(const void *ctx, dnnl_primitive_desc_t *out) {
    return create_desc(ctx, NULL, out);
}

static tsr_dnnl_sizes sizes_of(const shape *s) {
    return tsr_dnnl_sizes_of(s, create_any, s);
}

static size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

/* oneDNN rounds output channels up to blocks of 16 to 64, which depend on the picture's size: the
 * most it may come to. Other layouts (without AVX-512) do not depend on it; those are asked about a
 * small picture. */
static size_t weights_bound(const tsr_kernel *k) {
    size_t taps = (size_t)k->kt * (size_t)k->kh * (size_t)k->kw, blocks = round_up((size_t)k->cout, 16), most = 0;
    bool pointwise = taps == 1;
    for (size_t b = 16; b <= 64; b += 16)
        if (b <= blocks && (b != 48 || pointwise || blocks % 48 == 0) && round_up(blocks, b) > most)
            most = round_up(blocks, b);
    most *= taps * (size_t)k->cin * sizeof(float);
    shape small = kernel_shape(k, 0, 1, 16, 16);
    size_t asked = sizes_of(&small).weights;
    return round_up(asked > most ? asked : most, LINE);
}

size_t tsr_dnnl_kernel_bytes(const tsr_kernel *k, tsr_dtype input) {
    if (input != TSR_F32)
        return 0;
    return (size_t)k->phases * weights_bound(k) + tsr_kernel_biases(k) * sizeof(float);
}

static size_t phase_bytes(const tsr_program *p, const tsr_op *op) { /* of a phase's output before it is scattered */
    const tsr_buffer *in = &p->buffer[op->in.buf];
    size_t pixels = (size_t)in->h * (size_t)in->w;
    return phases_of(p, op) == 4 ? round_up(pixels * (size_t)p->kernel[op->kernel].cout * sizeof(float), LINE) : 0;
}

size_t tsr_dnnl_conv_scratch(const tsr_program *p, const tsr_op *op) {
    size_t most = 0;
    for (int i = 0; i < phases_of(p, op); i++) {
        shape s = op_shape(p, op, i);
        size_t bytes = sizes_of(&s).scratch;
        most = bytes > most ? bytes : most;
    }
    return phase_bytes(p, op) + most;
}

bool tsr_dnnl_conv_can(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    bool plain = in->dtype == TSR_F32 && in->quant < 0 && out->dtype == TSR_F32 && out->quant < 0;
    bool whole = op->out.y0 == 0 && op->out.ny == out->h && op->cache < 0;
    return plain && whole && (phases_of(p, op) == 4 ? !op->accumulate : op->out_dt == 1 || op->in.nt == 1);
}

/* ---------------------------------------------------------------- packing */

typedef struct layout {
    dnnl_memory_desc_t weights[MOST_PHASES];
} layout;

tsr_status tsr_dnnl_pack(
    tsr_packed *packed, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases) {
    const tsr_kernel *k = packed->kernel;
    size_t n = tsr_kernel_weights(k) / (size_t)k->phases, bytes = weights_bound(k);
    tsr_status status = TSR_OK;
    layout *l = calloc(1, sizeof *l);
    packed->layout = l;
    if (!l)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    for (int i = 0; i < k->phases && status == TSR_OK; i++) {
        shape s = op_shape(p, op, i);
        dnnl_primitive_desc_t desc;
        status = create_desc(&s, NULL, &desc);
        if (status != TSR_OK)
            break;
        l->weights[i] = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
        dnnl_primitive_desc_destroy(desc);
        if (dnnl_memory_desc_get_size(&l->weights[i]) > bytes)
            return tsr_fail(TSR_ERR_UNSUPPORTED, "oneDNN wants %zu bytes for weights of %zu; run with the plain C tier",
                dnnl_memory_desc_get_size(&l->weights[i]), bytes);
        status = tsr_dnnl_reorder(k, dnnl_f32, weights + (size_t)i * n, &l->weights[i], (char *)packed->at + (size_t)i * bytes);
    }
    memcpy((char *)packed->at + (size_t)k->phases * bytes, biases, tsr_kernel_biases(k) * sizeof(float));
    return status;
}

void tsr_dnnl_unpack(tsr_packed *k) {
    free(k->layout);
    k->layout = NULL;
}

bool tsr_dnnl_packed_for(const tsr_packed *k, const tsr_program *p, const tsr_op *op) {
    const layout *l = k->layout;
    bool same = true;
    for (int i = 0; i < k->kernel->phases && same; i++) {
        shape s = op_shape(p, op, i);
        dnnl_primitive_desc_t desc;
        if (create_desc(&s, NULL, &desc) != TSR_OK)
            return false; /* pack() will say so */
        same = dnnl_memory_desc_equal(&l->weights[i], dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
        dnnl_primitive_desc_destroy(desc);
    }
    return same;
}

/* ---------------------------------------------------------------- binding */

typedef struct part { /* one primitive: a phase, or the whole op */
    dnnl_primitive_t primitive;
    dnnl_memory_t src, weights, bias, dst, scratch;
} part;

typedef struct conv {
    int parts;
    part part[MOST_PHASES];
} conv;

static tsr_status bind_part(part *out, const shape *s, const tsr_packed *kernel, int phase, size_t scratch) {
    tsr_status status;
    descs d;
    const tsr_kernel *k = kernel->kernel;
    const layout *l = kernel->layout;
    dnnl_engine_t engine = tsr_dnnl_engine();
    dnnl_primitive_desc_t desc = NULL;
    size_t bytes = weights_bound(k);
    float *bias = (float *)((char *)kernel->at + (size_t)k->phases * bytes) + phase * k->classes * k->cout;
    TSR_TRY(describe(s, &d));
    TSR_TRY(create_desc(s, &l->weights[phase], &desc));
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    if (dnnl_memory_desc_get_size(pad) > scratch) {
        status = tsr_fail(TSR_ERR_UNSUPPORTED, "oneDNN wants %zu bytes of scratch, planned were %zu",
            dnnl_memory_desc_get_size(pad), scratch);
        goto error;
    }
    DNNL_TRY(dnnl_primitive_create(&out->primitive, desc));
    DNNL_TRY(dnnl_memory_create(&out->src, &d.src, engine, NULL));
    DNNL_TRY(dnnl_memory_create(&out->weights, &l->weights[phase], engine, (char *)kernel->at + (size_t)phase * bytes));
    DNNL_TRY(dnnl_memory_create(&out->bias, &d.bias, engine, bias));
    DNNL_TRY(dnnl_memory_create(&out->dst, &d.dst, engine, NULL));
    DNNL_TRY(dnnl_memory_create(&out->scratch, pad, engine, NULL));
error:
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    return status;
}

tsr_status tsr_dnnl_conv_bind(void **bound, const tsr_program *p, const tsr_op *op, const tsr_packed *kernel) {
    size_t scratch = tsr_dnnl_conv_scratch(p, op) - phase_bytes(p, op);
    tsr_status status = TSR_OK;
    conv *c = calloc(1, sizeof *c);
    if (!c)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    *bound = c;
    c->parts = kernel->kernel->phases;
    for (int i = 0; i < c->parts && status == TSR_OK; i++) {
        shape s = op_shape(p, op, i);
        status = bind_part(&c->part[i], &s, kernel, i, scratch);
    }
    return status;
}

void tsr_dnnl_conv_unbind(void *bound) {
    conv *c = bound;
    for (int i = 0; i < c->parts; i++) {
        dnnl_memory_t memory[] = {
            c->part[i].scratch, c->part[i].dst, c->part[i].bias, c->part[i].weights, c->part[i].src};
        for (size_t j = 0; j < sizeof memory / sizeof *memory; j++)
            if (memory[j])
                dnnl_memory_destroy(memory[j]);
        if (c->part[i].primitive)
            dnnl_primitive_destroy(c->part[i].primitive);
    }
    free(c);
}

/* ---------------------------------------------------------------- running */

static tsr_status run_part(const part *u, const void *src, void *dst, void *scratch) {
    tsr_status status;
    DNNL_TRY(dnnl_memory_set_data_handle(u->src, (void *)src));
    DNNL_TRY(dnnl_memory_set_data_handle(u->dst, dst));
    DNNL_TRY(dnnl_memory_set_data_handle(u->scratch, scratch));
    DNNL_TRY(dnnl_primitive_execute(u->primitive, tsr_dnnl_stream(), 5,
        (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, u->src}, {DNNL_ARG_WEIGHTS, u->weights}, {DNNL_ARG_BIAS, u->bias},
            {DNNL_ARG_DST, u->dst}, {DNNL_ARG_SCRATCHPAD, u->scratch}}));
    DNNL_TRY(dnnl_stream_wait(tsr_dnnl_stream()));
error:
    return status;
}

typedef struct scatter {
    const float *from;          /* [h][w][c] */
    float *to;                  /* the output frame, [2h][2w][c] */
    const float *bias;          /* [classes][c] of the phase */
    int h, w, c, p, r, classes; /* rows of `from` */
    int skip;                   /* of them before the first that has a place in `to` */
    int top, bottom;            /* the picture's first and last */
} scatter;

static void scatter_pixel(const scatter *s, int y, int x) {
    const float *from = s->from + ((size_t)y * (size_t)s->w + (size_t)x) * (size_t)s->c;
    float *to = s->to + ((size_t)(2 * (y - s->skip) + s->p) * 2 * (size_t)s->w + (size_t)(2 * x + s->r)) * (size_t)s->c;
    int ey = y == (s->p ? s->bottom : s->top), ex = x == (s->r ? s->w - 1 : 0), class = ey * 2 + ex;
    if (class == 0 || s->classes == 1) {
        memcpy(to, from, (size_t)s->c * sizeof *to);
        return;
    }
    const float *bias = s->bias + class * s->c;
    for (int c = 0; c < s->c; c++) /* the convolution added that of the inside */
        to[c] = from[c] + (bias[c] - s->bias[c]);
}

static void scatter_rows(void *ctx, size_t begin, size_t end) {
    const scatter *s = ctx;
    for (size_t y = begin; y < end; y++)
        for (int x = 0; x < s->w; x++)
            scatter_pixel(s, (int)y + s->skip, x);
}

static tsr_status run_phases(const tsr_op_io *io, const conv *c, const float *in, float *out) {
    const tsr_op *op = io->op;
    const tsr_kernel *k = io->kernel->kernel;
    const tsr_buffer *from = &io->program->buffer[op->in.buf];
    size_t frame = (size_t)from->h * (size_t)from->w * (size_t)from->c, bytes = phase_bytes(io->program, op);
    size_t out_frame = 2 * (size_t)op->out.ny * (size_t)from->w * (size_t)k->cout;
    int top = tsr_picture_begin(from, io->band);
    const float *biases = (const float *)((const char *)io->kernel->at + (size_t)k->phases * weights_bound(k));
    for (int i = 0; i < op->in.nt; i++)
        for (int phase = 0; phase < c->parts; phase++) {
            void *scratch = (char *)io->scratch + bytes;
            tsr_status status = run_part(&c->part[phase], in + (size_t)i * frame, io->scratch, scratch);
            if (status != TSR_OK)
                return status;
            scatter s = {io->scratch, out + (size_t)(i * op->out_dt) * out_frame, biases + phase * k->classes * k->cout,
                from->h, from->w, k->cout, phase / 2, phase % 2, k->classes, op->in.y0, top,
                top + tsr_picture_rows(from) - 1};
            tsr_parallel_for((size_t)op->out.ny / 2, 4, scatter_rows, &s);
        }
    return TSR_OK;
}

tsr_status tsr_dnnl_conv_run(const tsr_op_io *io) {
    const conv *c = io->bound;
    const tsr_op *op = io->op;
    const tsr_buffer *from = &io->program->buffer[op->in.buf], *to = &io->program->buffer[op->out.buf];
    ptrdiff_t in_frame = (ptrdiff_t)from->h * from->w * from->c, out_frame = (ptrdiff_t)to->h * to->w * to->c;
    const float *in = (const float *)io->in + (op->in.t0 - (io->kernel->kernel->kt - 1)) * in_frame;
    float *out = (float *)io->out + op->out.t0 * out_frame;
    return c->parts == 1 ? run_part(&c->part[0], in, out, io->scratch) : run_phases(io, c, in, out);
}

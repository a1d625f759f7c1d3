/* From the ops of a step program to kernel launches and copies. */
#include "backend/cuda/bind.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    STATS_PIXELS = 512, /* of a block of tsr_stats: enough blocks, few partial sums */
    NORM_PIXELS = 32,   /* of a block of tsr_norm: 32 x 128 channels keep 256 threads busy */
};

static tsr_elem elem_of(tsr_dtype t) {
    return t == TSR_F16    ? TSR_ELEM_F16
           : t == TSR_BF16 ? TSR_ELEM_BF16
           : t == TSR_E4M3 ? TSR_ELEM_E4M3
           : t == TSR_U8   ? TSR_ELEM_U8
                           : TSR_ELEM_F32;
}

unsigned tsr_bind_blocks(int64_t n, int64_t each) {
    return (unsigned)((n + each - 1) / each);
}

/* ---------------------------------------------------------------- scratch: partial statistics */

static int out_rows(const tsr_kernel *k, const tsr_buffer *out) { /* that one phase computes */
    return k->phases == 4 ? out->h / 2 : out->h;
}
static int out_columns(const tsr_kernel *k, const tsr_buffer *out) {
    return k->phases == 4 ? out->w / 2 : out->w;
}

/* Tiles a frame has in a conv's partial statistics. */
static int conv_tiles(const tsr_program *p, const tsr_op *op, tsr_conv_shape shape) {
    const tsr_kernel *k = &p->kernel[op->kernel];
    const tsr_buffer *out = &p->buffer[op->out.buf];
    int tile_h = tsr_conv_forms[shape].tile_h;
    return k->phases * (int)tsr_bind_blocks(out_rows(k, out), tile_h) *
           (int)tsr_bind_blocks(out_columns(k, out), TSR_CONV_TILE_W);
}

/* The conv whose epilogue gathers partial statistics is done with its frames when it has run. */
static bool gathers(const tsr_op *op) {
    return op->kind == TSR_OP_CONV && op->stats >= 0;
}

/* Every frame of this STATS op was gathered by the convs before it. */
static bool gathered(const tsr_program *p, const tsr_op *stats) {
    int missing = stats->in.nt;
    for (const tsr_op *op = p->op; op < stats; op++)
        if (gathers(op) && op->stats == stats->out.buf)
            missing -= op->out.nt;
    return missing == 0;
}

/* Partial statistics of n frames: sums [n][tiles][c][2] f32; where the norm gives u8 codes, extremes [n][tiles][c]. */
typedef struct partials {
    int n, tiles, c;
    bool extremes;
} partials;

static partials partials_of(const tsr_program *p, int stats, int n, int tiles, int c) {
    return (partials){n, tiles, c, p->buffer[stats].w > TSR_GROUPS};
}
static size_t sums_floats(const partials *s) {
    return (size_t)s->n * (size_t)s->tiles * (size_t)s->c * 2;
}
static uint32_t *extremes_at(const partials *s, float *scratch) {
    return s->extremes && scratch ? (uint32_t *)(scratch + sums_floats(s)) : NULL;
}

/* With the shape that has most. */
static int most_tiles(const tsr_cuda *c, const tsr_program *p, const tsr_op *op) {
    tsr_conv_shape shape[TSR_CONV_CHOICES];
    int most = 0;
    int n = tsr_conv_choices(&p->kernel[op->kernel], p->buffer[op->in.buf].dtype, tsr_cuda_hopper(c), shape);
    for (int i = 0; i < n; i++) {
        int tiles = conv_tiles(p, op, shape[i]);
        most = tiles > most ? tiles : most;
    }
    return most;
}

size_t tsr_cuda_op_scratch(const tsr_cuda *c, const tsr_program *p, const tsr_op *op) {
    partials s = {0};
    if (gathers(op)) {
        s = partials_of(p, op->stats, op->out.nt, most_tiles(c, p, op), p->buffer[op->out.buf].c);
    } else if (op->kind == TSR_OP_STATS && !gathered(p, op)) {
        const tsr_buffer *in = &p->buffer[op->in.buf];
        int tiles = (int)tsr_bind_blocks((int64_t)in->h * in->w, STATS_PIXELS);
        s = partials_of(p, op->out.buf, op->in.nt, tiles, in->c);
    }
    return sums_floats(&s) * sizeof(float) * (s.extremes ? 3 : 2) / 2;
}

/* ---------------------------------------------------------------- the list of launches */

tsr_cuda_launch *tsr_bind_add(tsr_binder *b) {
    tsr_cuda_step *s = &b->x->step[b->kind];
    if (s->launches == s->room) {
        int room = s->room ? 2 * s->room : 128;
        tsr_cuda_launch *more = realloc(s->launch, (size_t)room * sizeof *more);
        if (!more)
            return NULL;
        s->launch = more;
        s->room = room;
    }
    tsr_cuda_launch *l = &s->launch[s->launches++];
    *l = (tsr_cuda_launch){.op = b->op};
    tsr_bind_await_nothing(l->awaits);
    return l;
}

tsr_cuda_launch *tsr_bind_pass(tsr_binder *b, tsr_cuda_pass pass, unsigned gx, unsigned gy, unsigned shared) {
    tsr_cuda_launch *l = tsr_bind_add(b);
    if (!l)
        return NULL;
    l->kernel = b->x->cuda->pass[pass];
    l->grid[0] = gx;
    l->grid[1] = gy;
    l->grid[2] = 1;
    l->shared = shared;
    return l;
}

tsr_status tsr_bind_no_memory(void) {
    return tsr_fail(TSR_ERR_MEMORY, "cuda: out of memory for a step's launches");
}

void *tsr_bind_pointer(CUdeviceptr at) {
    return (void *)(uintptr_t)at;
}

size_t tsr_bind_frame_bytes(const tsr_buffer *b) {
    return b->bytes / (size_t)(b->head + b->frames);
}

/* Frame f of a buffer of the program. */
void *tsr_bind_frame(const tsr_binder *b, int buffer, int f) {
    const tsr_buffer *at = &b->p->buffer[buffer];
    int64_t frames = at->head + f;
    size_t offset = b->x->plan->buffer_at[b->kind][buffer] + (size_t)frames * tsr_bind_frame_bytes(at);
    return tsr_bind_pointer(b->x->arena + offset);
}

static void *scratch_of(const tsr_binder *b) {
    size_t at = b->x->plan->scratch_at[b->kind][b->op];
    return at == SIZE_MAX ? NULL : tsr_bind_pointer(b->x->arena + at);
}

/* ---------------------------------------------------------------- each kind of op */

/* Statistics of frames first .. first + n of the buffer `stats`, from partials number `from`.. of `s` in scratch. */
static tsr_status reduce(tsr_binder *b, const partials *s, int from, int n, int stats, int first, tsr_dtype type) {
    tsr_cuda_launch *l = tsr_bind_pass(b, PASS_tsr_reduce, TSR_GROUPS, (unsigned)n, TSR_REDUCE_SHARED);
    if (!l)
        return tsr_bind_no_memory();
    size_t skip = (size_t)from * (size_t)s->tiles * (size_t)s->c;
    float *partial = scratch_of(b);
    uint32_t *extremes = extremes_at(s, partial);
    l->args.reduce = (tsr_reduce_args){.partial = partial + 2 * skip,
        .extremes = extremes ? extremes + skip : NULL,
        .sums = tsr_bind_frame(b, stats, first),
        .tiles = s->tiles,
        .c = s->c,
        .groups = TSR_GROUPS,
        .type = (int32_t)elem_of(type),
        .pairs = b->p->buffer[stats].w};
    return TSR_OK;
}

static void conv_pointers(const tsr_binder *b, const tsr_op *op, int weight, tsr_conv_args *a) {
    const tsr_conv_packing *packing = &b->x->packing[weight];
    CUdeviceptr base = b->x->weights + b->x->plan->weight[weight].at;
    a->in = a->past = tsr_bind_frame(b, op->in.buf, 0);
    a->weights = tsr_bind_pointer(base + packing->weights);
    a->bias = tsr_bind_pointer(base + packing->bias);
    if (tsr_dtype_size(packing->input) == 1)
        a->scale = tsr_bind_pointer(base + packing->scale);
    if (packing->input == TSR_U8) {
        a->weight_sum = tsr_bind_pointer(base + packing->weight_sum);
        a->range = tsr_bind_pointer(base + packing->range);
    }
    a->out = tsr_bind_frame(b, op->out.buf, op->out.t0);
    a->flag = tsr_bind_pointer(b->x->flag_at);
    a->flag_value = 1 + b->op;
    a->n_blocks = packing->n_blocks;
}

/* Adds the kernel of a conv whose input is of this type. */
static tsr_status add_conv(tsr_binder *b, const tsr_op *op, tsr_cuda_launch **out) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    const tsr_conv_packing *packing = &b->x->packing[b->x->plan->weight_of[b->kind][op->kernel]];
    CUkernel kernel = NULL;
    for (int i = 0; i < TSR_CUDA_CONV_ELEMENTS; i++)
        if (tsr_cuda_element[i] == in->dtype)
            kernel = b->x->cuda->conv[i][packing->shape];
    if (!kernel)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "cuda: no kernel for this conv of %s; use --device cpu", tsr_dtype_name(in->dtype));
    *out = tsr_bind_add(b);
    if (!*out)
        return tsr_bind_no_memory();
    (*out)->kernel = kernel;
    (*out)->shared = (unsigned)tsr_conv_forms[packing->shape].shared;
    return TSR_OK;
}

static tsr_status bind_conv(tsr_binder *b, const tsr_op *op) {
    const tsr_program *p = b->p;
    const tsr_kernel *k = &p->kernel[op->kernel];
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    int weight = b->x->plan->weight_of[b->kind][op->kernel], tiles = conv_tiles(p, op, b->x->packing[weight].shape);
    tsr_cuda_launch *l = NULL;
    tsr_status status = add_conv(b, op, &l);
    if (status != TSR_OK)
        return status;
    tsr_conv_args *a = &l->args.conv;
    *a = (tsr_conv_args){.frames = op->out.nt,
        .t0 = op->in.t0,
        .st = k->st,
        .kt = k->kt,
        .h = in->h,
        .w = in->w,
        .cin = in->c,
        .rows = out_rows(k, out),
        .cols = out_columns(k, out),
        .out_h = out->h,
        .out_w = out->w,
        .cout = out->c,
        .out_dt = op->out_dt,
        .pad_top = k->pad_top,
        .pad_left = k->pad_left,
        .classes = k->classes,
        .accumulate = op->accumulate,
        .out_type = (int32_t)elem_of(out->dtype),
        .tiles_x = (int32_t)tsr_bind_blocks(out_columns(k, out), TSR_CONV_TILE_W)};
    conv_pointers(b, op, weight, a);
    partials s = {0};
    if (gathers(op)) {
        s = partials_of(p, op->stats, op->out.nt, tiles, out->c);
        a->partial = scratch_of(b);
        a->extremes = extremes_at(&s, a->partial);
    }
    l->grid[0] = (unsigned)(a->n_blocks * a->tiles_x);
    l->grid[1] = (unsigned)tiles / (unsigned)(k->phases * a->tiles_x);
    l->grid[2] = (unsigned)(a->frames * k->phases);
    if (op->cache >= 0) {
        l->moves = MOVES_PAST;
        l->from = b->x->plan->cache_at[op->cache] + tsr_bind_codes_bytes(&p->cache[op->cache]);
    }
    /* One reduction a frame where frames of two convs take turns. `l` is not touched from here: the list may move. */
    int each = op->out_dt == 1 ? op->out.nt : 1;
    for (int i = 0; i < s.n && status == TSR_OK; i += each)
        status = reduce(b, &s, i, each, op->stats, op->out.t0 + i * op->out_dt, out->dtype);
    return status;
}

static tsr_status bind_stats(tsr_binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    if (gathered(b->p, op))
        return TSR_OK;
    unsigned tiles = tsr_bind_blocks((int64_t)in->h * in->w, STATS_PIXELS);
    tsr_cuda_launch *l = tsr_bind_pass(b, PASS_tsr_stats, tiles, (unsigned)op->in.nt, TSR_STATS_SHARED);
    if (!l)
        return tsr_bind_no_memory();
    partials s = partials_of(b->p, op->out.buf, op->in.nt, (int)tiles, in->c);
    l->args.stats = (tsr_stats_args){.in = tsr_bind_frame(b, op->in.buf, op->in.t0),
        .partial = scratch_of(b),
        .extremes = extremes_at(&s, scratch_of(b)),
        .type = (int32_t)elem_of(in->dtype),
        .pixels = in->h * in->w,
        .c = in->c,
        .pixels_per_tile = STATS_PIXELS};
    return reduce(b, &s, 0, op->in.nt, op->out.buf, op->out.t0, in->dtype);
}

/* NORM, and QUANTISE, which is a norm without statistics. */
static tsr_status bind_norm(tsr_binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf], *out = &b->p->buffer[op->out.buf];
    int pixels = in->h * in->w;
    tsr_norm_args args = {.in = tsr_bind_frame(b, op->in.buf, op->in.t0),
        .out = tsr_bind_frame(b, op->out.buf, op->out.t0),
        .in_type = (int32_t)elem_of(in->dtype),
        .out_type = (int32_t)elem_of(out->dtype),
        .pixels = pixels,
        .c = in->c,
        .groups = TSR_GROUPS,
        .pixels_per_block = NORM_PIXELS,
        .planes = tsr_planes(b->p, op),
        .silu = op->silu,
        .factor = out->dtype == TSR_E4M3 ? 1 / b->p->quant[out->quant].scale : 1,
        .eps = (float)tsr_norm_eps(in)};
    if (op->kind == TSR_OP_NORM) {
        CUdeviceptr gamma = b->x->weights + b->x->plan->norm_at[op->layer];
        args.sums = tsr_bind_frame(b, op->stats, 0);
        args.pairs = b->p->buffer[op->stats].w;
        args.gamma = tsr_bind_pointer(gamma);
        args.beta = tsr_bind_pointer(gamma + (size_t)in->c * sizeof(float));
    }
    tsr_status status = out->dtype == TSR_U8 ? tsr_bind_range(b, op, &args) : TSR_OK;
    if (status != TSR_OK)
        return status;
    tsr_cuda_launch *l =
        tsr_bind_pass(b, PASS_tsr_norm, tsr_bind_blocks(pixels, NORM_PIXELS), (unsigned)op->in.nt, TSR_NORM_SHARED);
    if (!l)
        return tsr_bind_no_memory();
    l->args.norm = args;
    return TSR_OK;
}

static tsr_status bind_attention(tsr_binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf], *out = &b->p->buffer[op->out.buf];
    int tokens = in->h * in->w;
    tsr_cuda_launch *l = tsr_bind_pass(b, in->dtype == TSR_BF16 ? PASS_tsr_attention_bf16 : PASS_tsr_attention_f16,
        tsr_bind_blocks(tokens, TSR_ATTENTION_TOKENS), (unsigned)op->in.nt, TSR_ATTENTION_SHARED);
    if (!l)
        return tsr_bind_no_memory();
    l->args.attention = (tsr_attention_args){.qkv = tsr_bind_frame(b, op->in.buf, op->in.t0),
        .out = tsr_bind_frame(b, op->out.buf, op->out.t0),
        .tokens = tokens,
        .c = out->c,
        .scale = 1 / sqrtf((float)out->c)};
    return TSR_OK;
}

static tsr_status bind_input(tsr_binder *b, const tsr_op *op) {
    const tsr_buffer *out = &b->p->buffer[op->out.buf];
    size_t frame = (size_t)out->h * (size_t)out->w * (size_t)out->c;
    int64_t n = (int64_t)frame * op->out.nt;
    tsr_cuda_launch *l = tsr_bind_pass(b, PASS_tsr_input, tsr_bind_blocks(n, 1024), 1, 0);
    if (!l)
        return tsr_bind_no_memory();
    l->args.input = (tsr_input_args){
        .out = tsr_bind_frame(b, op->out.buf, op->out.t0), .n = n, .out_type = (int32_t)elem_of(out->dtype)};
    l->moves = MOVES_INPUT;
    l->from = (size_t)op->in.t0 * frame * sizeof(float);
    return TSR_OK;
}

static tsr_status bind_store(tsr_binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    tsr_dtype slot = b->x->plan->slot_dtype;
    int pixels = in->h * in->w;
    tsr_cuda_launch *l = tsr_bind_pass(b, PASS_tsr_store, tsr_bind_blocks(pixels, 256), (unsigned)op->in.nt, 0);
    if (!l)
        return tsr_bind_no_memory();
    l->args.store = (tsr_store_args){.in = tsr_bind_frame(b, op->in.buf, op->in.t0),
        .in_type = (int32_t)elem_of(in->dtype),
        .out_type = (int32_t)elem_of(slot),
        .pixels = pixels,
        .c = in->c};
    l->moves = MOVES_STORE;
    l->to = (size_t)op->out.t0 * (size_t)pixels * (size_t)in->c * tsr_dtype_size(slot);
    return TSR_OK;
}

static tsr_status bind_op(tsr_binder *b, const tsr_op *op) {
    if (op->cache >= 0 && !b->x->plan->cache_at) /* a video of one latent keeps nothing */
        return TSR_OK;
    switch (op->kind) {
    case TSR_OP_INPUT:
        return bind_input(b, op);
    case TSR_OP_CONV:
        return bind_conv(b, op);
    case TSR_OP_STATS:
        return bind_stats(b, op);
    case TSR_OP_NORM:
    case TSR_OP_QUANTISE:
        return bind_norm(b, op);
    case TSR_OP_ATTENTION:
        return bind_attention(b, op);
    case TSR_OP_CACHE_SAVE:
        return tsr_bind_save(b, op);
    case TSR_OP_STORE:
        return bind_store(b, op);
    case TSR_OP_CACHE_LOAD:
        return tsr_bind_load(b, op);
    case TSR_OP_PAGE_IN: /* not planned for it: target.bands */
    case TSR_OP_PAGE_OUT:
    case TSR_OP_KINDS:
        break;
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: no %s here", tsr_op_kind_name(op->kind));
}

tsr_status tsr_cuda_bind_alone(tsr_exec *x, tsr_step step, int op, tsr_cuda_launch *out) {
    tsr_binder b = {.x = x, .p = x->plan->program[step], .kind = step, .op = op};
    tsr_status status = bind_conv(&b, &b.p->op[op]);
    if (status == TSR_OK)
        *out = x->step[step].launch[0];
    x->step[step].launches = 0;
    return status;
}

/* What an op's launches wait for is waited for by the first of them, or of the next op that has any. */
static tsr_status bind_with_moves(tsr_binder *b) {
    tsr_cuda_step *s = &b->x->step[b->kind];
    tsr_status status = tsr_bind_moves(b);
    int first = s->launches;
    if (status == TSR_OK)
        status = bind_op(b, &b->p->op[b->op]);
    if (status == TSR_OK && s->launches > first) {
        memcpy(s->launch[first].awaits, b->awaits, sizeof b->awaits);
        tsr_bind_await_nothing(b->awaits);
    }
    return status;
}

tsr_status tsr_cuda_bind_step(tsr_exec *x, tsr_step step) {
    tsr_binder b = {.x = x, .p = x->plan->program[step], .kind = step};
    char text[160];
    tsr_status status;
    tsr_bind_await_nothing(b.awaits);
    TSR_TRY(tsr_moves_create(&b.moves, x->plan, step));
    b.transfer = calloc((size_t)b.p->ops, sizeof *b.transfer);
    b.saved = malloc(((size_t)b.p->caches + 1) * sizeof *b.saved);
    if (!b.transfer || !b.saved)
        TSR_TRY(tsr_bind_no_memory());
    memset(b.saved, -1, (size_t)b.p->caches * sizeof *b.saved);
    for (; b.op < b.p->ops; b.op++) {
        status = bind_with_moves(&b);
        if (status != TSR_OK)
            TSR_TRY(tsr_fail_context(status, "%s", tsr_op_text(text, b.p, &b.p->op[b.op])));
    }
error:
    tsr_moves_destroy(&b.moves);
    free(b.saved);
    free(b.transfer);
    return status;
}

/* From the ops of a step program to kernel launches and copies. */
#include "backend/cuda/device.h"

#include <math.h>
#include <stdlib.h>

enum {
    STATS_PIXELS = 512, /* of a block of tsr_stats: enough blocks, few partial sums */
    NORM_PIXELS = 32,   /* of a block of tsr_norm: 32 x 128 channels keep 256 threads busy */
    CODES_BLOCKS = 1024, /* of tsr_requantise, at most: it mostly finds that nothing is to be done */
};

static tsr_elem elem_of(tsr_dtype t) {
    return t == TSR_F16    ? TSR_ELEM_F16
           : t == TSR_BF16 ? TSR_ELEM_BF16
           : t == TSR_E4M3 ? TSR_ELEM_E4M3
           : t == TSR_U8   ? TSR_ELEM_U8
                           : TSR_ELEM_F32;
}

static unsigned blocks(int64_t n, int64_t each) {
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
    return k->phases * (int)blocks(out_rows(k, out), tile_h) *
           (int)blocks(out_columns(k, out), TSR_CONV_TILE_W);
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
    int n = tsr_conv_choices(
        &p->kernel[op->kernel], p->buffer[op->in.buf].dtype, tsr_cuda_hopper(c), shape);
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
        int tiles = (int)blocks((int64_t)in->h * in->w, STATS_PIXELS);
        s = partials_of(p, op->out.buf, op->in.nt, tiles, in->c);
    }
    return sums_floats(&s) * sizeof(float) * (s.extremes ? 3 : 2) / 2;
}

/* ---------------------------------------------------------------- the list of launches */

typedef struct binder {
    tsr_exec *x;
    const tsr_program *p;
    tsr_step kind;
    int op;
} binder;

static tsr_cuda_launch *add(binder *b) {
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
    return l;
}

static tsr_cuda_launch *add_pass(
    binder *b, tsr_cuda_pass pass, unsigned gx, unsigned gy, unsigned shared) {
    tsr_cuda_launch *l = add(b);
    if (!l)
        return NULL;
    l->kernel = b->x->cuda->pass[pass];
    l->grid[0] = gx;
    l->grid[1] = gy;
    l->grid[2] = 1;
    l->shared = shared;
    return l;
}

/* Of a cache: its frames, without the range beside u8 codes. */
static size_t codes_bytes(const tsr_cache *c) {
    return c->bytes - (c->dtype == TSR_U8 ? TSR_CACHE_RANGE : 0);
}

static tsr_status no_memory(void) {
    return tsr_fail(TSR_ERR_MEMORY, "cuda: out of memory for a step's launches");
}

static void *pointer(CUdeviceptr at) {
    return (void *)(uintptr_t)at;
}

static size_t frame_bytes(const tsr_buffer *b) {
    return b->bytes / (size_t)(b->head + b->frames);
}

/* Frame f of a buffer of the program. */
static void *frame_at(const binder *b, int buffer, int f) {
    const tsr_buffer *at = &b->p->buffer[buffer];
    int64_t frames = at->head + f;
    size_t offset = b->x->plan->buffer_at[b->kind][buffer] + (size_t)frames * frame_bytes(at);
    return pointer(b->x->arena + offset);
}

static void *scratch_of(const binder *b) {
    size_t at = b->x->plan->scratch_at[b->kind][b->op];
    return at == SIZE_MAX ? NULL : pointer(b->x->arena + at);
}

/* ---------------------------------------------------------------- each kind of op */

/* Statistics of frames first .. first + n of the buffer `stats`, from partials number `from`.. of `s` in scratch. */
static tsr_status reduce(
    binder *b, const partials *s, int from, int n, int stats, int first, tsr_dtype type) {
    tsr_cuda_launch *l = add_pass(b, PASS_tsr_reduce, TSR_GROUPS, (unsigned)n, TSR_REDUCE_SHARED);
    if (!l)
        return no_memory();
    size_t skip = (size_t)from * (size_t)s->tiles * (size_t)s->c;
    float *partial = scratch_of(b);
    uint32_t *extremes = extremes_at(s, partial);
    l->args.reduce = (tsr_reduce_args){.partial = partial + 2 * skip,
        .extremes = extremes ? extremes + skip : NULL,
        .sums = frame_at(b, stats, first),
        .tiles = s->tiles,
        .c = s->c,
        .groups = TSR_GROUPS,
        .type = (int32_t)elem_of(type),
        .pairs = b->p->buffer[stats].w};
    return TSR_OK;
}

static void conv_pointers(const binder *b, const tsr_op *op, int weight, tsr_conv_args *a) {
    const tsr_conv_packing *packing = &b->x->packing[weight];
    CUdeviceptr base = b->x->weights + b->x->plan->weight[weight].at;
    a->in = a->past = frame_at(b, op->in.buf, 0);
    a->weights = pointer(base + packing->weights);
    a->bias = pointer(base + packing->bias);
    if (tsr_dtype_size(packing->input) == 1)
        a->scale = pointer(base + packing->scale);
    if (packing->input == TSR_U8) {
        a->weight_sum = pointer(base + packing->weight_sum);
        a->range = pointer(base + packing->range);
    }
    a->out = frame_at(b, op->out.buf, op->out.t0);
    a->flag = pointer(b->x->flag_at);
    a->flag_value = 1 + b->op;
    a->n_blocks = packing->n_blocks;
}

/* Adds the kernel of a conv whose input is of this type. */
static tsr_status add_conv(binder *b, const tsr_op *op, tsr_cuda_launch **out) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    const tsr_conv_packing *packing =
        &b->x->packing[b->x->plan->weight_of[b->kind][op->kernel]];
    CUkernel kernel = NULL;
    for (int i = 0; i < TSR_CUDA_CONV_ELEMENTS; i++)
        if (tsr_cuda_element[i] == in->dtype)
            kernel = b->x->cuda->conv[i][packing->shape];
    if (!kernel)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: no kernel for this conv of %s; use --device cpu",
            tsr_dtype_name(in->dtype));
    *out = add(b);
    if (!*out)
        return no_memory();
    (*out)->kernel = kernel;
    (*out)->shared = (unsigned)tsr_conv_forms[packing->shape].shared;
    return TSR_OK;
}

static tsr_status bind_conv(binder *b, const tsr_op *op) {
    const tsr_program *p = b->p;
    const tsr_kernel *k = &p->kernel[op->kernel];
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    int weight = b->x->plan->weight_of[b->kind][op->kernel],
        tiles = conv_tiles(p, op, b->x->packing[weight].shape);
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
        .tiles_x = (int32_t)blocks(out_columns(k, out), TSR_CONV_TILE_W)};
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
        l->from = b->x->plan->cache_at[op->cache] + codes_bytes(&p->cache[op->cache]);
    }
    /* One reduction a frame where frames of two convs take turns. `l` is not touched from here: the list may move. */
    int each = op->out_dt == 1 ? op->out.nt : 1;
    for (int i = 0; i < s.n && status == TSR_OK; i += each)
        status = reduce(b, &s, i, each, op->stats, op->out.t0 + i * op->out_dt, out->dtype);
    return status;
}

static tsr_status bind_stats(binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    if (gathered(b->p, op))
        return TSR_OK;
    unsigned tiles = blocks((int64_t)in->h * in->w, STATS_PIXELS);
    tsr_cuda_launch *l =
        add_pass(b, PASS_tsr_stats, tiles, (unsigned)op->in.nt, TSR_STATS_SHARED);
    if (!l)
        return no_memory();
    partials s = partials_of(b->p, op->out.buf, op->in.nt, (int)tiles, in->c);
    l->args.stats = (tsr_stats_args){.in = frame_at(b, op->in.buf, op->in.t0),
        .partial = scratch_of(b),
        .extremes = extremes_at(&s, scratch_of(b)),
        .type = (int32_t)elem_of(in->dtype),
        .pixels = in->h * in->w,
        .c = in->c,
        .pixels_per_tile = STATS_PIXELS};
    return reduce(b, &s, 0, op->in.nt, op->out.buf, op->out.t0, in->dtype);
}

/* NORM to u8: where the conv that reads the codes has its gain and the range of the codes at hand. */
static CUdeviceptr reader_of(const binder *b, const tsr_op *norm, const tsr_conv_packing **packing) {
    for (const tsr_op *op = norm; op < b->p->op + b->p->ops; op++)
        if (op->kind == TSR_OP_CONV && op->in.buf == norm->out.buf) {
            int weight = b->x->plan->weight_of[b->kind][op->kernel];
            *packing = &b->x->packing[weight];
            return b->x->weights + b->x->plan->weight[weight].at;
        }
    return 0; /* not reached: what a norm writes is read */
}

/* NORM to u8: chooses the range; codes that the layer remembers follow it before a conv reads them. */
static tsr_status bind_range(binder *b, const tsr_op *op, tsr_norm_args *norm) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    const tsr_conv_packing *packing = NULL;
    CUdeviceptr reader = reader_of(b, op, &packing);
    tsr_cuda_launch *l = add_pass(b, PASS_tsr_set_range, 1, 1, TSR_SET_RANGE_SHARED);
    if (!l)
        return no_memory();
    norm->gain = pointer(reader + packing->gain);
    norm->range = pointer(reader + packing->range);
    l->args.set_range = (tsr_set_range_args){.sums = norm->sums,
        .gamma = norm->gamma,
        .beta = norm->beta,
        .gain = norm->gain,
        .state = pointer(reader + packing->range),
        .frames = op->in.nt,
        .pixels = in->h * in->w,
        .c = in->c,
        .groups = TSR_GROUPS,
        .eps = norm->eps};
    if (op->cache < 0)
        return TSR_OK;
    const tsr_cache *cache = &b->p->cache[op->cache];
    size_t at = b->x->plan->cache_at[op->cache], codes = codes_bytes(cache);
    l->moves = MOVES_RANGE;
    l->from = at + codes;
    unsigned all = blocks((int64_t)codes, 4096);
    l = add_pass(b, PASS_tsr_requantise, all < CODES_BLOCKS ? all : CODES_BLOCKS, 1, 0);
    if (!l)
        return no_memory();
    l->args.requantise = (tsr_requantise_args){.n = (int64_t)codes, .state = norm->range};
    l->moves = MOVES_CODES;
    l->to = at;
    return TSR_OK;
}

/* NORM, and QUANTISE, which is a norm without statistics. */
static tsr_status bind_norm(binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf], *out = &b->p->buffer[op->out.buf];
    int pixels = in->h * in->w;
    tsr_norm_args args = {.in = frame_at(b, op->in.buf, op->in.t0),
        .out = frame_at(b, op->out.buf, op->out.t0),
        .in_type = (int32_t)elem_of(in->dtype),
        .out_type = (int32_t)elem_of(out->dtype),
        .pixels = pixels,
        .c = in->c,
        .groups = TSR_GROUPS,
        .pixels_per_block = NORM_PIXELS,
        .silu = op->silu,
        .factor = out->dtype == TSR_E4M3 ? 1 / b->p->quant[out->quant].scale : 1,
        .eps = (float)TSR_NORM_EPS};
    if (op->kind == TSR_OP_NORM) {
        CUdeviceptr gamma = b->x->weights + b->x->plan->norm_at[op->layer];
        args.sums = frame_at(b, op->stats, 0);
        args.pairs = b->p->buffer[op->stats].w;
        args.gamma = pointer(gamma);
        args.beta = pointer(gamma + (size_t)in->c * sizeof(float));
    }
    tsr_status status = out->dtype == TSR_U8 ? bind_range(b, op, &args) : TSR_OK;
    if (status != TSR_OK)
        return status;
    tsr_cuda_launch *l = add_pass(
        b, PASS_tsr_norm, blocks(pixels, NORM_PIXELS), (unsigned)op->in.nt, TSR_NORM_SHARED);
    if (!l)
        return no_memory();
    l->args.norm = args;
    return TSR_OK;
}

static tsr_status bind_attention(binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf], *out = &b->p->buffer[op->out.buf];
    int tokens = in->h * in->w;
    tsr_cuda_launch *l =
        add_pass(b, in->dtype == TSR_BF16 ? PASS_tsr_attention_bf16 : PASS_tsr_attention_f16,
            blocks(tokens, TSR_ATTENTION_TOKENS), (unsigned)op->in.nt, TSR_ATTENTION_SHARED);
    if (!l)
        return no_memory();
    l->args.attention = (tsr_attention_args){.qkv = frame_at(b, op->in.buf, op->in.t0),
        .out = frame_at(b, op->out.buf, op->out.t0),
        .tokens = tokens,
        .c = out->c,
        .scale = 1 / sqrtf((float)out->c)};
    return TSR_OK;
}

static tsr_status bind_input(binder *b, const tsr_op *op) {
    const tsr_buffer *out = &b->p->buffer[op->out.buf];
    size_t frame = (size_t)out->h * (size_t)out->w * (size_t)out->c;
    int64_t n = (int64_t)frame * op->out.nt;
    tsr_cuda_launch *l = add_pass(b, PASS_tsr_input, blocks(n, 1024), 1, 0);
    if (!l)
        return no_memory();
    l->args.input = (tsr_input_args){.out = frame_at(b, op->out.buf, op->out.t0),
        .n = n,
        .out_type = (int32_t)elem_of(out->dtype)};
    l->moves = MOVES_INPUT;
    l->from = (size_t)op->in.t0 * frame * sizeof(float);
    return TSR_OK;
}

static tsr_status bind_store(binder *b, const tsr_op *op) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    tsr_dtype slot = b->x->plan->slot_dtype;
    int pixels = in->h * in->w;
    tsr_cuda_launch *l = add_pass(b, PASS_tsr_store, blocks(pixels, 256), (unsigned)op->in.nt, 0);
    if (!l)
        return no_memory();
    l->args.store = (tsr_store_args){.in = frame_at(b, op->in.buf, op->in.t0),
        .in_type = (int32_t)elem_of(in->dtype),
        .out_type = (int32_t)elem_of(slot),
        .pixels = pixels,
        .c = in->c};
    l->moves = MOVES_STORE;
    l->to = (size_t)op->out.t0 * (size_t)pixels * (size_t)in->c * tsr_dtype_size(slot);
    return TSR_OK;
}

/* The range that the conv before has read its codes by, to the cache's end. */
static tsr_status save_range(binder *b, const tsr_op *save, size_t to) {
    for (const tsr_op *op = save; op >= b->p->op; op--)
        if (op->kind == TSR_OP_CONV && op->in.buf == save->in.buf) {
            int weight = b->x->plan->weight_of[b->kind][op->kernel];
            tsr_cuda_launch *l = add(b);
            if (!l)
                return no_memory();
            l->moves = MOVES_SAVE;
            l->to = to;
            l->args.copy.from = b->x->weights + b->x->plan->weight[weight].at + b->x->packing[weight].range;
            l->args.copy.bytes = sizeof(tsr_range);
        }
    return TSR_OK;
}

/* Frame j of the cache = frame in.t0 + j, or in.t0 of all; frames before 0 are the cache's own last. In this order a
 * frame is read before it is overwritten. */
static tsr_status bind_save(binder *b, const tsr_op *op) {
    const tsr_cache *cache = &b->p->cache[op->cache];
    size_t at = b->x->plan->cache_at[op->cache], frame = codes_bytes(cache) / (size_t)cache->frames;
    for (int j = 0; j < cache->frames; j++) {
        int f = op->in.t0 + (op->replicate ? 0 : j);
        tsr_cuda_launch *l = add(b);
        if (!l)
            return no_memory();
        l->moves = f < 0 ? MOVES_SHIFT : MOVES_SAVE;
        l->to = at + (size_t)j * frame;
        l->args.copy.bytes = frame;
        if (f < 0)
            l->from = at + (size_t)(cache->frames + f) * frame;
        else
            l->args.copy.from = (CUdeviceptr)(uintptr_t)frame_at(b, op->in.buf, f);
    }
    return cache->dtype == TSR_U8 ? save_range(b, op, at + codes_bytes(cache)) : TSR_OK;
}

static tsr_status bind_op(binder *b, const tsr_op *op) {
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
        return bind_save(b, op);
    case TSR_OP_STORE:
        return bind_store(b, op);
    case TSR_OP_CACHE_LOAD: /* heads are not joined */
    case TSR_OP_PAGE_IN: /* not planned for it: target.bands */
    case TSR_OP_PAGE_OUT:
    case TSR_OP_KINDS:
        break;
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: no %s here", tsr_op_kind_name(op->kind));
}

tsr_status tsr_cuda_bind_alone(tsr_exec *x, tsr_step step, int op, tsr_cuda_launch *out) {
    binder b = {x, x->plan->program[step], step, op};
    tsr_status status = bind_conv(&b, &b.p->op[op]);
    if (status == TSR_OK)
        *out = x->step[step].launch[0];
    x->step[step].launches = 0;
    return status;
}

tsr_status tsr_cuda_bind_step(tsr_exec *x, tsr_step step) {
    binder b = {x, x->plan->program[step], step, 0};
    for (; b.op < b.p->ops; b.op++) {
        tsr_status status = bind_op(&b, &b.p->op[b.op]);
        char text[160];
        if (status != TSR_OK)
            return tsr_fail_context(status, "%s", tsr_op_text(text, b.p, &b.p->op[b.op]));
    }
    return TSR_OK;
}

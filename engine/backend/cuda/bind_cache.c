/* What is remembered between steps: caches on the device, which convs read themselves or, where heads are joined, have
 * copied in front of what they read; and caches in pinned host memory, whose transfers run beside the ops. */
#include "backend/cuda/bind.h"

#include <stdlib.h>

enum { CODES_BLOCKS = 1024 }; /* of tsr_requantise, at most: it mostly finds that nothing is to be done */

size_t tsr_bind_codes_bytes(const tsr_cache *c) {
    return c->bytes - (c->dtype == TSR_U8 ? TSR_CACHE_RANGE : 0);
}

static bool on_host(const tsr_binder *b, int cache) {
    return b->x->plan->cache_at[cache] == SIZE_MAX;
}

static tsr_status add_copy(tsr_binder *b, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    tsr_cuda_launch *l = tsr_bind_add(b);
    if (!l)
        return tsr_bind_no_memory();
    l->args.copy = (tsr_cuda_copy){to, from, bytes};
    return TSR_OK;
}

static tsr_cuda_launch *last(const tsr_binder *b) {
    tsr_cuda_step *s = &b->x->step[b->kind];
    return &s->launch[s->launches - 1];
}

/* ---------------------------------------------------------------- the range of u8 codes */

/* Where the conv that reads this buffer, from `op` on or back from it, has its gain and the range of the codes. */
static CUdeviceptr reader_of(
    const tsr_binder *b, const tsr_op *op, int way, int buffer, const tsr_conv_packing **packing) {
    for (; op >= b->p->op && op < b->p->op + b->p->ops; op += way)
        if (op->kind == TSR_OP_CONV && op->in.buf == buffer) {
            int weight = b->x->plan->weight_of[b->kind][op->kernel];
            *packing = &b->x->packing[weight];
            return b->x->weights + b->x->plan->weight[weight].at;
        }
    return 0; /* not reached: codes are read */
}

/* Codes of the old range become codes of the new one; NULL: no memory. */
static tsr_cuda_launch *requantise(tsr_binder *b, size_t codes, const tsr_range *range) {
    unsigned all = tsr_bind_blocks((int64_t)codes, 4096);
    tsr_cuda_launch *l = tsr_bind_pass(b, PASS_tsr_requantise, all < CODES_BLOCKS ? all : CODES_BLOCKS, 1, 0);
    if (l)
        l->args.requantise = (tsr_requantise_args){.n = (int64_t)codes, .state = range};
    return l;
}

tsr_status tsr_bind_range(tsr_binder *b, const tsr_op *op, tsr_norm_args *norm) {
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    const tsr_conv_packing *packing = NULL;
    CUdeviceptr reader = reader_of(b, op, 1, op->out.buf, &packing);
    tsr_cuda_launch *l = tsr_bind_pass(b, PASS_tsr_set_range, 1, 1, TSR_SET_RANGE_SHARED);
    if (!l)
        return tsr_bind_no_memory();
    norm->gain = tsr_bind_pointer(reader + packing->gain);
    norm->range = tsr_bind_pointer(reader + packing->range);
    l->args.set_range = (tsr_set_range_args){.sums = norm->sums,
        .gamma = norm->gamma,
        .beta = norm->beta,
        .gain = norm->gain,
        .state = tsr_bind_pointer(reader + packing->range),
        .frames = op->in.nt,
        .pixels = in->h * in->w,
        .c = in->c,
        .groups = TSR_GROUPS,
        .planes = norm->planes,
        .eps = norm->eps};
    if (op->cache < 0)
        return TSR_OK;
    size_t codes = tsr_bind_codes_bytes(&b->p->cache[op->cache]);
    if (on_host(b, op->cache)) {
        l->args.set_range.before = tsr_bind_pointer(b->x->away + b->x->plan->host_at[op->cache] + codes);
        return TSR_OK;
    }
    l->moves = MOVES_RANGE;
    l->from = b->x->plan->cache_at[op->cache] + codes;
    if (b->p->params.join_heads) /* they follow when they are loaded */
        return TSR_OK;
    l = requantise(b, codes, norm->range);
    if (!l)
        return tsr_bind_no_memory();
    l->moves = MOVES_CODES;
    l->to = b->x->plan->cache_at[op->cache];
    return TSR_OK;
}

/* The range that the conv before has read its codes by, to the cache's end. */
static tsr_status save_range(tsr_binder *b, const tsr_op *save) {
    const tsr_plan *plan = b->x->plan;
    const tsr_conv_packing *packing = NULL;
    size_t codes = tsr_bind_codes_bytes(&b->p->cache[save->cache]);
    CUdeviceptr range = reader_of(b, save, -1, save->in.buf, &packing);
    CUdeviceptr to = on_host(b, save->cache) ? b->x->away + plan->host_at[save->cache] + codes : 0;
    tsr_status status = add_copy(b, to, range + packing->range, sizeof(tsr_range));
    if (status == TSR_OK && !to) {
        last(b)->moves = MOVES_SAVE;
        last(b)->to = plan->cache_at[save->cache] + codes;
    }
    return status;
}

/* ---------------------------------------------------------------- loads and saves */

/* The newest frames, to the head of what the conv reads. */
tsr_status tsr_bind_load(tsr_binder *b, const tsr_op *op) {
    const tsr_cache *cache = &b->p->cache[op->cache];
    void *head = tsr_bind_frame(b, op->out.buf, op->out.t0);
    size_t frame = tsr_bind_frame_bytes(&b->p->buffer[op->out.buf]), bytes = (size_t)op->out.nt * frame;
    if (!on_host(b, op->cache)) {
        tsr_status status = add_copy(b, (CUdeviceptr)(uintptr_t)head, 0, bytes);
        if (status != TSR_OK)
            return status;
        last(b)->moves = MOVES_LOAD;
        last(b)->from = b->x->plan->cache_at[op->cache] + (size_t)(cache->frames - op->out.nt) * frame;
    }
    if (cache->dtype != TSR_U8)
        return TSR_OK;
    const tsr_conv_packing *packing = NULL;
    CUdeviceptr reader = reader_of(b, op, 1, op->out.buf, &packing);
    tsr_cuda_launch *l = requantise(b, bytes, tsr_bind_pointer(reader + packing->range));
    if (!l)
        return tsr_bind_no_memory();
    l->args.requantise.codes = head;
    return TSR_OK;
}

/* Frame j of the cache = frame in.t0 + j, or in.t0 of all; frames before the buffer's head are the cache's own last. In
 * this order a frame is read before it is overwritten. */
static tsr_status save_frames(tsr_binder *b, const tsr_op *op) {
    const tsr_cache *cache = &b->p->cache[op->cache];
    const tsr_buffer *in = &b->p->buffer[op->in.buf];
    size_t at = b->x->plan->cache_at[op->cache], frame = tsr_bind_codes_bytes(cache) / (size_t)cache->frames;
    for (int j = 0; j < cache->frames; j++) {
        int f = op->in.t0 + (op->replicate ? 0 : j);
        bool own = f < -in->head;
        tsr_status status = add_copy(b, 0, own ? 0 : (CUdeviceptr)(uintptr_t)tsr_bind_frame(b, op->in.buf, f), frame);
        if (status != TSR_OK)
            return status;
        tsr_cuda_launch *l = last(b);
        l->moves = own ? MOVES_SHIFT : MOVES_SAVE;
        l->to = at + (size_t)j * frame;
        l->from = own ? at + (size_t)(cache->frames + f) * frame : 0;
    }
    return TSR_OK;
}

tsr_status tsr_bind_save(tsr_binder *b, const tsr_op *op) {
    tsr_status status = on_host(b, op->cache) ? TSR_OK : save_frames(b, op);
    return status == TSR_OK && b->p->cache[op->cache].dtype == TSR_U8 ? save_range(b, op) : status;
}

/* ---------------------------------------------------------------- transfers */

void tsr_bind_await_nothing(int awaits[TSR_CUDA_CHAINS]) {
    for (int i = 0; i < TSR_CUDA_CHAINS; i++)
        awaits[i] = -1;
}

static int later(int a, int b) {
    return a > b ? a : b;
}

/* One in comes after the last one out of its cache, and after those whose memory it may take. One out need not look:
 * the op that made what it copies has waited for whatever came in before. */
static tsr_status begin_transfer(tsr_binder *b, const tsr_move *v) {
    tsr_move_span span = tsr_move_span_of(b->x->plan, b->kind, v->op);
    CUdeviceptr here = b->x->arena + span.arena, there = b->x->away + span.host;
    bool in = v->kind == TSR_MOVE_IN;
    int *saved = &b->saved[b->p->op[v->op].cache];
    for (int i = 0; i < span.times; i++) {
        tsr_status status =
            in ? add_copy(b, here, there, span.bytes) : add_copy(b, there + (size_t)i * span.bytes, here, span.bytes);
        if (status != TSR_OK)
            return status;
        last(b)->chain = in ? TSR_CUDA_IN : TSR_CUDA_OUT;
        if (in)
            last(b)->awaits[TSR_CUDA_OUT] = later(b->awaits[TSR_CUDA_OUT], *saved);
    }
    b->transfer[v->op] = b->x->step[b->kind].launches - 1;
    if (!in)
        *saved = b->transfer[v->op];
    return TSR_OK;
}

tsr_status tsr_bind_moves(tsr_binder *b) {
    for (; b->next_move < b->moves.n && b->moves.move[b->next_move].before <= b->op; b->next_move++) {
        const tsr_move *v = &b->moves.move[b->next_move];
        if (v->kind == TSR_MOVE_IN || v->kind == TSR_MOVE_OUT) {
            tsr_status status = begin_transfer(b, v);
            if (status != TSR_OK)
                return status;
        } else { /* those of a direction end in the order in which they began */
            int *awaits = &b->awaits[v->kind == TSR_MOVE_IN_DONE ? TSR_CUDA_IN : TSR_CUDA_OUT];
            *awaits = later(*awaits, b->transfer[v->op]);
        }
    }
    return TSR_OK; /* what is due before the next step's first op: steps wait for those before them */
}

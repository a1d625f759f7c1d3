/* A plan made ready to run on the device, and the running of a step: one graph a kind of step, built when it first
 * runs; afterwards only the nodes whose pointers moved are updated. */
#include "backend/cuda/device.h"

#include <stdlib.h>
#include <string.h>

/* Events whose waiters sleep: without the second flag each would keep a core busy. */
enum { SLEEPS = CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC };

/* ---------------------------------------------------------------- life */

/* Precisions that numerics() turned into another one. */
static void tell_precision(const tsr_plan *plan) {
    tsr_precision wanted = plan->params.precision, have = plan->numerics.precision;
    if (wanted != TSR_PRECISION_AUTO && wanted != have)
        tsr_log(TSR_LOG_WARN, "cuda: %s is not to be had on this GPU yet: %s instead", tsr_precision_name(wanted),
            tsr_precision_name(have));
}

static tsr_status take_memory(tsr_exec *x) {
    const tsr_plan *p = x->plan;
    size_t weights = tsr_align(p->weight_bytes, p->target.align);
    size_t arena = tsr_align(p->arena_bytes, p->target.align);
    size_t caches = p->cache_bytes * (size_t)p->cache_sets;
    tsr_status status;
    if (!x->packed.bytes)
        TSR_TRY(tsr_cuda_block_create(x->cuda, weights, false, "weights", &x->packed));
    TSR_TRY(tsr_cuda_block_create(x->cuda, arena + caches, false, "activations and caches", &x->memory));
    x->weights = x->packed.at;
    x->arena = x->memory.at;
    x->caches = x->arena + arena;
error:
    return status;
}

static tsr_status take_host_memory(tsr_exec *x) {
    tsr_status status;
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++) {
        const tsr_program *p = x->plan->program[s];
        if (!p)
            continue;
        size_t n = (size_t)p->in_frames * (size_t)p->in_h * (size_t)p->in_w * (size_t)p->in_c;
        size_t bytes = tsr_align(n * sizeof(float), 256);
        x->input_bytes = bytes > x->input_bytes ? bytes : x->input_bytes;
    }
    size_t flag = TSR_CUDA_IN_FLIGHT * x->input_bytes;
    void *host = NULL;
    status = tsr_cuda_pin(x->cuda, flag + sizeof *x->flag, &host, &x->host_at);
    x->host = host;
    if (status != TSR_OK)
        return status;
    x->flag = (volatile int32_t *)(x->host + flag);
    x->flag_at = x->host_at + flag;
    *x->flag = 0;
    return TSR_OK;
}

/* The block of caches on the host, and what their transfers need where no graph is. */
static tsr_status take_streams(tsr_exec *x) {
    char text[32];
    void *host = NULL;
    size_t bytes = x->plan->host_bytes;
    tsr_status status;
    if (!x->plan->host_at)
        return TSR_OK;
    status = tsr_cuda_pin(x->cuda, bytes, &host, &x->away);
    x->away_host = host;
    if (host)
        tsr_mem_count_host((int64_t)bytes);
    if (status != TSR_OK)
        TSR_TRY(tsr_fail_context(status, "%s for caches on the host", tsr_bytes_text(text, (int64_t)bytes)));
    for (tsr_cuda_chain c = TSR_CUDA_IN; c < TSR_CUDA_CHAINS; c++)
        TSR_TRY(
            tsr_cu_check(tsr_cu.p_cuStreamCreate(&x->copies[c], CU_STREAM_NON_BLOCKING), "making a stream for caches"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventCreate(&x->meet, CU_EVENT_DISABLE_TIMING), "making an event"));
error:
    return status;
}

static void give_streams_back(tsr_exec *x) {
    for (tsr_cuda_chain c = TSR_CUDA_IN; c < TSR_CUDA_CHAINS; c++)
        if (x->copies[c]) {
            tsr_cu.p_cuStreamSynchronize(x->copies[c]);
            tsr_cu.p_cuStreamDestroy(x->copies[c]);
        }
    if (x->meet)
        tsr_cu.p_cuEventDestroy(x->meet);
    if (x->away_host) {
        tsr_cuda_unpin(x->cuda, x->away_host);
        tsr_mem_count_host(-(int64_t)x->plan->host_bytes);
    }
}

/* Weights that lie in the block already are packed so: `there`, NULL where there are none. */
static tsr_status create(
    tsr_exec **out, tsr_cuda *c, const tsr_plan *plan, tsr_cuda_block packed, const tsr_conv_packing *there) {
    tsr_status status;
    tsr_exec *x = calloc(1, sizeof *x);
    if (!x) {
        tsr_cuda_block_destroy(&packed);
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    }
    x->cuda = c;
    x->plan = plan;
    x->packed = packed;
    pthread_mutex_init(&x->lock, NULL);
    TSR_TRY(tsr_cuda_enter(c));
    tell_precision(plan);
    x->packing = calloc((size_t)plan->weights + 1, sizeof *x->packing);
    if (!x->packing)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory"));
    TSR_TRY(take_memory(x));
    TSR_TRY(take_host_memory(x));
    TSR_TRY(take_streams(x));
    TSR_TRY(tsr_cuda_autotune(x));
    TSR_TRY(tsr_cuda_weights(x, there));
    for (int i = 0; i < TSR_CUDA_IN_FLIGHT; i++)
        TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventCreate(&x->ring[i].event, SLEEPS), "making an event"));
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        if (plan->program[s])
            TSR_TRY(tsr_cuda_bind_step(x, s));
    *out = x;
    return TSR_OK;
error:
    tsr_cuda_exec_destroy(&x);
    return status;
}

tsr_status tsr_cuda_exec_create(tsr_exec **out, tsr_cuda *c, const tsr_plan *plan) {
    return create(out, c, plan, (tsr_cuda_block){0}, NULL);
}

tsr_status tsr_cuda_exec_turn(tsr_exec **out, tsr_cuda *c, const tsr_plan *plan) {
    tsr_cuda_block packed = {0};
    tsr_conv_packing *there = NULL;
    if (tsr_plan_same_weights((*out)->plan, plan)) {
        packed = (*out)->packed;
        there = (*out)->packing;
        (*out)->packed = (tsr_cuda_block){0};
        (*out)->packing = NULL;
    }
    tsr_cuda_exec_destroy(out); /* its memory is the next one's */
    tsr_status status = create(out, c, plan, packed, there);
    free(there);
    return status;
}

void tsr_cuda_exec_destroy(tsr_exec **out) {
    tsr_exec *x = *out;
    if (!x)
        return;
    tsr_cu.p_cuCtxSetCurrent(x->cuda->context);
    tsr_cu.p_cuStreamSynchronize(x->cuda->stream);
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++) {
        if (x->step[s].exec)
            tsr_cu.p_cuGraphExecDestroy(x->step[s].exec);
        if (x->step[s].graph)
            tsr_cu.p_cuGraphDestroy(x->step[s].graph);
        free(x->step[s].launch);
    }
    for (int i = 0; i < TSR_CUDA_IN_FLIGHT; i++)
        if (x->ring[i].event)
            tsr_cu.p_cuEventDestroy(x->ring[i].event);
    give_streams_back(x);
    tsr_cuda_unpin(x->cuda, x->host);
    tsr_cuda_block_destroy(&x->memory);
    tsr_cuda_block_destroy(&x->packed);
    pthread_mutex_destroy(&x->lock);
    free(x->packing);
    free(x);
    *out = NULL;
}

/* ---------------------------------------------------------------- launches and nodes */

/* Points the launch at the places. */
static void aim(tsr_cuda_launch *l, const tsr_cuda_places *at) {
    switch (l->moves) {
    case MOVES_NOT:
        break;
    case MOVES_PAST:
        l->args.conv.past = (const void *)(uintptr_t)(at->caches + l->from);
        break;
    case MOVES_RANGE:
        l->args.set_range.before = (const tsr_range *)(uintptr_t)(at->caches + l->from);
        break;
    case MOVES_CODES:
        l->args.requantise.codes = (uint8_t *)(uintptr_t)(at->caches + l->to);
        break;
    case MOVES_INPUT:
        l->args.input.in = (const float *)(uintptr_t)(at->input + l->from);
        break;
    case MOVES_STORE:
        l->args.store.out = (void *)(uintptr_t)(at->slot + l->to);
        break;
    case MOVES_LOAD:
        l->args.copy.from = at->caches + l->from;
        break;
    case MOVES_SHIFT:
        l->args.copy.from = at->caches + l->from;
        l->args.copy.to = at->caches + l->to;
        break;
    case MOVES_SAVE:
        l->args.copy.to = at->caches + l->to;
        break;
    }
}

static bool moved(const tsr_cuda_launch *l, const tsr_cuda_places *a, const tsr_cuda_places *b) {
    switch (l->moves) {
    case MOVES_NOT:
        return false;
    case MOVES_INPUT:
        return a->input != b->input;
    case MOVES_STORE:
        return a->slot != b->slot;
    default:
        return a->caches != b->caches;
    }
}

/* param: [1], to live as long as the returned struct is used. */
static CUDA_KERNEL_NODE_PARAMS kernel_node(tsr_cuda_launch *l, void **param) {
    param[0] = &l->args;
    return (CUDA_KERNEL_NODE_PARAMS){.kern = l->kernel,
        .gridDimX = l->grid[0],
        .gridDimY = l->grid[1],
        .gridDimZ = l->grid[2],
        .blockDimX = TSR_CONV_THREADS,
        .blockDimY = 1,
        .blockDimZ = 1,
        .sharedMemBytes = l->shared,
        .kernelParams = param};
}

/* In the block of caches on the host. */
static bool is_away(const tsr_exec *x, CUdeviceptr p) {
    return x->away && p >= x->away && p - x->away < x->plan->host_bytes;
}

/* Says of each end which memory it is in: nothing is left for the driver to find out. */
static CUDA_MEMCPY3D copy_node(const tsr_exec *x, const tsr_cuda_launch *l) {
    const tsr_cuda_copy *c = &l->args.copy;
    CUDA_MEMCPY3D node = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
        .srcDevice = c->from,
        .dstMemoryType = CU_MEMORYTYPE_DEVICE,
        .dstDevice = c->to,
        .WidthInBytes = c->bytes,
        .Height = 1,
        .Depth = 1};
    if (is_away(x, c->from)) {
        node.srcMemoryType = CU_MEMORYTYPE_HOST;
        node.srcHost = x->away_host + (c->from - x->away);
    }
    if (is_away(x, c->to)) {
        node.dstMemoryType = CU_MEMORYTYPE_HOST;
        node.dstHost = x->away_host + (c->to - x->away);
    }
    return node;
}

static CUresult add_node(tsr_exec *x, CUgraph graph, tsr_cuda_launch *l, const CUgraphNode *after, size_t n) {
    void *param[1];
    if (!l->kernel) {
        CUDA_MEMCPY3D copy = copy_node(x, l);
        return tsr_cu.p_cuGraphAddMemcpyNode(&l->node, graph, after, n, &copy, x->cuda->context);
    }
    CUDA_KERNEL_NODE_PARAMS kernel = kernel_node(l, param);
    return tsr_cu.p_cuGraphAddKernelNode(&l->node, graph, after, n, &kernel);
}

static CUresult update_node(tsr_exec *x, CUgraphExec exec, tsr_cuda_launch *l) {
    void *param[1];
    if (!l->kernel) {
        CUDA_MEMCPY3D copy = copy_node(x, l);
        return tsr_cu.p_cuGraphExecMemcpyNodeSetParams(exec, l->node, &copy, x->cuda->context);
    }
    CUDA_KERNEL_NODE_PARAMS kernel = kernel_node(l, param);
    return tsr_cu.p_cuGraphExecKernelNodeSetParams(exec, l->node, &kernel);
}

/* What `waits` gets from now on comes after what `other` got so far. */
static CUresult wait_for(const tsr_exec *x, CUstream waits, CUstream other) {
    CUresult r = tsr_cu.p_cuEventRecord(x->meet, other);
    return r == CUDA_SUCCESS ? tsr_cu.p_cuStreamWaitEvent(waits, x->meet, 0) : r;
}

static CUstream stream_of(const tsr_exec *x, tsr_cuda_chain chain) {
    return chain == TSR_CUDA_OPS ? x->cuda->stream : x->copies[chain];
}

static CUresult run_plain(tsr_exec *x, tsr_cuda_launch *l) {
    CUstream stream = stream_of(x, l->chain);
    void *param[1] = {&l->args};
    for (tsr_cuda_chain c = 0; c < TSR_CUDA_CHAINS; c++) /* waits for transfers begun later as well: no harm here */
        if (c != l->chain && (c == TSR_CUDA_OPS || l->awaits[c] >= 0)) {
            CUresult r = wait_for(x, stream, stream_of(x, c));
            if (r != CUDA_SUCCESS)
                return r;
        }
    if (!l->kernel)
        return tsr_cu.p_cuMemcpyAsync(l->args.copy.to, l->args.copy.from, l->args.copy.bytes, stream);
    return tsr_cu.p_cuLaunchKernel((CUfunction)l->kernel, l->grid[0], l->grid[1], l->grid[2], TSR_CONV_THREADS, 1, 1,
        l->shared, stream, param, NULL);
}

/* A failure of this launch, with its op. */
static tsr_status check_launch(const tsr_exec *x, tsr_step step, const tsr_cuda_launch *l, CUresult r) {
    const tsr_program *p = x->plan->program[step];
    char text[160];
    return r == CUDA_SUCCESS ? TSR_OK : tsr_cu_check(r, tsr_op_text(text, p, &p->op[l->op]));
}

/* ---------------------------------------------------------------- running */

/* What a node comes after: the one before it in its chain; a transfer, the last op; and what it awaits. */
static tsr_status add_nodes(tsr_exec *x, tsr_step step, CUgraph graph) {
    tsr_cuda_step *s = &x->step[step];
    const tsr_cuda_launch *last[TSR_CUDA_CHAINS] = {0};
    for (int i = 0; i < s->launches; i++) {
        tsr_cuda_launch *l = &s->launch[i];
        CUgraphNode after[TSR_CUDA_CHAINS];
        size_t n = 0;
        for (tsr_cuda_chain c = 0; c < TSR_CUDA_CHAINS; c++) {
            const tsr_cuda_launch *before = c == TSR_CUDA_OPS || c == l->chain ? last[c]
                                            : l->awaits[c] >= 0                ? &s->launch[l->awaits[c]]
                                                                               : NULL;
            if (before)
                after[n++] = before->node;
        }
        tsr_status status = check_launch(x, step, l, add_node(x, graph, l, after, n));
        if (status != TSR_OK)
            return status;
        last[l->chain] = l;
    }
    return TSR_OK;
}

static tsr_status build_graph(tsr_exec *x, tsr_step step) {
    tsr_cuda_step *s = &x->step[step];
    tsr_status status;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuGraphCreate(&s->graph, 0), "making a graph"));
    TSR_TRY(add_nodes(x, step, s->graph));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuGraphInstantiate(&s->exec, s->graph, 0), "making a graph ready"));
    tsr_log(
        TSR_LOG_INFO, "[BLACKWELL_ENGINE] CUDA Graph Captured: %s step, %d nodes", tsr_step_name(step), s->launches);
    return TSR_OK;
error:
    if (s->graph)
        tsr_cu.p_cuGraphDestroy(s->graph);
    s->graph = NULL;
    return status;
}

static tsr_status run_graph(tsr_exec *x, tsr_step step, const tsr_cuda_places *places) {
    tsr_cuda_step *s = &x->step[step];
    tsr_status status = TSR_OK;
    bool built = s->exec != NULL;
    for (int i = 0; i < s->launches; i++) {
        tsr_cuda_launch *l = &s->launch[i];
        if (built && !moved(l, places, &s->places))
            continue;
        aim(l, places);
        if (built)
            TSR_TRY(check_launch(x, step, l, update_node(x, s->exec, l)));
    }
    s->places = *places;
    if (!built)
        TSR_TRY(build_graph(x, step));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuGraphLaunch(s->exec, x->cuda->stream), "launching a graph"));
    return TSR_OK;
error:
    s->places = (tsr_cuda_places){0}; /* nodes may point anywhere now: all are updated next time */
    return status;
}

/* Op by op; where somebody watches, with the time each took. */
static tsr_status run_launches(tsr_exec *x, tsr_step step, const tsr_cuda_places *places) {
    tsr_cuda_step *s = &x->step[step];
    const tsr_program *p = x->plan->program[step];
    const tsr_backend *b = &x->cuda->base;
    tsr_status status = TSR_OK;
    for (tsr_cuda_chain c = TSR_CUDA_IN; c < TSR_CUDA_CHAINS && x->away; c++) /* transfers of the step before */
        TSR_TRY(tsr_cu_check(wait_for(x, x->cuda->stream, x->copies[c]), "waiting for caches"));
    for (int op = 0, i = 0; op < p->ops; op++) {
        if (b->cancel && atomic_load(b->cancel))
            return tsr_fail(TSR_ERR_CANCELLED, "cancelled");
        double begin = tsr_now();
        for (; i < s->launches && s->launch[i].op == op; i++) {
            aim(&s->launch[i], places);
            TSR_TRY(check_launch(x, step, &s->launch[i], run_plain(x, &s->launch[i])));
        }
        if (!b->on_op)
            continue;
        TSR_TRY(tsr_cu_check(tsr_cu.p_cuStreamSynchronize(x->cuda->stream), "waiting for an op"));
        b->on_op(b->on_op_user, p, op, begin, tsr_now());
    }
error:
    return status;
}

static tsr_status submit(tsr_exec *x, const tsr_step_args *args) {
    const tsr_program *p = x->plan->program[args->step];
    size_t n = (size_t)p->in_frames * (size_t)p->in_h * (size_t)p->in_w * (size_t)p->in_c;
    size_t at = (size_t)x->turn * x->input_bytes;
    tsr_status status;
    if (x->ring[x->turn].value) /* the step whose place in the ring this one takes may still read its input */
        TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventSynchronize(x->ring[x->turn].event), "waiting for a step"));
    memcpy(x->host + at, args->input, n * sizeof(float));
    tsr_cuda_places places = {
        .caches = x->caches + (size_t)args->cache_set * x->plan->cache_bytes,
        .slot = args->slab->device + args->slot_at,
        .input = x->host_at + at,
    };
    TSR_TRY(tsr_cuda_await_progress(x->cuda, args->free_at));
    if (x->plain || x->cuda->base.on_op)
        TSR_TRY(run_launches(x, args->step, &places));
    else
        TSR_TRY(run_graph(x, args->step, &places));
    TSR_TRY(tsr_cuda_signal_lane(x->cuda, args->ready_value));
    pthread_mutex_lock(&x->lock);
    status = tsr_cu_check(tsr_cu.p_cuEventRecord(x->ring[x->turn].event, x->cuda->stream), "recording an event");
    if (status == TSR_OK) {
        x->ring[x->turn].value = args->ready_value;
        x->turn = (x->turn + 1) % TSR_CUDA_IN_FLIGHT;
    }
    pthread_mutex_unlock(&x->lock);
error:
    return status;
}

tsr_status tsr_cuda_exec_step(tsr_exec *x, const tsr_step_args *args) {
    const tsr_backend *b = &x->cuda->base;
    if (b->cancel && atomic_load(b->cancel))
        return tsr_fail(TSR_ERR_CANCELLED, "cancelled");
    if (!args->slab->device)
        return tsr_fail(TSR_ERR_ARGUMENT, "cuda: the slab is not one that this device writes");
    tsr_status status = tsr_cuda_enter(x->cuda);
    return status == TSR_OK ? submit(x, args) : status;
}

/* Numbers that left the type's range are told once. */
static void look_at_flag(tsr_exec *x) {
    int op = *x->flag;
    if (op && !atomic_exchange(&x->warned, true))
        tsr_log(TSR_LOG_WARN, "cuda: op %d gave infinite or undefined numbers in %s; use %s--device cpu", op - 1,
            tsr_precision_name(x->plan->numerics.precision),
            x->plan->numerics.precision == TSR_PRECISION_BF16 ? "" : "--precision bf16, or ");
}

tsr_status tsr_cuda_exec_wait(tsr_exec *x, uint64_t value) {
    CUevent event = NULL;
    tsr_status status;
    TSR_TRY(tsr_cuda_enter(x->cuda));
    pthread_mutex_lock(&x->lock);
    for (int i = 0; i < TSR_CUDA_IN_FLIGHT; i++)
        if (value && x->ring[i].value == value)
            event = x->ring[i].event;
    pthread_mutex_unlock(&x->lock);
    /* A value whose place another step took is reached: that step waited for it. One that is recorded anew in
     * between is a later point of the same stream. */
    if (event)
        TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventSynchronize(event), "waiting for a step"));
    look_at_flag(x);
error:
    return status;
}

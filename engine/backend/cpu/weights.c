/* The weight block of a plan that is made ready to run: kernels folded and packed, norms. */
#include "backend/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

/* Of the ops that use a kernel, the one with the most work: the kernel is packed to suit it. */
static const tsr_op *largest_user(const tsr_plan *plan, int weight, int *step) {
    const tsr_op *largest = NULL;
    double most = -1;
    for (int s = 0; s < TSR_STEP_COUNT; s++) {
        const tsr_program *p = plan->program[s];
        for (int i = 0; p && i < p->ops; i++) {
            const tsr_op *op = &p->op[i];
            if (op->kernel < 0 || plan->weight_of[s][op->kernel] != weight || tsr_op_flops(p, op) <= most)
                continue;
            most = tsr_op_flops(p, op);
            largest = op;
            *step = s;
        }
    }
    return largest;
}

/* The fastest tier that runs every op which uses the kernel: a kernel is packed for one tier. */
static const tsr_tier *tier_of_kernel(const tsr_plan *plan, int tiers, int weight) {
    for (int s = 0; s < TSR_STEP_COUNT; s++) {
        const tsr_program *p = plan->program[s];
        for (int i = 0; p && i < p->ops; i++) {
            const tsr_op *op = &p->op[i];
            while (op->kernel >= 0 && plan->weight_of[s][op->kernel] == weight && tiers > 1) {
                const tsr_op_impl *impl = &tsr_tier_at(tiers - 1)->op[TSR_OP_CONV];
                if (impl->run && (!impl->can || impl->can(p, op)))
                    break;
                tiers--;
            }
        }
    }
    return tsr_tier_at(tiers - 1);
}

/* The numbers a kernel's inputs are rounded to: their type, or that of which they are numbers. */
static tsr_dtype input_type(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *in = &p->buffer[op->in.buf];
    return in->dtype == TSR_F32 ? in->rounded : in->dtype;
}

float *tsr_exec_gain(const tsr_exec *x, int weight) {
    const tsr_plan_weight *w = &x->plan->weight[weight];
    return (float *)(x->weights + w->at + w->bytes - (size_t)w->kernel->cin * sizeof(float));
}

/* e4m3 codes of activations are eight times the number, which f32 inputs are not; and f32 tiers
 * know no scales. */
static void scale_filters(const tsr_kernel *k, const float *scale, float *weights) {
    size_t filter = tsr_kernel_weights(k) / (size_t)k->cout;
    for (size_t o = 0; o < (size_t)k->cout; o++)
        for (size_t i = 0; i < filter; i++)
            weights[o * filter + i] *= scale[o];
}

/* Whether it lies there as it would be packed now, from the plan before. */
static bool lies_there(const tsr_exec *x, int tiers, int weight, const tsr_program *p, const tsr_op *op) {
    const tsr_tier *tier = x->packed_by[weight];
    return tier == tier_of_kernel(x->plan, tiers, weight) &&
           (!tier->packed_for || tier->packed_for(&x->packed[weight], p, op));
}

static void unpack(tsr_exec *x, int weight) {
    if (x->packed[weight].layout)
        x->packed_by[weight]->unpack(&x->packed[weight]);
}

/* Room for biases, and a scale for each. */
static tsr_status pack_kernel(tsr_exec *x, int tiers, int weight, bool again, float *weights, float *biases) {
    const tsr_plan_weight *w = &x->plan->weight[weight];
    int step = 0;
    const tsr_op *op = largest_user(x->plan, weight, &step);
    const tsr_program *p = x->plan->program[step];
    x->packed[weight].kernel = w->kernel;
    if (again && lies_there(x, tiers, weight, p, op))
        return TSR_OK;
    unpack(x, weight);
    x->packed_by[weight] = tier_of_kernel(x->plan, tiers, weight);
    tsr_dtype type = input_type(p, op);
    float *scale = biases + tsr_kernel_biases(w->kernel), *gain = type == TSR_U8 ? tsr_exec_gain(x, weight) : NULL;
    x->packed[weight] = (tsr_packed){.kernel = w->kernel, .scale = scale, .at = x->weights + w->at};
    tsr_status status = tsr_kernel_fold(x->plan->half, w->kernel, tsr_tier_gemm(tiers), weights, biases);
    if (status == TSR_OK)
        status = tsr_quantise_kernel(x->plan->half, w->kernel, type, weights, biases, scale, gain);
    if (status == TSR_OK && type == TSR_E4M3)
        scale_filters(w->kernel, scale, weights);
    if (status == TSR_OK)
        status = x->packed_by[weight]->pack(&x->packed[weight], p, op, weights, biases);
    return status;
}

static tsr_status pack_kernels(tsr_exec *x, int tiers, bool again) {
    const tsr_plan *plan = x->plan;
    size_t weights = 0, biases = 0;
    for (int i = 0; i < plan->weights; i++) {
        size_t w = tsr_kernel_weights(plan->weight[i].kernel), b = tsr_kernel_biases(plan->weight[i].kernel);
        weights = w > weights ? w : weights;
        biases = b > biases ? b : biases;
    }
    /* Not counted: gone again before the arena's pages are first touched. */
    float *folded = malloc((weights + 2 * biases) * sizeof *folded);
    if (!folded)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for folding weights");
    tsr_status status = TSR_OK;
    for (int i = 0; i < plan->weights && status == TSR_OK; i++)
        status = pack_kernel(x, tiers, i, again, folded, folded + weights);
    free(folded);
    return status;
}

static void read_norms(tsr_exec *x) {
    const tsr_half *half = x->plan->half;
    for (int i = 0; i < half->layers; i++) {
        const tsr_layer *l = &half->layer[i];
        if (x->plan->norm_at[i] == SIZE_MAX)
            continue;
        float *gamma = (float *)(x->weights + x->plan->norm_at[i]);
        tsr_tensor_read(l->weight[0], 0, (size_t)l->cout, gamma);
        tsr_tensor_read(l->bias[0], 0, (size_t)l->cout, gamma + l->cout);
    }
}

/* What the weights are rounded to, too. */
static tsr_dtype type_of_kernel(const tsr_plan *plan, int weight) {
    int step = 0;
    const tsr_op *op = largest_user(plan, weight, &step);
    return input_type(plan->program[step], op);
}

bool tsr_exec_same_weights(const tsr_plan *a, const tsr_plan *b) {
    if (!tsr_plan_same_weights(a, b))
        return false;
    for (int i = 0; i < a->weights; i++)
        if (type_of_kernel(a, i) != type_of_kernel(b, i))
            return false;
    return true;
}

tsr_status tsr_exec_pack(tsr_exec *x, int tiers, bool again) {
    tsr_status status = pack_kernels(x, tiers, again);
    if (status == TSR_OK && !again)
        read_norms(x);
    return status;
}

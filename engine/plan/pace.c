#include "plan/pace.h"

/* For ranking where a device's rates are not known; nothing derived from them is shown. */
#define NOMINAL_FLOPS 1e12
#define NOMINAL_BANDWIDTH 5e10
#define NOMINAL_LINK 1e10
#define OP_START 5e-6 /* seconds to start an op: what keeps slices from being free */

static double flops_rate(const tsr_target *t, tsr_dtype in) {
    size_t size = tsr_dtype_size(in);
    double rate = size == 1 && t->flops_8 > 0 ? t->flops_8 : size <= 2 && t->flops_16 > 0 ? t->flops_16 : t->flops_f32;
    return rate > 0 ? rate : NOMINAL_FLOPS;
}

/* Rows and caches of bands go over the link. */
static bool moves(const tsr_program *p, const tsr_op *op) {
    return (op->kind == TSR_OP_PAGE_IN && p->buffer[op->in.buf].paged) || op->kind == TSR_OP_PAGE_OUT ||
           (op->section >= 0 && (op->kind == TSR_OP_CACHE_LOAD || op->kind == TSR_OP_CACHE_SAVE));
}

double tsr_op_seconds(const tsr_target *t, const tsr_program *p, const tsr_op *op) {
    if (moves(p, op))
        return OP_START + tsr_link_seconds(t, tsr_op_bytes(p, op) / 2); /* counted where they come from and go to */
    double bandwidth = t->bandwidth > 0 ? t->bandwidth : NOMINAL_BANDWIDTH;
    double flops = tsr_op_flops(p, op), traffic = tsr_op_bytes(p, op) / bandwidth;
    double compute = flops > 0 ? flops / flops_rate(t, p->buffer[op->in.buf].dtype) : 0;
    return OP_START + (compute > traffic ? compute : traffic);
}

double tsr_program_seconds(const tsr_target *t, const tsr_program *p) {
    double seconds = 0;
    for (int i = 0; i < p->ops; i++)
        seconds += tsr_op_runs(p, &p->op[i]) * tsr_op_seconds(t, p, &p->op[i]);
    return seconds;
}

double tsr_link_seconds(const tsr_target *t, double bytes) {
    double rate = t->link_bandwidth > 0                   ? t->link_bandwidth
                  : t->host_is_device && t->bandwidth > 0 ? t->bandwidth / 2 /* read and write */
                                                          : NOMINAL_LINK;
    return bytes / rate;
}

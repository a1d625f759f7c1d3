/* What the ops of a step program cost, and what they are called. */
#include "model/program.h"

#include <stdio.h>
#include <string.h>

const char *tsr_step_name(tsr_step s) {
    static const char *const name[] = {"first", "second", "later"};
    return (unsigned)s < TSR_STEP_COUNT ? name[s] : "?";
}

const char *tsr_op_kind_name(tsr_op_kind k) {
    static const char *const name[] = {
        "input", "conv", "stats", "norm", "attention", "quantise", "load", "save", "store", "page in", "page out"};
    return (unsigned)k < TSR_OP_KINDS ? name[k] : "?";
}

double tsr_op_flops(const tsr_program *p, const tsr_op *op) {
    if (op->kind == TSR_OP_CONV) {
        const tsr_kernel *k = &p->kernel[op->kernel]; /* of four phases each makes a quarter of the pixels */
        double outputs = (double)op->out.nt * op->out.ny * p->buffer[op->out.buf].w;
        return 2.0 * k->cin * k->cout * k->kt * k->kh * k->kw * outputs;
    }
    if (op->kind == TSR_OP_ATTENTION) {
        const tsr_buffer *b = &p->buffer[op->out.buf];
        double pixels = (double)b->h * b->w;
        return 4.0 * b->c * pixels * pixels * op->out.nt; /* q k^T and its product with v */
    }
    return 0;
}

double tsr_program_flops(const tsr_program *p) {
    double sum = 0;
    for (int i = 0; i < p->ops; i++)
        sum += tsr_op_runs(p, &p->op[i]) * tsr_op_flops(p, &p->op[i]);
    return sum;
}

static double view_bytes(const tsr_program *p, tsr_view v, int frames) {
    if (v.buf < 0)
        return 0;
    const tsr_buffer *b = &p->buffer[v.buf];
    return (double)frames * v.ny * b->w * b->c * (double)tsr_dtype_size(b->dtype);
}

double tsr_op_bytes(const tsr_program *p, const tsr_op *op) {
    double out = view_bytes(p, op->out, op->out.nt);
    switch (op->kind) {
    case TSR_OP_CONV: {
        const tsr_kernel *k = &p->kernel[op->kernel];
        double weights = (double)tsr_kernel_weights(k) * (double)tsr_dtype_size(p->buffer[op->in.buf].dtype);
        double in = view_bytes(p, op->in, (op->in.nt - 1) * k->st + k->kt);
        return in + weights + out * (op->accumulate ? 2 : 1);
    }
    case TSR_OP_INPUT:
        return out * (1 + 4.0 / (double)tsr_dtype_size(p->buffer[op->out.buf].dtype));
    case TSR_OP_STORE: {
        const tsr_buffer *b = &p->buffer[op->in.buf];
        double slot = (double)tsr_dtype_size(p->params.numerics.slot) / (double)tsr_dtype_size(b->dtype);
        return view_bytes(p, op->in, op->in.nt) * (1 + slot);
    }
    case TSR_OP_CACHE_LOAD:
        return 2 * out;
    case TSR_OP_CACHE_SAVE:
        return (op->section < 0 ? (double)p->cache[op->cache].bytes
                                : view_bytes(p, op->in, p->cache[op->cache].frames)) +
               view_bytes(p, op->in, op->in.nt);
    default:
        return view_bytes(p, op->in, op->in.nt) + out;
    }
}

const char *tsr_op_text(char buf[160], const tsr_program *p, const tsr_op *op) {
    const char *name = op->layer >= 0 ? p->half->layer[op->layer].name : "";
    const char *dot = strchr(name, '.'); /* without "decoder." */
    /* What an op makes says how large it is, but for statistics. */
    const tsr_view *v = op->out.buf >= 0 && op->kind != TSR_OP_STATS ? &op->out : &op->in;
    const tsr_buffer *b = &p->buffer[v->buf];
    char what[64] = "";
    if (op->kind == TSR_OP_CONV) {
        const tsr_kernel *k = &p->kernel[op->kernel];
        const char *fold = tsr_fold_name(k->fold);
        snprintf(
            what, sizeof what, "%s%s %dx%dx%d %d->%d", *fold ? " " : "", fold, k->kt, k->kh, k->kw, k->cin, k->cout);
    } else {
        snprintf(what, sizeof what, " %d", b->c);
    }
    snprintf(buf, 160, "%s%s%s%s @ %dx%dx%d", dot ? dot + 1 : name, *name ? " " : "", tsr_op_kind_name(op->kind), what,
        v->nt, b->h, b->w);
    return buf;
}

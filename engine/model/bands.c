/* Turns a program of whole frames into one whose widest levels run in bands: groups its ops into sections, and gives
 * each section bands of the buffers that it touches. */
#include "model/bands.h"

#include <stdlib.h>
#include <string.h>

typedef struct cutter {
    const tsr_program *from; /* of whole frames */
    tsr_program *to;         /* with ops, buffers and sections of its own */
    int *group;              /* [ops of from]: what runs together, in order */
    bool *banded;            /* [groups], at most as many as ops: runs in bands */
    int *whole_of;           /* [buffers of from]: its place in `to`, -1: none yet */
    /* of the section in hand, [buffers of from] */
    int *band_of;              /* its band in `to`, -1: none */
    bool *halo, *there, *made; /* read by a conv that reaches across rows; its rows are in the band; written here */
} cutter;

/* ---------------------------------------------------------------- which ops run together */

/* Of a picture-shaped buffer; -1 of statistics. */
static int level_of(const tsr_program *p, int buf) {
    const tsr_buffer *b = &p->buffer[buf];
    int level = 0;
    while (p->params.h << level < b->h)
        level++;
    return b->dtype == TSR_F64 ? -1 : level;
}

static bool in_bands(const tsr_program *p, const tsr_op *op) {
    bool writes = op->kind == TSR_OP_CONV || op->kind == TSR_OP_CACHE_LOAD || op->kind == TSR_OP_INPUT;
    return level_of(p, writes ? op->out.buf : op->in.buf) >= p->params.page_level;
}

/* Whether output rows of the conv need other input rows than their own. */
static bool reaches(const tsr_program *p, const tsr_op *op) {
    return p->kernel[op->kernel].kh > 1;
}

/* Whether op i cannot run in the section that wrote what it reads: it wants a frame's statistics, or rows beside. A
 * cache is loaded with the conv that reads it. */
static bool parts(const tsr_program *p, int i, const int *written_in, const bool *by_conv, int group) {
    const tsr_op *op = &p->op[i];
    while (op->kind == TSR_OP_CACHE_LOAD && (p->op[i].kind != TSR_OP_CONV || p->op[i].in.buf != op->out.buf))
        i++; /* what is loaded is read */
    if (op->kind == TSR_OP_CACHE_LOAD)
        op = &p->op[i];
    bool pointwise = op->kind == TSR_OP_STORE || op->kind == TSR_OP_CACHE_SAVE;
    return !pointwise && written_in[op->in.buf] == group && by_conv[op->in.buf];
}

/* Fills group[] and banded[]; statistics run with what made the frames. */
static tsr_status group_ops(cutter *c) {
    const tsr_program *p = c->from;
    int *written_in = malloc((size_t)p->buffers * sizeof *written_in), groups = 0, open = -1;
    bool *by_conv = calloc((size_t)p->buffers, sizeof *by_conv);
    for (int i = 0; i < p->ops && written_in && by_conv; i++) {
        const tsr_op *op = &p->op[i];
        bool banded = in_bands(p, op);
        if (banded && op->kind == TSR_OP_STATS) {
            c->group[i] = written_in[op->in.buf];
            continue;
        }
        if (!banded || open < 0 || parts(p, i, written_in, by_conv, open)) {
            c->banded[groups] = banded;
            open = groups++;
        }
        c->group[i] = open;
        if (!banded)
            open = -1;
        if (op->out.buf >= 0 && op->kind != TSR_OP_CACHE_LOAD) {
            written_in[op->out.buf] = c->group[i];
            by_conv[op->out.buf] = op->kind == TSR_OP_CONV;
        }
    }
    bool made = written_in && by_conv;
    free(written_in);
    free(by_conv);
    return made ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "out of memory for a step program");
}

/* ---------------------------------------------------------------- buffers */

/* Room for one more: what a section adds is bounded by what it touches, so arrays are made once, large enough. */
static tsr_status allocate(cutter *c) {
    const tsr_program *p = c->from;
    size_t ops = (size_t)p->ops, buffers = (size_t)p->buffers;
    c->to->op = malloc(4 * ops * sizeof *c->to->op); /* an op, and rows in and out for each of its two buffers */
    c->to->buffer = malloc((buffers + 2 * ops) * sizeof *c->to->buffer);
    c->to->section = malloc(ops * sizeof *c->to->section);
    c->group = malloc(ops * sizeof *c->group);
    c->banded = calloc(ops, sizeof *c->banded);
    c->whole_of = malloc(2 * buffers * sizeof *c->whole_of);
    c->halo = calloc(3 * buffers, sizeof *c->halo);
    if (!c->to->op || !c->to->buffer || !c->to->section || !c->group || !c->banded || !c->whole_of || !c->halo)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for a step program");
    c->band_of = c->whole_of + buffers;
    c->there = c->halo + buffers;
    c->made = c->there + buffers;
    for (size_t i = 0; i < buffers; i++)
        c->whole_of[i] = -1;
    return TSR_OK;
}

static int add_buffer(cutter *c, tsr_buffer b) {
    b.bytes = (size_t)(b.head + b.frames) * (size_t)b.h * (size_t)b.w * (size_t)b.c * tsr_dtype_size(b.dtype);
    c->to->buffer[c->to->buffers] = b;
    return c->to->buffers++;
}

static int whole(cutter *c, int buf) {
    if (buf >= 0 && c->whole_of[buf] < 0) {
        tsr_buffer b = c->from->buffer[buf];
        b.paged = level_of(c->from, buf) >= c->from->params.page_level;
        b.head = b.paged ? 0 : b.head; /* what is remembered comes from the cache into each band */
        c->whole_of[buf] = add_buffer(c, b);
    }
    return buf < 0 ? -1 : c->whole_of[buf];
}

/* The section's band of a picture-shaped buffer. */
static int band(cutter *c, int buf) {
    if (c->band_of[buf] < 0) {
        tsr_buffer b = c->from->buffer[buf];
        b.whole = b.h;
        b.halo = c->halo[buf];
        b.h = (c->from->params.band << level_of(c->from, buf)) + 2 * b.halo;
        c->band_of[buf] = add_buffer(c, b);
    }
    return c->band_of[buf];
}

/* Which bands need their neighbours' rows: what a conv reaches across, and what that is made of row by row. */
static void find_halos(cutter *c, int group) {
    const tsr_program *p = c->from;
    memset(c->halo, 0, (size_t)p->buffers * sizeof *c->halo);
    for (int i = p->ops - 1; i >= 0; i--) {
        const tsr_op *op = &p->op[i];
        if (c->group[i] == group && op->kind == TSR_OP_CONV)
            c->halo[op->in.buf] |= reaches(p, op);
        if (c->group[i] == group && (op->kind == TSR_OP_NORM || op->kind == TSR_OP_QUANTISE))
            c->halo[op->in.buf] |= c->halo[op->out.buf];
    }
    for (int i = 0; i < p->ops; i++) { /* convs that do not reach make all rows that they are given */
        const tsr_op *op = &p->op[i];
        if (c->group[i] == group && op->kind == TSR_OP_CONV && !reaches(p, op))
            c->halo[op->out.buf] |= c->halo[op->in.buf];
    }
}

/* ---------------------------------------------------------------- ops */

static tsr_op *add_op(cutter *c, tsr_op op) {
    c->to->op[c->to->ops] = op;
    return &c->to->op[c->to->ops++];
}

static tsr_op page_op(tsr_op_kind kind, tsr_view in, tsr_view out, int section) {
    return (tsr_op){.kind = kind,
        .layer = -1,
        .kernel = -1,
        .cache = -1,
        .in = in,
        .out = out,
        .stats = -1,
        .out_dt = 1,
        .section = section};
}

/* All rows of a band, or those that are its own. */
static tsr_view rows(const cutter *c, int buf, tsr_view v, bool own) {
    const tsr_buffer *b = &c->to->buffer[buf];
    return (tsr_view){buf, v.t0, v.nt, own ? b->halo : 0, own ? b->h - 2 * b->halo : b->h};
}

/* Brings a buffer's rows from where it lies whole, unless the section has them. What is remembered of paged frames is
 * loaded from the cache. */
static void page_in(cutter *c, int buf) {
    if (c->there[buf])
        return;
    int from = whole(c, buf), to = band(c, buf), head = c->to->buffer[from].head;
    tsr_view v = {.t0 = -head, .nt = head + c->to->buffer[from].frames}, out = rows(c, to, v, false), in = out;
    in.buf = from;
    in.y0 = -c->to->buffer[to].halo;
    add_op(c, page_op(TSR_OP_PAGE_IN, in, out, c->to->sections));
    c->there[buf] = true;
}

static void page_out(cutter *c, int buf) {
    int from = band(c, buf), to = whole(c, buf);
    tsr_view in = rows(c, from, (tsr_view){.nt = c->to->buffer[to].frames}, true), out = in;
    out.buf = to;
    out.y0 = 0;
    add_op(c, page_op(TSR_OP_PAGE_OUT, in, out, c->to->sections));
}

static bool used_after(const cutter *c, int buf, int group) {
    for (int i = 0; i < c->from->ops; i++)
        if (c->group[i] > group && (c->from->op[i].in.buf == buf || c->from->op[i].out.buf == buf))
            return true;
    return false;
}

static void add_banded(cutter *c, tsr_op op) {
    int in = op.in.buf, out = op.out.buf;
    if (in >= 0)
        page_in(c, in);
    if (op.accumulate)
        page_in(c, out);
    bool takes_own = op.kind == TSR_OP_STATS || op.kind == TSR_OP_STORE || op.kind == TSR_OP_CACHE_SAVE;
    bool gives_own = op.kind == TSR_OP_CONV && reaches(c->from, &op);
    if (in >= 0)
        op.in = rows(c, band(c, in), op.in, takes_own);
    if (op.kind == TSR_OP_STATS)
        op.out.buf = whole(c, out);
    else if (out >= 0)
        op.out = rows(c, band(c, out), op.out, gives_own);
    if (op.kind == TSR_OP_CONV)
        op.in.y0 = c->to->buffer[op.in.buf].halo - c->to->buffer[op.out.buf].halo;
    op.stats = whole(c, op.stats);
    op.section = c->to->sections;
    add_op(c, op);
    if (op.kind != TSR_OP_CACHE_LOAD && op.kind != TSR_OP_STATS && out >= 0)
        c->there[out] = c->made[out] = true;
}

static void add_section(cutter *c, int group) {
    const tsr_program *p = c->from;
    int first = c->to->ops;
    find_halos(c, group);
    for (int i = 0; i < p->buffers; i++)
        c->band_of[i] = -1;
    memset(c->there, 0, 2 * (size_t)p->buffers * sizeof *c->there); /* and made */
    for (int i = 0; i < p->ops; i++)
        if (c->group[i] == group)
            add_banded(c, p->op[i]);
    for (int i = 0; i < p->buffers; i++)
        if (c->made[i] && used_after(c, i, group))
            page_out(c, i);
    c->to->section[c->to->sections++] = (tsr_section){first, c->to->ops};
}

static void add_whole(cutter *c, tsr_op op) {
    op.in.buf = whole(c, op.in.buf);
    op.out.buf = whole(c, op.out.buf);
    op.stats = whole(c, op.stats);
    add_op(c, op);
}

/* ---------------------------------------------------------------- the whole */

static void cut(cutter *c) {
    const tsr_program *p = c->from;
    for (int group = 0, i = 0; i < p->ops; group++) {
        if (c->banded[group])
            add_section(c, group);
        for (int j = 0; j < p->ops; j++) {
            i += c->group[j] == group;
            if (c->group[j] == group && !c->banded[group])
                add_whole(c, p->op[j]);
        }
    }
}

tsr_status tsr_program_in_bands(tsr_program *p) {
    tsr_program from = *p;
    cutter c = {.from = &from, .to = p};
    p->op = NULL;
    p->buffer = NULL;
    p->ops = p->buffers = 0;
    tsr_status status;
    TSR_TRY(allocate(&c));
    TSR_TRY(group_ops(&c));
    cut(&c);
    p->bands = (from.params.h + from.params.band - 1) / from.params.band;
    for (int i = 0; i < p->caches; i++)
        p->cache[i].paged = p->cache[i].h >> from.params.page_level >= from.params.h;
error:
    free(c.group);
    free(c.banded);
    free(c.whole_of);
    free(c.halo);
    free(from.op);
    free(from.buffer);
    return status;
}

/* Unrolls a half of the VAE into the flat list of ops of one step. */
#include "model/bands.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEVELS = TSR_MAX_LEVELS + 1,
    MOST_SIDE = 1 << 19, /* pixels; with channels and frames as bounded, sizes in bytes stay below 2^63 */
};

/* Frames of the residual stream (or of another picture-shaped buffer) at one level. */
typedef struct stream {
    int buf, t0, nt; /* frames [t0, t0 + nt) of buffer buf, [nt][h][w][c] */
    int c, level;
    int at;    /* number of the first of them within the step, counted at this level */
    bool last; /* no more frames follow in this step */
} stream;

typedef struct maker {
    tsr_program *p;
    const tsr_half *half;
    tsr_program_params params;
    int frames[LEVELS]; /* of a step, by level */
    int *cache_of;      /* [layers], -1: none */
    int *open, *filled; /* [blocks]: a stream buffer that still waits for frames (encoder), and how
                           many it has */
    bool failed;        /* an allocation failed; ops go to `spare` from then on */
    tsr_op spare;
} maker;

static void walk(maker *m, int block, stream s);

/* ---------------------------------------------------------------- parts of the program */

/* Room for one more element: arrays grow at powers of two. */
static bool grow(maker *m, void **array, int count, size_t size) {
    if (m->failed)
        return false;
    if (count & (count - 1))
        return true;
    void *grown = realloc(*array, (count ? 2 * (size_t)count : 1) * size);
    m->failed = !grown;
    if (grown)
        *array = grown;
    return grown;
}

static int height_at(const maker *m, int level) {
    return m->params.encode ? m->params.h >> (m->half->levels - 1 - level) : m->params.h << level;
}

static int width_at(const maker *m, int level) {
    return m->params.encode ? m->params.w >> (m->half->levels - 1 - level) : m->params.w << level;
}

static int new_buffer(maker *m, const char *name, tsr_dtype dtype, int head, int frames, int h, int w, int c) {
    tsr_program *p = m->p;
    if (!grow(m, (void **)&p->buffer, p->buffers, sizeof *p->buffer))
        return 0;
    size_t bytes = (size_t)(head + frames) * (size_t)h * (size_t)w * (size_t)c * tsr_dtype_size(dtype);
    p->buffer[p->buffers] = (tsr_buffer){
        name, dtype, head, frames, h, w, c, .quant = -1, .rounded = TSR_F32, .first_op = -1, .bytes = bytes};
    return p->buffers++;
}

static tsr_view view_of(const maker *m, int buf, int t0, int nt) {
    return (tsr_view){.buf = buf, .t0 = t0, .nt = nt, .ny = m->failed || buf < 0 ? 0 : m->p->buffer[buf].h};
}

static tsr_op *new_op(maker *m, tsr_op_kind kind, int layer, tsr_view in, tsr_view out) {
    tsr_program *p = m->p;
    tsr_op *op = grow(m, (void **)&p->op, p->ops, sizeof *p->op) ? &p->op[p->ops++] : &m->spare;
    *op = (tsr_op){.kind = kind,
        .layer = layer,
        .kernel = -1,
        .cache = -1,
        .in = in,
        .out = out,
        .stats = -1,
        .out_dt = 1,
        .section = -1};
    return op;
}

/* Of a conv from buffer `in` to `out`, whose numbers may be times a power of two. */
static int kernel_of(maker *m, int layer, tsr_fold fold, int in, int out) {
    tsr_program *p = m->p;
    for (int i = 0; i < p->kernels; i++)
        if (p->kernel[i].layer == layer && p->kernel[i].fold == fold)
            return i;
    if (!grow(m, (void **)&p->kernel, p->kernels, sizeof *p->kernel))
        return 0;
    tsr_kernel_describe(&p->kernel[p->kernels], m->half, layer, fold);
    p->kernel[p->kernels].cin = p->buffer[in].c;
    p->kernel[p->kernels].weight_shift = p->buffer[out].shift - p->buffer[in].shift;
    p->kernel[p->kernels].bias_shift = p->buffer[out].shift;
    return p->kernels++;
}

/* Whether a conv reads the residual stream as it is: no norm in between. */
static bool reads_stream(const tsr_layer *l) {
    return l->kind == TSR_LAYER_UPSAMPLE || (l->kind == TSR_LAYER_CONV && (l->sy == 2 || l->kh == 1));
}

static tsr_dtype input_type(const maker *m, int layer) {
    const tsr_numerics *n = &m->params.numerics;
    if (n->shift && reads_stream(&m->half->layer[layer]))
        return n->stream;
    return n->eight && n->eight[layer] ? n->eight_type : n->act;
}

/* Channels of what it reads: of u8 codes, as often as there are planes of them. */
static int input_channels(const maker *m, int layer) {
    const tsr_numerics *n = &m->params.numerics;
    bool codes = n->eight && n->eight[layer] && n->eight_type == TSR_U8;
    return m->half->layer[layer].cin * (codes ? n->eight[layer] : 1);
}

/* e4m3 codes of what a norm gives: a constant scale (docs/precision.md). The range of u8 codes
 * follows the data. */
static int new_quant(maker *m) {
    tsr_program *p = m->p;
    if (!grow(m, (void **)&p->quant, p->quants, sizeof *p->quant))
        return -1;
    p->quant[p->quants] = (tsr_quant){.scale = m->params.numerics.eight_type == TSR_E4M3 ? 1 / 8.0f : 0};
    return p->quants++;
}

/* ---------------------------------------------------------------- memory between steps */

/* Frames in front of what this layer reads that have to be there physically. */
static int head_of(const maker *m, int layer) {
    bool remembered = m->params.step != TSR_STEP_FIRST && m->params.join_heads;
    return remembered ? tsr_layer_remembers(&m->half->layer[layer]) : 0;
}

static void load(maker *m, int layer, int buf) {
    int head = head_of(m, layer);
    if (head)
        new_op(m, TSR_OP_CACHE_LOAD, layer, view_of(m, -1, 0, 0), view_of(m, buf, -head, head))->cache =
            m->cache_of[layer];
}

/* in: all frames of this call. */
static void save(maker *m, int layer, stream in) {
    int keeps = tsr_layer_remembers(&m->half->layer[layer]);
    if (!keeps || (in.last && !m->params.keep))
        return;
    bool replicate = m->params.step == TSR_STEP_FIRST;
    tsr_view kept = replicate ? view_of(m, in.buf, in.t0, 1) : view_of(m, in.buf, in.t0 + in.nt - keeps, keeps);
    tsr_op *op = new_op(m, TSR_OP_CACHE_SAVE, layer, kept, view_of(m, -1, 0, 0));
    op->cache = m->cache_of[layer];
    op->replicate = replicate;
}

/* The causal conv of `layer` over frames first .. first + n of `in`, to frames out.t0, out.t0 +
 * out_dt, ... */
static tsr_op *conv_op(maker *m, int layer, tsr_fold fold, stream in, int last_tap, int n, tsr_view out) {
    bool remembers = tsr_layer_remembers(&m->half->layer[layer]) && m->params.step != TSR_STEP_FIRST;
    tsr_op *op = new_op(m, TSR_OP_CONV, layer, view_of(m, in.buf, last_tap, n), out);
    op->kernel = kernel_of(m, layer, fold, in.buf, out.buf);
    op->cache = remembers && !m->params.join_heads ? m->cache_of[layer] : -1;
    return op;
}

/* A whole causal conv with its memory. */
static void conv(maker *m, int layer, stream in, stream out, bool accumulate) {
    const tsr_layer *l = &m->half->layer[layer];
    bool flat = m->params.step == TSR_STEP_FIRST && l->kt > 1;
    int st = flat ? 1 : l->st;
    load(m, layer, in.buf);
    tsr_view to = view_of(m, out.buf, out.t0, out.nt);
    conv_op(m, layer, flat ? TSR_FOLD_TIME : TSR_FOLD_NONE, in, in.t0 + st - 1, in.nt / st, to)->accumulate =
        accumulate;
    save(m, layer, in);
}

/* ---------------------------------------------------------------- buffers shaped like the stream
 */

/* A buffer for frames like those of s. */
static stream like(maker *m, const char *name, tsr_dtype dtype, int head, stream s, int c) {
    s.buf = new_buffer(m, name, dtype, head, s.nt, height_at(m, s.level), width_at(m, s.level), c);
    if (!m->failed)
        m->p->buffer[s.buf].rounded = m->params.numerics.round;
    s.t0 = 0;
    s.c = c;
    return s;
}

/* A buffer of the stream's type, for frames like those of s. */
static stream more_stream(maker *m, const char *name, int head, stream s, int c) {
    const tsr_numerics *n = &m->params.numerics;
    s = like(m, name, n->stream, head, s, c);
    if (!m->failed) {
        m->p->buffer[s.buf].rounded = n->round_stream;
        m->p->buffer[s.buf].shift = n->shift;
    }
    return s;
}

/* The layer that will read the stream as it is, written by `block`, and remember its frames; -1
 * where none does before another buffer takes over. */
static int raw_reader(const maker *m, int block) {
    for (int i = block + 1; i < m->half->blocks; i++) {
        const tsr_block *b = &m->half->block[i];
        if (b->kind == TSR_BLOCK_UPSAMPLE || b->kind == TSR_BLOCK_DOWNSAMPLE)
            return b->layer[0];
        if (b->kind == TSR_BLOCK_OUT || (b->kind == TSR_BLOCK_RESNET && b->layer[4] >= 0))
            return -1;
    }
    return -1;
}

static bool sliced(const maker *m, int level) {
    return level >= m->params.slice_level;
}

/* Where `block` writes the stream: frames of a new buffer with the head that its reader needs. An
 * encoder that runs frame by frame collects them in one buffer: pairs for a downsampler of time,
 * all of a step below the slices. */
static stream new_stream(maker *m, int block, stream s, int c) {
    int reader = raw_reader(m, block), want = s.nt;
    bool read_raw = reader >= 0 && input_type(m, reader) == m->params.numerics.stream;
    int head = read_raw ? head_of(m, reader) : 0;
    if (m->params.encode) {
        bool pairs = reader >= 0 && m->half->layer[reader].st == 2 && m->params.step != TSR_STEP_FIRST;
        want = !sliced(m, s.level) ? m->frames[s.level] : pairs ? 2 : 1;
    }
    int nt = s.nt, had = m->filled[block];
    if (!had) {
        s.nt = want;
        m->open[block] = more_stream(m, "stream", head, s, c).buf;
    }
    m->filled[block] = had + nt < want ? had + nt : 0;
    s.buf = m->open[block];
    s.t0 = had;
    s.nt = nt;
    s.c = c;
    return s;
}

/* What a conv that reads the raw stream reads: the stream itself, or a copy in another type. */
static stream raw_input(maker *m, int layer, stream s) {
    tsr_dtype type = input_type(m, layer);
    if (type == m->params.numerics.stream)
        return s;
    stream q = like(m, "conv input", type, head_of(m, layer), s, s.c);
    new_op(m, TSR_OP_QUANTISE, layer, view_of(m, s.buf, s.t0, s.nt), view_of(m, q.buf, 0, q.nt));
    return q;
}

/* GroupNorm and perhaps SiLU of s, as the input of conv layer `reader`. */
static stream normed(maker *m, int norm, int reader, stream s, bool silu) {
    const tsr_numerics *n8 = &m->params.numerics;
    bool eight = n8->eight && n8->eight[reader], codes = eight && n8->eight_type != TSR_F32;
    bool extremes = codes && n8->eight_type == TSR_U8;
    int stats = new_buffer(m, "statistics", TSR_F64, 0, s.nt, 1, TSR_GROUPS + (extremes ? s.c : 0), 2);
    new_op(m, TSR_OP_STATS, norm, view_of(m, s.buf, s.t0, s.nt), view_of(m, stats, 0, s.nt));
    stream n = like(m, "conv input", input_type(m, reader), head_of(m, reader), s, input_channels(m, reader));
    int quant = codes ? new_quant(m) : -1;
    if (!m->failed) {
        m->p->buffer[n.buf].quant = quant;
        if (eight)
            m->p->buffer[n.buf].rounded = codes ? TSR_F32 : TSR_E4M3;
    }
    tsr_op *op = new_op(m, TSR_OP_NORM, norm, view_of(m, s.buf, s.t0, s.nt), view_of(m, n.buf, 0, n.nt));
    op->stats = stats;
    op->silu = silu;
    op->cache = extremes && m->params.step != TSR_STEP_FIRST ? m->cache_of[reader] : -1;
    return n;
}

/* ---------------------------------------------------------------- blocks */

/* The stream that conv2 adds to: s itself, or its 1x1x1 shortcut to another width. */
static stream skip(maker *m, int block, stream s) {
    int layer = m->half->block[block].layer[4];
    if (layer < 0)
        return s;
    stream raw = raw_input(m, layer, s);
    s = new_stream(m, block, s, m->half->layer[layer].cout);
    conv(m, layer, raw, s, false);
    return s;
}

static stream resnet(maker *m, int block, stream s) {
    const int *layer = m->half->block[block].layer; /* norm1, conv1, norm2, conv2, shortcut */
    int width = m->half->layer[layer[1]].cout;
    bool early = width < s.c; /* the narrower of the two stays while conv1 runs, the widest moment of a decoder */
    stream to = s;
    if (early)
        to = skip(m, block, s);
    stream n1 = normed(m, layer[0], layer[1], s, true);
    stream h = more_stream(m, "hidden", 0, s, width);
    conv(m, layer[1], n1, h, false);
    stream n2 = normed(m, layer[2], layer[3], h, true);
    if (!early)
        to = skip(m, block, s);
    conv(m, layer[3], n2, to, true);
    return to;
}

static void attention(maker *m, int block, stream s) {
    const int *layer = m->half->block[block].layer; /* group_norm, qkv, to_out */
    stream n = normed(m, layer[0], layer[1], s, false);
    stream qkv = like(m, "qkv", m->params.numerics.act, 0, s, 3 * s.c);
    conv(m, layer[1], n, qkv, false);
    stream a = like(m, "attention", m->params.numerics.act, 0, s, s.c);
    new_op(m, TSR_OP_ATTENTION, layer[1], view_of(m, qkv.buf, 0, s.nt), view_of(m, a.buf, 0, s.nt));
    conv(m, layer[2], a, s, true);
}

/* Which kernel makes an output frame from its low-resolution frame, number `at` of the step, first
 * or second of two (spec 9.3). Every level has seen one frame before the second step, two or more
 * before later ones. */
static tsr_fold up_fold(const maker *m, int layer, int at, int second) {
    bool first = m->params.step == TSR_STEP_FIRST;
    if (m->half->layer[layer].zt == 1)
        return first ? TSR_FOLD_UP_S1 : TSR_FOLD_UP_S;
    if (first)
        return TSR_FOLD_UP_N1;
    if (m->params.step == TSR_STEP_SECOND && at == 0)
        return second ? TSR_FOLD_UP_N3 : TSR_FOLD_UP_N2;
    return second ? TSR_FOLD_UP_Q1 : TSR_FOLD_UP_Q0;
}

/* All output frames at once: one conv for every kernel. */
static void up_whole(maker *m, int layer, stream in, stream out, int zt) {
    for (int f = 0, end; f < in.nt; f = end) {
        for (end = f + 1; end < in.nt && up_fold(m, layer, in.at + end, 0) == up_fold(m, layer, in.at + f, 0); end++)
            ;
        for (int second = 0; second < zt; second++) {
            tsr_view to = view_of(m, out.buf, out.t0 + zt * f + second, end - f);
            conv_op(m, layer, up_fold(m, layer, in.at + f, second), in, in.t0 + f, end - f, to)->out_dt = zt;
        }
    }
}

/* Where the next level runs frame by frame, walks the rest of the network once for every output
 * frame and returns false; else true, with the stream of the next level. */
static bool upsample(maker *m, int block, stream *s) {
    int layer = m->half->block[block].layer[0];
    int zt = m->params.step == TSR_STEP_FIRST ? 1 : m->half->layer[layer].zt;
    stream in = raw_input(m, layer, *s), out = *s;
    load(m, layer, in.buf);
    out.level++;
    out.nt = in.nt * zt;
    out.at = in.at * zt;
    bool whole = !sliced(m, out.level);
    int frames = out.nt;
    if (whole) {
        out = new_stream(m, block, out, s->c);
        up_whole(m, layer, in, out, zt);
        save(m, layer, in);
    }
    for (int j = 0; !whole && j < frames; j++) {
        stream one = out;
        one.nt = 1;
        one.at = out.at + j;
        one.last = s->last && j + 1 == frames;
        one = new_stream(m, block, one, s->c);
        conv_op(
            m, layer, up_fold(m, layer, in.at + j / zt, j % zt), in, in.t0 + j / zt, 1, view_of(m, one.buf, one.t0, 1));
        if (j + 1 == frames)
            save(m, layer, in);
        walk(m, block + 1, one);
    }
    *s = out;
    return whole;
}

/* False where more frames have to come first. */
static bool downsample(maker *m, int block, stream *s) {
    int layer = m->half->block[block].layer[0];
    int st = m->params.step == TSR_STEP_FIRST ? 1 : m->half->layer[layer].st;
    stream in = *s, out = *s;
    if (sliced(m, s->level) && st == 2) {
        if (s->t0 == 0)
            return false;
        in.t0 = 0;
        in.nt = 2;
    }
    in = raw_input(m, layer, in);
    out.level--;
    out.nt = in.nt / st;
    out.at = s->at / st;
    out = new_stream(m, block, out, s->c);
    conv(m, layer, in, out, false);
    if (!sliced(m, out.level)) {
        if (out.t0 + out.nt < m->frames[out.level])
            return false;
        out.t0 = out.at = 0;
        out.nt = m->frames[out.level];
    }
    *s = out;
    return true;
}

static stream conv_in(maker *m, int block, stream s) {
    int layer = m->half->block[block].layer[0];
    const tsr_layer *l = &m->half->layer[layer];
    stream in = like(m, "input", m->params.numerics.act, head_of(m, layer), s, l->cin);
    new_op(m, TSR_OP_INPUT, layer, view_of(m, -1, s.at, s.nt), view_of(m, in.buf, 0, s.nt));
    s = new_stream(m, block, s, l->cout);
    conv(m, layer, in, s, false);
    return s;
}

static void out_block(maker *m, int block, stream s) {
    const int *layer = m->half->block[block].layer; /* conv_norm_out, conv_out */
    stream n = normed(m, layer[0], layer[1], s, true);
    stream y = like(m, "output", TSR_F32, 0, s, m->half->layer[layer[1]].cout);
    if (!m->failed)
        m->p->buffer[y.buf].rounded = TSR_F32;
    conv(m, layer[1], n, y, false);
    new_op(m, TSR_OP_STORE, layer[1], view_of(m, y.buf, 0, s.nt), view_of(m, -1, s.at, s.nt));
}

/* Runs frames s through the blocks from `block` on. */
static void walk(maker *m, int block, stream s) {
    for (int i = block; i < m->half->blocks && !m->failed; i++) {
        switch (m->half->block[i].kind) {
        case TSR_BLOCK_CONV_IN:
            s = conv_in(m, i, s);
            break;
        case TSR_BLOCK_RESNET:
            s = resnet(m, i, s);
            break;
        case TSR_BLOCK_ATTENTION:
            attention(m, i, s);
            break;
        case TSR_BLOCK_UPSAMPLE:
            if (!upsample(m, i, &s))
                return;
            break;
        case TSR_BLOCK_DOWNSAMPLE:
            if (!downsample(m, i, &s))
                return;
            break;
        case TSR_BLOCK_OUT:
            out_block(m, i, s);
            break;
        }
    }
}

/* ---------------------------------------------------------------- the whole */

/* Frames of a step at every level, and the steps' caches: the same for all steps. */
static void lay_out(maker *m) {
    tsr_program *p = m->p;
    const tsr_half *half = m->half;
    bool encode = m->params.encode, first = m->params.step == TSR_STEP_FIRST;
    int level = encode ? half->levels - 1 : 0;
    m->frames[level] = encode && !first ? half->time_factor : 1;
    p->in_frames = m->frames[level];
    p->in_h = m->params.h;
    p->in_w = m->params.w;
    p->in_c = half->in_channels;
    for (int i = 0; i < half->layers && !m->failed; i++) {
        const tsr_layer *l = &half->layer[i];
        int keeps = tsr_layer_remembers(l);
        m->cache_of[i] = -1;
        if (keeps && (!first || m->params.keep) && grow(m, (void **)&p->cache, p->caches, sizeof *p->cache)) {
            tsr_dtype type = input_type(m, i);
            int h = height_at(m, l->level), w = width_at(m, l->level), c = input_channels(m, i);
            size_t bytes = (size_t)keeps * (size_t)h * (size_t)w * (size_t)c * tsr_dtype_size(type) +
                           (type == TSR_U8 ? TSR_CACHE_RANGE : 0);
            p->cache[p->caches] = (tsr_cache){i, type, keeps, h, w, c, bytes};
            m->cache_of[i] = p->caches++;
        }
        if (l->kind == TSR_LAYER_UPSAMPLE)
            m->frames[l->level + 1] = m->frames[l->level] * (first ? 1 : l->zt);
        if (l->kind == TSR_LAYER_CONV && l->sy == 2)
            m->frames[l->level - 1] = m->frames[l->level] / (first ? 1 : l->st);
    }
    level = encode ? 0 : half->levels - 1;
    p->out_frames = m->frames[level];
    p->out_h = height_at(m, level);
    p->out_w = width_at(m, level);
    p->out_c = half->out_channels;
}

/* What a section touches lives through all of it: its ops come again for the next band. */
static void touch(tsr_program *p, int buf, int op) {
    if (buf < 0)
        return;
    int section = p->op[op].section;
    if (p->buffer[buf].first_op < 0)
        p->buffer[buf].first_op = section < 0 ? op : p->section[section].first;
    p->buffer[buf].last_op = section < 0 ? op : p->section[section].end - 1;
}

/* Lets the conv that completes a buffer's frames gather the statistics that are taken of it later:
 * walking back from each STATS op, the convs that last wrote its frames. */
static void join_statistics(tsr_program *p) {
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *stats = &p->op[i];
        int missing = stats->section < 0 ? stats->in.nt : 0; /* those of bands are added up */
        for (int j = i - 1; stats->kind == TSR_OP_STATS && stats->in.t0 == 0 && missing > 0 && j >= 0; j--) {
            tsr_op *op = &p->op[j];
            if (op->kind != TSR_OP_CONV || op->out.buf != stats->in.buf)
                continue;
            op->stats = stats->out.buf;
            missing -= op->out.nt;
        }
    }
}

static void settle(tsr_program *p) {
    join_statistics(p);
    for (int i = 0; i < p->ops; i++) {
        touch(p, p->op[i].in.buf, i);
        touch(p, p->op[i].out.buf, i);
        touch(p, p->op[i].stats, i);
    }
}

static tsr_status check(const tsr_half *half, const tsr_program_params *params) {
    const tsr_numerics *n = &params->numerics;
    int up = params->encode ? 1 : half->space_factor, down = params->encode ? half->space_factor : 1;
    if (!half->present)
        return tsr_fail(TSR_ERR_ARGUMENT, "the model has no %s", params->encode ? "encoder" : "decoder");
    if (params->h < down || params->w < down || params->h > MOST_SIDE / up || params->w > MOST_SIDE / up)
        return tsr_fail(TSR_ERR_ARGUMENT, "%s of %d x %d: sides must be %d to %d",
            params->encode ? "pictures" : "latents", params->w, params->h, down, MOST_SIDE / up);
    if (params->encode && params->step == TSR_STEP_SECOND)
        return tsr_fail(TSR_ERR_ARGUMENT, "encoding has no second kind of step");
    if (params->band && (params->encode || params->slice_level < half->levels || !params->join_heads ||
                            params->page_level < 1 || params->page_level >= half->levels))
        return tsr_fail(TSR_ERR_UNSUPPORTED, "bands are for decoders, from level 1 up, without slices");
    for (int i = 0; n->eight && i < half->layers; i++) {
        const tsr_layer *l = &half->layer[i];
        bool normed = (l->kind == TSR_LAYER_CONV && l->sy == 1 && l->kh == 3 && i != half->block[0].layer[0]) ||
                      l->kind == TSR_LAYER_QKV;
        if (n->eight[i] && !normed)
            return tsr_fail(TSR_ERR_UNSUPPORTED,
                "%s cannot read 8 bits: only the inputs that a norm bounds have known ranges", l->name);
    }
    return TSR_OK;
}

tsr_status tsr_program_create(tsr_program **out, const tsr_half *half, const tsr_program_params *params) {
    *out = NULL;
    tsr_status status = check(half, params);
    if (status != TSR_OK)
        return status;
    maker m = {.half = half, .params = *params};
    m.p = calloc(1, sizeof *m.p);
    m.cache_of = calloc((size_t)half->layers + 2 * (size_t)half->blocks, sizeof *m.cache_of);
    if (!m.p || !m.cache_of) {
        free(m.cache_of);
        free(m.p);
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for a step program");
    }
    m.open = m.cache_of + half->layers;
    m.filled = m.open + half->blocks;
    m.p->half = half;
    m.p->params = *params;
    m.p->params.numerics.eight = NULL; /* the caller's */
    lay_out(&m);
    int level = params->encode ? half->levels - 1 : 0, frames = m.p->in_frames;
    int nt = sliced(&m, level) ? 1 : frames;
    for (int f = 0; f < frames && !m.failed; f += nt)
        walk(&m, 0, (stream){.nt = nt, .level = level, .at = f, .last = f + nt == frames});
    free(m.cache_of);
    if (m.failed) {
        tsr_program_destroy(&m.p);
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for a step program");
    }
    status = params->band ? tsr_program_in_bands(m.p) : TSR_OK;
    if (status != TSR_OK) {
        tsr_program_destroy(&m.p);
        return status;
    }
    settle(m.p);
    *out = m.p;
    return TSR_OK;
}

void tsr_program_destroy(tsr_program **p) {
    if (!*p)
        return;
    free((*p)->op);
    free((*p)->buffer);
    free((*p)->kernel);
    free((*p)->cache);
    free((*p)->quant);
    free((*p)->section);
    free(*p);
    *p = NULL;
}

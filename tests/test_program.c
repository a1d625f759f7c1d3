/* Step programs: their costs against the specification's numbers, and their structure for every
 * kind of step, slicing, number type and way of keeping frames, by a machine that runs the ops on
 * flags instead of numbers. */
#include "synthetic.h"
#include "temp.h"

#include "model/program.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const synth_config published = {0};
static const synth_config small = {.channels = {32, 32, 64, 64}};

/* A model file without its data. */
static tsr_model *open_model(const synth_config *config) {
    const char *path = temp_path("model.safetensors");
    size_t count, size, data = 0;
    char *header;
    synth_tensor *shape = synth_shapes(config, &count);
    tsr_tensor *t = calloc(count, sizeof *t);
    for (size_t i = 0; i < count; i++) {
        t[i] = (tsr_tensor){.name = shape[i].name,
            .dtype = TSR_F16,
            .ndim = shape[i].ndim,
            .count = shape[i].count,
            .bytes = 2 * shape[i].count};
        memcpy(t[i].dim, shape[i].dim, sizeof shape[i].dim);
        data += t[i].bytes;
    }
    cr_assert(tsr_safetensors_header(t, count, NULL, 0, &header, &size) == TSR_OK);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(header, 1, size, f) == size);
    cr_assert(fseek(f, (long)(size + data - 1), SEEK_SET) == 0 && fputc(0, f) == 0 && fclose(f) == 0);
    free(header);
    free(t);
    free(shape);
    tsr_model *m;
    cr_assert(tsr_model_open(&m, path) == TSR_OK, "%s", tsr_last_error());
    return m;
}

static tsr_program_params params_of(bool encode, tsr_step step, int h, int w) {
    return (tsr_program_params){.encode = encode,
        .step = step,
        .h = h,
        .w = w,
        .keep = true,
        .join_heads = true,
        .slice_level = 99,
        .numerics = {.precision = TSR_PRECISION_F32, .stream = TSR_F32, .act = TSR_F32, .slot = TSR_F32}};
}

static tsr_program *make(const tsr_model *m, const tsr_program_params *params) {
    tsr_program *p;
    const tsr_half *half = params->encode ? &m->vae->encoder : &m->vae->decoder;
    cr_assert(tsr_program_create(&p, half, params) == TSR_OK, "%s", tsr_last_error());
    return p;
}

/* ---------------------------------------------------------------- costs */

Test(program, flops_are_the_specification_s) {
    static const int sizes[][2] = {{1, 1}, {8, 8}, {90, 160}, {136, 240}, {270, 480}};
    tsr_model *m = open_model(&published);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int h = sizes[i][0], w = sizes[i][1];
        double pixels = h * w, decode = 4737974272.0 * pixels + 2048 * pixels * pixels;
        double encode = 2284224512.0 * pixels + 2048 * pixels * pixels;
        for (int step = TSR_STEP_SECOND; step <= TSR_STEP_LATER; step++) { /* the second costs what later ones do */
            for (int slice = 0; slice < 5; slice++) {
                tsr_program_params params = params_of(false, (tsr_step)step, h, w);
                params.slice_level = slice;
                tsr_program *p = make(m, &params);
                cr_assert(tsr_program_flops(p) == decode, "%.0f", tsr_program_flops(p));
                tsr_program_destroy(&p);
            }
        }
        tsr_program_params params = params_of(true, TSR_STEP_LATER, 8 * h, 8 * w);
        tsr_program *p = make(m, &params);
        cr_assert(tsr_program_flops(p) == encode, "%.0f", tsr_program_flops(p));
        tsr_program_destroy(&p);
    }
    tsr_model_close(&m);
}

/* Spec 8.2 and 9.6, per latent pixel. */
Test(program, layers_cost_what_the_table_says) {
    static const struct {
        const char *layer;
        double flops;
    } table[] = {
        {"conv_in", 442368},
        {"mid_block.resnets.0.conv1", 14155776},
        {"mid_block.attentions.0.to_qkv", 3 * 524288 + 2048}, /* and the attention itself, at one pixel */
        {"mid_block.attentions.0.to_out", 524288},
        {"up_blocks.0.resnets.2.conv2", 14155776},
        {"up_blocks.0.upsamplers.0", (4194304 + 113246208) / 3.5},
        {"up_blocks.1.resnets.0.conv1", 113246208},
        {"up_blocks.1.upsamplers.0", (33554432 + 905969664) / 3.5},
        {"up_blocks.2.resnets.0.conv1", 452984832},
        {"up_blocks.2.resnets.0.conv2", 226492416},
        {"up_blocks.2.resnets.0.conv_shortcut", 16777216},
        {"up_blocks.2.upsamplers.0", (33554432 + 905969664) * 12.0 / 28},
        {"up_blocks.3.resnets.0.conv1", 452984832},
        {"up_blocks.3.resnets.0.conv_shortcut", 16777216},
        {"up_blocks.3.resnets.2.conv2", 226492416},
        {"conv_out", 5308416},
    };
    tsr_model *m = open_model(&published);
    tsr_program_params params = params_of(false, TSR_STEP_LATER, 1, 1);
    tsr_program *p = make(m, &params);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double sum = 0;
        for (int k = 0; k < p->ops; k++)
            if (strcmp(p->half->layer[p->op[k].layer].name + strlen("decoder."), table[i].layer) == 0)
                sum += tsr_op_flops(p, &p->op[k]);
        cr_assert(sum == table[i].flops, "%s: %.0f, expected %.0f", table[i].layer, sum, table[i].flops);
    }
    tsr_program_destroy(&p);
    tsr_model_close(&m);
}

Test(program, first_frame_costs_a_third) {
    tsr_model *m = open_model(&published);
    tsr_program_params first = params_of(false, TSR_STEP_FIRST, 90, 160);
    tsr_program *p = make(m, &first);
    /* 21.00 TFLOP merged but with time taps (spec 8.3); without them all but the 1x1 layers and the
     * attention shrink */
    cr_assert(tsr_program_flops(p) < 21.00e12 * 0.4 && tsr_program_flops(p) > 21.00e12 / 3, "%g", tsr_program_flops(p));
    for (int i = 0; i < p->kernels; i++)
        cr_assert(p->kernel[i].kt == 1 && p->kernel[i].st == 1);
    tsr_program_destroy(&p);
    tsr_model_close(&m);
}

Test(program, caches_are_the_specification_s) {
    tsr_model *m = open_model(&published);
    for (int encode = 0; encode < 2; encode++) {
        size_t elements = 0, bytes = 0;
        tsr_program_params params = params_of(encode, TSR_STEP_LATER, encode ? 32 : 4, encode ? 48 : 6);
        tsr_program *p = make(m, &params);
        for (int i = 0; i < p->caches; i++) {
            const tsr_cache *c = &p->cache[i];
            elements += (size_t)(c->frames * c->h * c->w * c->c);
            bytes += c->bytes;
        }
        cr_assert(p->caches == (encode ? 24 : 33)); /* spec 8.5 */
        cr_assert(elements == 24 * (size_t)(encode ? 124288 : 234016) && bytes == 4 * elements, "%zu", elements);
        for (int step = 0; step < TSR_STEP_COUNT; step++) { /* the same in every step */
            params.step = (tsr_step)step;
            if (encode && step == TSR_STEP_SECOND)
                continue;
            tsr_program *q = make(m, &params);
            cr_assert(q->caches == p->caches && memcmp(q->cache, p->cache, (size_t)p->caches * sizeof *p->cache) == 0);
            tsr_program_destroy(&q);
        }
        tsr_program_destroy(&p);
    }
    tsr_model_close(&m);
}

Test(program, op_texts) {
    tsr_model *m = open_model(&published);
    tsr_program_params params = params_of(false, TSR_STEP_LATER, 8, 8);
    tsr_program *p = make(m, &params);
    bool conv = false, merged = false;
    char text[160];
    for (int i = 0; i < p->ops; i++) {
        tsr_op_text(text, p, &p->op[i]);
        conv |= strcmp(text, "up_blocks.2.resnets.1.conv1 conv 3x3x3 256->256 @ 4x32x32") == 0;
        merged |= strcmp(text, "up_blocks.1.upsamplers.0 conv q1 2x2x2 512->512 @ 2x32x32") == 0;
        cr_assert(p->op[i].kind == TSR_OP_CONV ? tsr_op_flops(p, &p->op[i]) > 0 && tsr_op_bytes(p, &p->op[i]) > 0
                                               : tsr_op_bytes(p, &p->op[i]) > 0);
    }
    cr_assert(conv && merged);
    tsr_program_destroy(&p);
    tsr_model_close(&m);
}

/* ---------------------------------------------------------------- structure: the ops run on flags
 */

typedef struct flags { /* one byte a frame of every buffer, from its head on: has it been written?
                        */
    const tsr_program *p;
    uint8_t **frame; /* [buffers][head + frames]; 2: complete, 1: waits for what is to be accumulated */
    uint8_t *saved;  /* [caches] */
    uint8_t *loaded; /* [caches] */
    int stored, stored_frames[8];
    int op;
} flags;

static void live(const flags *f, int buf) {
    const tsr_buffer *b = &f->p->buffer[buf];
    cr_assert(b->first_op <= f->op && f->op <= b->last_op, "op %d: buffer %d is not alive", f->op, buf);
}

static uint8_t *frame(const flags *f, int buf, int t) {
    const tsr_buffer *b = &f->p->buffer[buf];
    live(f, buf);
    cr_assert(t >= -b->head && t < b->frames, "op %d: frame %d of buffer %d", f->op, t, buf);
    return &f->frame[buf][b->head + t];
}

static void written(const flags *f, int buf, int t0, int nt) {
    for (int t = t0; t < t0 + nt; t++)
        cr_assert(*frame(f, buf, t), "op %d reads frame %d of buffer %d, not written yet", f->op, t, buf);
}

static void write_frames(const flags *f, tsr_view v, int dt) {
    for (int i = 0; i < v.nt; i++)
        *frame(f, v.buf, v.t0 + i * dt) = 1;
}

static void whole_rows(const flags *f, tsr_view v) {
    cr_assert(v.buf < 0 || (v.y0 == 0 && v.ny == f->p->buffer[v.buf].h));
}

static void run_conv(const flags *f, const tsr_op *op) {
    const tsr_program *p = f->p;
    const tsr_kernel *k = &p->kernel[op->kernel];
    const tsr_layer *l = &p->half->layer[op->layer];
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    cr_assert(k->layer == op->layer && k->cin == in->c && k->cout == out->c && op->in.nt == op->out.nt);
    int up = k->phases == 4 ? 2 : 1;
    cr_assert(out->h == up * in->h / k->sy && out->w == up * in->w / k->sx);
    int from = op->in.t0 - (k->kt - 1), to = op->in.t0 + (op->in.nt - 1) * k->st;
    bool remembers = tsr_layer_remembers(l) && p->params.step != TSR_STEP_FIRST;
    if (op->cache >= 0) { /* the backend reads them from the cache, which must not have moved on */
        cr_assert(remembers && !p->params.join_heads && p->cache[op->cache].layer == op->layer);
        cr_assert(from >= -p->cache[op->cache].frames && in->head == 0);
        for (int i = 0; i < f->op && from < 0; i++)
            cr_assert(
                p->op[i].kind != TSR_OP_CACHE_SAVE || p->op[i].in.buf != op->in.buf, "op %d: saved too early", f->op);
        from = from < 0 ? 0 : from;
    } else {
        cr_assert(!remembers || p->params.join_heads);
    }
    written(f, op->in.buf, from, to - from + 1);
    if (op->accumulate)
        written(f, op->out.buf, op->out.t0, op->out.nt);
    cr_assert(!op->accumulate || op->out_dt == 1);
    cr_assert(op->in.buf != op->out.buf);
    write_frames(f, op->out, op->out_dt);
    if (op->stats >= 0)
        live(f, op->stats);
}

static void run_save(flags *f, const tsr_op *op) {
    const tsr_program *p = f->p;
    const tsr_cache *c = &p->cache[op->cache];
    const tsr_buffer *b = &p->buffer[op->in.buf];
    cr_assert(c->layer == op->layer && c->h == b->h && c->w == b->w && c->c == b->c && c->dtype == b->dtype);
    cr_assert(op->replicate == (p->params.step == TSR_STEP_FIRST));
    cr_assert(op->in.nt == (op->replicate ? 1 : c->frames));
    int from = op->in.t0;
    if (!p->params.join_heads && from < 0) {
        cr_assert(from >= -c->frames);
        from = 0;
    }
    written(f, op->in.buf, from, op->in.t0 + op->in.nt - from);
    cr_assert(op->in.t0 + op->in.nt == b->frames, "the newest frames are kept");
    f->saved[op->cache]++;
}

static void run_op(flags *f, const tsr_op *op) {
    const tsr_program *p = f->p;
    whole_rows(f, op->in);
    whole_rows(f, op->out);
    switch (op->kind) {
    case TSR_OP_INPUT:
        cr_assert(op->in.buf == -1 && op->in.nt == op->out.nt && op->in.t0 + op->in.nt <= p->in_frames);
        write_frames(f, op->out, 1);
        break;
    case TSR_OP_CONV:
        run_conv(f, op);
        break;
    case TSR_OP_STATS:
    case TSR_OP_ATTENTION:
    case TSR_OP_QUANTISE:
    case TSR_OP_NORM:
        cr_assert(op->in.nt == op->out.nt && op->in.buf != op->out.buf);
        written(f, op->in.buf, op->in.t0, op->in.nt);
        if (op->kind == TSR_OP_NORM)
            written(f, op->stats, 0, op->in.nt);
        write_frames(f, op->out, 1);
        break;
    case TSR_OP_CACHE_LOAD:
        cr_assert(op->out.t0 == -op->out.nt && op->out.nt == p->cache[op->cache].frames &&
                  op->out.nt == p->buffer[op->out.buf].head);
        cr_assert(p->buffer[op->out.buf].dtype == p->cache[op->cache].dtype);
        write_frames(f, op->out, 1);
        f->loaded[op->cache]++;
        break;
    case TSR_OP_CACHE_SAVE:
        run_save(f, op);
        break;
    case TSR_OP_STORE:
        written(f, op->in.buf, op->in.t0, op->in.nt);
        cr_assert(p->buffer[op->in.buf].dtype == TSR_F32 && p->buffer[op->in.buf].c == p->out_c);
        for (int i = 0; i < op->in.nt; i++)
            f->stored_frames[op->out.t0 + i]++;
        f->stored += op->in.nt;
        break;
    default:
        cr_assert_fail("op kind %d", (int)op->kind);
    }
}

/* Statistics that a conv may gather on the way are those a later STATS op takes of the same,
 * finished frames. */
static void check_joined_statistics(const tsr_program *p) {
    for (int i = 0; i < p->ops; i++) {
        if (p->op[i].kind != TSR_OP_CONV || p->op[i].stats < 0)
            continue;
        int j = i + 1;
        while (j < p->ops && !(p->op[j].kind == TSR_OP_STATS && p->op[j].out.buf == p->op[i].stats)) {
            bool rewrites = p->op[j].kind == TSR_OP_CONV && p->op[j].accumulate && p->op[j].out.buf == p->op[i].out.buf;
            cr_assert(!rewrites, "op %d gathers statistics of what op %d changes", i, j);
            j++;
        }
        cr_assert(j < p->ops && p->op[j].in.buf == p->op[i].out.buf);
    }
}

static void check_structure(const tsr_program *p) {
    flags f = {.p = p};
    f.frame = calloc((size_t)p->buffers, sizeof *f.frame);
    f.saved = calloc((size_t)p->caches + 1, 1);
    f.loaded = calloc((size_t)p->caches + 1, 1);
    for (int i = 0; i < p->buffers; i++) {
        const tsr_buffer *b = &p->buffer[i];
        f.frame[i] = calloc((size_t)(b->head + b->frames), 1);
        cr_assert(b->first_op >= 0 && b->last_op > b->first_op && b->last_op < p->ops);
        cr_assert(b->bytes == (size_t)(b->head + b->frames) * (size_t)(b->h * b->w * b->c) * tsr_dtype_size(b->dtype));
    }
    for (f.op = 0; f.op < p->ops; f.op++)
        run_op(&f, &p->op[f.op]);
    cr_assert(f.stored == p->out_frames);
    for (int i = 0; i < p->out_frames; i++)
        cr_assert(f.stored_frames[i] == 1);
    for (int i = 0; i < p->buffers; i++) { /* nothing allocated for nothing, but for heads in later frames' place */
        for (int t = 0; t < p->buffer[i].head + p->buffer[i].frames; t++)
            cr_assert(f.frame[i][t], "frame %d of buffer %d (%s) is never written", t - p->buffer[i].head, i,
                p->buffer[i].name);
        free(f.frame[i]);
    }
    for (int i = 0; i < p->caches; i++) {
        bool first = p->params.step == TSR_STEP_FIRST;
        cr_assert(f.loaded[i] == 0 || (!first && p->params.join_heads));
        cr_assert(f.loaded[i] > 0 || first || !p->params.join_heads);
        int missing = p->params.keep ? 0 : 1; /* the last frames of the last step are not kept */
        int times = first || !p->params.join_heads ? f.saved[i] + missing : f.loaded[i];
        cr_assert(
            f.saved[i] == times - missing && times >= 1, "cache %d: %d loads, %d saves", i, f.loaded[i], f.saved[i]);
    }
    check_joined_statistics(p);
    free(f.frame);
    free(f.saved);
    free(f.loaded);
}

Test(program, every_variant_is_sound) {
    tsr_model *m = open_model(&small);
    for (int encode = 0; encode < 2; encode++) {
        for (int step = 0; step < TSR_STEP_COUNT; step++) {
            for (int variant = 0; variant < 5 * 2 * 2 * 2; variant++) {
                if (encode && step == TSR_STEP_SECOND)
                    continue;
                int s = encode ? 8 : 1;
                tsr_program_params params = params_of(encode, (tsr_step)step, 3 * s, 5 * s);
                params.slice_level = variant % 5;
                params.keep = variant / 5 % 2;
                params.join_heads = variant / 10 % 2;
                if (variant / 20)
                    params.numerics.act = params.numerics.slot = TSR_F16; /* stream f32: raw readers get copies */
                tsr_program *p = make(m, &params);
                check_structure(p);
                int quantised = 0;
                for (int i = 0; i < p->ops; i++)
                    quantised += p->op[i].kind == TSR_OP_QUANTISE;
                cr_assert((quantised > 0) == (variant / 20 == 1));
                cr_assert(
                    p->out_h == (encode ? 3 : 24) && p->out_w == (encode ? 5 : 40) && p->out_c == (encode ? 32 : 3));
                cr_assert(p->in_frames == (encode && step ? 4 : 1) && p->out_frames == (!encode && step ? 4 : 1));
                cr_assert(p->caches > 0 || (step == TSR_STEP_FIRST && !params.keep));
                tsr_program_destroy(&p);
            }
        }
    }
    tsr_model_close(&m);
}

Test(program, kinds_of_upsampled_frames) {
    static const char *const want[TSR_STEP_COUNT] = {"n1 n1 s1 ", "n2 n3 n2 n3 q0 q1 s ", "q0 q1 q0 q1 s "};
    tsr_model *m = open_model(&small);
    for (int step = 0; step < TSR_STEP_COUNT; step++) {
        tsr_program_params params = params_of(false, (tsr_step)step, 2, 2);
        tsr_program *p = make(m, &params);
        char seen[64] = "";
        for (int i = 0; i < p->ops; i++)
            if (p->op[i].kind == TSR_OP_CONV && p->kernel[p->op[i].kernel].phases == 4)
                strcat(strcat(seen, tsr_fold_name(p->kernel[p->op[i].kernel].fold)), " ");
        cr_assert_str_eq(seen, want[step]);
        tsr_program_destroy(&p);
    }
    tsr_model_close(&m);
}

/* The largest set of buffers alive at once. */
static size_t peak(const tsr_program *p) {
    size_t most = 0;
    for (int op = 0; op < p->ops; op++) {
        size_t sum = 0;
        for (int i = 0; i < p->buffers; i++)
            if (p->buffer[i].first_op <= op && op <= p->buffer[i].last_op)
                sum += p->buffer[i].bytes;
        most = sum > most ? sum : most;
    }
    return most;
}

Test(program, slices_shrink_the_arena) {
    tsr_model *m = open_model(&published);
    tsr_program_params params = params_of(false, TSR_STEP_LATER, 90, 160);
    tsr_program *whole = make(m, &params);
    params.slice_level = 3;
    tsr_program *top = make(m, &params);
    params.slice_level = 2;
    tsr_program *two = make(m, &params);
    cr_assert(
        peak(top) * 10 < peak(whole) * 6 && peak(two) < peak(top), "%zu %zu %zu", peak(whole), peak(top), peak(two));
    tsr_program_destroy(&whole);
    tsr_program_destroy(&top);
    tsr_program_destroy(&two);
    tsr_model_close(&m);
}

/* ---------------------------------------------------------------- 8 bits, and what cannot be */

Test(program, eight_bit_inputs) {
    tsr_model *m = open_model(&small);
    const tsr_half *half = &m->vae->decoder;
    uint8_t *eight = calloc((size_t)half->layers, 1);
    int chosen = 0;
    for (int i = 0; i < half->layers; i++) {
        bool reads =
            strstr(half->layer[i].name, ".resnets.") && half->layer[i].kind == TSR_LAYER_CONV && half->layer[i].kh == 3;
        eight[i] = !reads ? 0 : half->layer[i].level == 0 ? 2 : 1;
        chosen += reads;
    }
    tsr_program_params params = params_of(false, TSR_STEP_LATER, 2, 2);
    params.numerics = (tsr_numerics){TSR_PRECISION_INT8, TSR_F16, TSR_F16, TSR_F16, TSR_U8, eight};
    tsr_program *p;
    for (int fp8 = 0; fp8 < 2; fp8++) {
        params.numerics.eight_type = fp8 ? TSR_E4M3 : TSR_U8;
        p = make(m, &params);
        check_structure(p);
        cr_assert(p->quants == chosen);
        for (int i = 0; i < p->buffers; i++) {
            const tsr_buffer *b = &p->buffer[i];
            cr_assert((b->dtype == params.numerics.eight_type) == (b->quant >= 0));
            cr_assert(b->quant < 0 || p->quant[b->quant].scale == (fp8 ? 0.125f : 0));
        }
        for (int i = 0; i < p->caches; i++) {
            int layer = p->cache[i].layer, planes = !fp8 && eight[layer] ? eight[layer] : 1;
            cr_assert(p->cache[i].dtype == (eight[layer] ? params.numerics.eight_type : TSR_F16));
            cr_assert(p->cache[i].c == planes * half->layer[layer].cin);
        }
        for (int i = 0; i < p->ops; i++) { /* convs have the channels of what they read: check_structure() */
            const tsr_op *op = &p->op[i];
            bool codes = op->kind == TSR_OP_CONV && p->buffer[op->in.buf].dtype == TSR_U8;
            cr_assert(!codes || p->kernel[op->kernel].cin == eight[op->layer] * half->layer[op->layer].cin);
        }
        tsr_program_destroy(&p);
    }
    eight[half->block[0].layer[0]] = 1; /* conv_in: the latent's range is not known */
    cr_assert(tsr_program_create(&p, half, &params) == TSR_ERR_UNSUPPORTED && p == NULL);
    cr_assert(strstr(tsr_last_error(), "decoder.conv_in"), "%s", tsr_last_error());
    free(eight);
    tsr_model_close(&m);
}

static size_t all_bytes(const tsr_program *p) {
    size_t bytes = 0;
    for (int i = 0; i < p->buffers; i++)
        bytes += p->buffer[i].bytes;
    for (int i = 0; i < p->caches; i++)
        bytes += p->cache[i].bytes;
    return bytes;
}

/* bf16: the stream is of fp16 and times 2^-6; what reads it as it is keeps its weights, what writes it from elsewhere
 * scales them. */
static void check_scaled_stream(const tsr_program *p) {
    int seen[2] = {0};
    for (int i = 0; i < p->buffers; i++) {
        const tsr_buffer *b = &p->buffer[i];
        bool stream = !strcmp(b->name, "stream") || !strcmp(b->name, "hidden");
        cr_assert_eq(b->shift, stream ? 6 : 0, "%s", b->name);
        if (tsr_dtype_size(b->dtype) == 2)
            cr_assert_eq(b->dtype, stream ? TSR_F16 : TSR_BF16, "%s", b->name);
    }
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *op = &p->op[i];
        cr_assert_neq(op->kind, TSR_OP_QUANTISE);
        if (op->kind != TSR_OP_CONV)
            continue;
        const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
        const tsr_kernel *k = &p->kernel[op->kernel];
        const char *name = p->half->layer[op->layer].name;
        bool raw = strstr(name, "samplers.") || strstr(name, "conv_shortcut");
        cr_assert_eq(in->shift, raw ? 6 : 0, "%s", name);
        cr_assert_eq(k->bias_shift, out->shift, "%s", name);
        cr_assert_eq(k->weight_shift, raw ? 0 : out->shift, "%s", name);
        seen[raw]++;
    }
    cr_assert(seen[0] > 0 && seen[1] > 0);
    for (int i = 0; i < p->caches; i++)
        cr_assert_eq(
            p->cache[i].dtype, strstr(p->half->layer[p->cache[i].layer].name, "samplers.") ? TSR_F16 : TSR_BF16);
}

Test(program, bf16_scales_the_stream) {
    tsr_model *m = open_model(&small);
    for (int encode = 0; encode < 2; encode++)
        for (int variant = 0; variant < 4; variant++) {
            int s = encode ? 8 : 1;
            tsr_program_params params = params_of(encode, TSR_STEP_LATER, 3 * s, 5 * s);
            params.join_heads = variant % 2;
            params.slice_level = variant / 2 ? 2 : 99;
            params.numerics = (tsr_numerics){TSR_PRECISION_FP16, TSR_F16, TSR_F16, TSR_F16};
            tsr_program *fp16 = make(m, &params);
            params.numerics = (tsr_numerics){TSR_PRECISION_BF16, TSR_F16, TSR_BF16, TSR_F16, .shift = TSR_BF16_SHIFT};
            tsr_program *bf16 = make(m, &params);
            check_structure(bf16);
            check_scaled_stream(bf16);
            cr_assert_eq(all_bytes(bf16), all_bytes(fp16));
            tsr_program_destroy(&bf16);
            tsr_program_destroy(&fp16);
        }
    tsr_model_close(&m);
}

Test(program, impossible_params) {
    const synth_config decoder_only = {.channels = {32, 32, 32, 32}, .layers = 1, .decoder = true};
    tsr_model *m = open_model(&small), *d = open_model(&decoder_only);
    tsr_program *p;
    tsr_program_params params = params_of(false, TSR_STEP_LATER, 0, 4);
    cr_assert(tsr_program_create(&p, &m->vae->decoder, &params) == TSR_ERR_ARGUMENT);
    params = params_of(false, TSR_STEP_LATER, 4, 1 << 20);
    cr_assert(tsr_program_create(&p, &m->vae->decoder, &params) == TSR_ERR_ARGUMENT);
    params = params_of(true, TSR_STEP_LATER, 7, 8);
    cr_assert(tsr_program_create(&p, &m->vae->encoder, &params) == TSR_ERR_ARGUMENT);
    params = params_of(true, TSR_STEP_SECOND, 8, 8);
    cr_assert(tsr_program_create(&p, &m->vae->encoder, &params) == TSR_ERR_ARGUMENT);
    params = params_of(true, TSR_STEP_FIRST, 8, 8);
    cr_assert(tsr_program_create(&p, &d->vae->encoder, &params) == TSR_ERR_ARGUMENT);
    cr_assert(strstr(tsr_last_error(), "no encoder"), "%s", tsr_last_error());
    tsr_model_close(&m);
    tsr_model_close(&d);
}

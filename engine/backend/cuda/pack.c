#include "backend/cuda/pack.h"

#include "core/core.h"

#include <string.h>

#define FORM(eight, bf16, hopper, name, th, chunk, couts, kh, kw, s, step, hs, ws)                                     \
    [TSR_CONV_##name] = {#name, th, chunk, couts, kh, kw, s, TSR_CONV_HALO_BYTES(th, chunk, kh, kw, s),                \
        TSR_CONV_SHARED(th, chunk, couts, kh, kw, s, step, hs, ws), eight, bf16, hopper},
#define ALL(...) FORM(true, true, false, __VA_ARGS__)
#define ONLY_16(...) FORM(false, true, false, __VA_ARGS__)
#define ONLY_F16(...) FORM(false, false, false, __VA_ARGS__)
#define HOPPER(...) FORM(true, true, true, __VA_ARGS__)
#define HOPPER_F16(...) FORM(false, false, true, __VA_ARGS__)
/* clang-format off */
const tsr_conv_form tsr_conv_forms[TSR_CONV_SHAPE_COUNT] = {
    TSR_CONV_SHAPES_8(ALL) TSR_CONV_SHAPES_16(ONLY_16) TSR_CONV_SHAPES_F16(ONLY_F16)
    TSR_CONV_SHAPES_8H(HOPPER) TSR_CONV_SHAPES_F16H(HOPPER_F16)
};
/* clang-format on */

/* 3x3: all tiles. Hopper multiplies e4m3 by wgmma alone. */
static int squares(tsr_dtype input, bool hopper, tsr_conv_shape *out) {
    int n = 0;
    if (hopper) {
        out[n++] = TSR_CONV_K33H;
        out[n++] = TSR_CONV_K33J;
    }
    if (!hopper || input != TSR_E4M3) {
        out[n++] = TSR_CONV_K33;
        out[n++] = TSR_CONV_K33T;
    }
    return n;
}

/* 16-bit convs that only one shape takes; TSR_CONV_SHAPE_COUNT: none. */
static tsr_conv_shape single(const tsr_kernel *k, tsr_dtype input, bool rows, bool octets) {
    bool three = k->kh == 3 && k->kw == 3;
    if (k->kh == 1 && k->kw == 1 && k->sy == 1 && rows && octets)
        return TSR_CONV_K11;
    if (three && k->sy == 2 && input == TSR_F16 && rows && octets)
        return TSR_CONV_K33S;
    if (three && k->sy == 1 && rows && k->cout <= 32)
        return TSR_CONV_K33O;
    if (three && k->sy == 1 && octets && (!rows || k->cin <= 32))
        return TSR_CONV_K33N;
    return TSR_CONV_SHAPE_COUNT;
}

int tsr_conv_choices(const tsr_kernel *k, tsr_dtype input, bool hopper, tsr_conv_shape out[TSR_CONV_CHOICES]) {
    int size = (int)tsr_dtype_size(input), n = 0;
    bool rows = k->cin * size % 16 == 0, octets = k->cout % 8 == 0, whole = rows && octets;
    bool three = k->kh == 3 && k->kw == 3 && k->sy == 1 && k->sx == 1;
    if (size > 2 || k->sy != k->sx)
        return 0;
    if (size == 1)
        return three && whole ? squares(input, hopper, out) : 0;
    if (k->phases == 4) {
        if (k->kh != 2 || k->kw != 2 || k->sy != 1 || input != TSR_F16 || !whole)
            return 0;
        if (hopper)
            out[n++] = TSR_CONV_K22H;
        out[n++] = TSR_CONV_K22;
        return n;
    }
    out[0] = single(k, input, rows, octets);
    if (out[0] != TSR_CONV_SHAPE_COUNT)
        return 1;
    return three && whole ? squares(input, hopper, out) : 0;
}

static size_t place(size_t *end, size_t bytes) {
    size_t at = *end;
    *end = tsr_align(at + bytes, 256);
    return at;
}

tsr_conv_packing tsr_conv_packing_of(const tsr_kernel *k, tsr_conv_shape shape, tsr_dtype input) {
    const tsr_conv_form *f = &tsr_conv_forms[shape];
    int size = (int)tsr_dtype_size(input);
    tsr_conv_packing p = {.shape = shape, .input = input};
    p.chunks = (k->cin * size + f->chunk - 1) / f->chunk;
    p.n_blocks = (k->cout + f->couts - 1) / f->couts;
    p.n_padded = p.n_blocks * f->couts;
    size_t vector = (size_t)k->phases * (size_t)p.n_padded * 4;
    size_t taps = (size_t)k->kt * (size_t)k->kh * (size_t)k->kw;
    p.weights = place(&p.bytes, (size_t)k->phases * (size_t)p.n_padded * taps * (size_t)p.chunks * (size_t)f->chunk);
    p.bias = place(&p.bytes, vector * (size_t)k->classes);
    if (size == 1) {
        p.scale = place(&p.bytes, vector);
        p.weight_sum = place(&p.bytes, vector);
    }
    if (input == TSR_U8) {
        p.gain = place(&p.bytes, (size_t)k->cin * sizeof(float));
        p.range = place(&p.bytes, sizeof(tsr_range));
    }
    return p;
}

/* One row of one 16-row-byte-swizzled tile: `count` elements of a tap's input channels from `from`.
 */
static void pack_row(uint8_t *tile, int row, int chunk, const uint8_t *from, int bytes) {
    for (int piece = 0; piece * 16 < bytes; piece++) {
        int at = row * chunk + ((piece ^ TSR_CONV_SWIZZLE(row, chunk)) << 4);
        int n = bytes - piece * 16 < 16 ? bytes - piece * 16 : 16;
        memcpy(tile + at, from + piece * 16, (size_t)n);
    }
}

static void pack_weights(const tsr_conv_packing *p, const tsr_kernel *k, const uint8_t *codes, uint8_t *out) {
    const tsr_conv_form *f = &tsr_conv_forms[p->shape];
    int size = (int)tsr_dtype_size(p->input), taps = k->kh * k->kw, pixel_bytes = k->cin * size;
    size_t tile_bytes = (size_t)f->couts * (size_t)f->chunk;
    for (int phase = 0; phase < k->phases; phase++)
        for (int block = 0; block < p->n_blocks; block++)
            for (int t = 0; t < k->kt; t++)
                for (int chunk = 0; chunk < p->chunks; chunk++)
                    for (int tap = 0; tap < taps; tap++, out += tile_bytes) {
                        int bytes = pixel_bytes - chunk * f->chunk;
                        bytes = bytes < f->chunk ? bytes : f->chunk;
                        for (int c = 0; c < f->couts && block * f->couts + c < k->cout; c++) {
                            size_t filter = (size_t)phase * (size_t)k->cout + (size_t)(block * f->couts + c);
                            size_t from = (filter * (size_t)k->kt + (size_t)t) * (size_t)taps + (size_t)tap;
                            int row = f->couts < 32 ? c : tsr_conv_row(c);
                            pack_row(out, row, f->chunk, codes + from * (size_t)pixel_bytes + chunk * f->chunk, bytes);
                        }
                    }
}

void tsr_conv_pack(const tsr_conv_packing *p, const tsr_kernel *k, const tsr_conv_weights *w, void *out) {
    uint8_t *base = out;
    memset(base, 0, p->bytes);
    pack_weights(p, k, w->codes, base + p->weights);
    size_t filter = (size_t)k->kt * (size_t)k->kh * (size_t)k->kw * (size_t)k->cin;
    for (int v = 0; v < k->phases * k->classes; v++)
        memcpy(base + p->bias + (size_t)(v * p->n_padded) * 4, w->bias + v * k->cout, (size_t)k->cout * 4);
    if (tsr_dtype_size(p->input) != 1)
        return;
    for (int phase = 0; phase < k->phases; phase++) {
        memcpy(base + p->scale + (size_t)(phase * p->n_padded) * 4, w->scale + phase * k->cout, (size_t)k->cout * 4);
        int32_t *sum = (int32_t *)(base + p->weight_sum) + phase * p->n_padded;
        const int8_t *code = (const int8_t *)w->codes + (size_t)phase * (size_t)k->cout * filter;
        for (int c = 0; p->input == TSR_U8 && c < k->cout; c++)
            for (size_t i = 0; i < filter; i++)
                sum[c] += *code++;
    }
    if (p->input == TSR_U8)
        memcpy(base + p->gain, w->gain, (size_t)k->cin * sizeof(float));
}

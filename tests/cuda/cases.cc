/* What kernels are checked with, by the shim's tests and on a GPU: the published model's channels at small pictures,
 * ragged edges, every precision. */
#include "cases.h"

static tsr_dtype type_of(tsr_elem e) {
    return e == TSR_ELEM_F16 ? TSR_F16 : e == TSR_ELEM_BF16 ? TSR_BF16 : e == TSR_ELEM_E4M3 ? TSR_E4M3 : TSR_U8;
}

void add(cases &all, const conv_case &c, bool quick) {
    all.push_back({text("conv %s %s kt %d, %dx%d, %d->%d", tsr_dtype_name(c.in), tsr_conv_forms[c.shape].name, c.kt,
                       c.h, c.w, c.cin, c.cout),
        [c] { return check_conv(c); }, c.shape, c.in, quick});
}

void add(cases &all, const norm_case &c, bool quick) {
    all.push_back({text("norm %s to %s%s, %d frames of %d pixels, %d channels", tsr_dtype_name(type_of(c.in)),
                       tsr_dtype_name(type_of(c.out)), c.planes == 2 ? " of two planes" : "", c.frames, c.pixels, c.c),
        [c] { return check_norm(c); }, TSR_CONV_SHAPE_COUNT, type_of(c.out), quick});
}

void add(cases &all, const attention_case &c, bool quick) {
    all.push_back(
        {text("attention %s, %d frames of %d tokens, %d channels", c.bf16 ? "bf16" : "f16", c.frames, c.tokens, c.c),
            [c] { return check_attention(c); }, TSR_CONV_SHAPE_COUNT, c.bf16 ? TSR_BF16 : TSR_F16, quick});
}

static const tsr_dtype every_precision[] = {TSR_F16, TSR_BF16, TSR_E4M3, TSR_U8};
static const tsr_dtype both_16[] = {TSR_F16, TSR_BF16};

conv_case conv_base(tsr_conv_shape shape, tsr_dtype in) {
    conv_case c;
    c.shape = shape;
    c.in = in;
    c.out = TSR_ELEM_F16; /* the residual stream */
    return c;
}

/* Frames before the clip's are in the cache, others in the buffer; pictures end within a tile; onto
 * the residual. */
static void causal_with_ragged_edges(cases &all) {
    for (tsr_dtype in : every_precision) {
        conv_case c = conv_base(TSR_CONV_K33, in);
        c.h = 9, c.w = 13, c.outputs = 2, c.accumulate = true;
        add(all, c, in == TSR_F16 || in == TSR_U8);
        for (tsr_conv_shape large : {TSR_CONV_K33T, TSR_CONV_K33H}) {
            c = conv_base(large, in);
            c.h = 17, c.w = 18, c.accumulate = true;
            add(all, c, false);
            c.w = 3, c.kt = 2, c.past = 1;
            add(all, c);
        }
        c = conv_base(TSR_CONV_K33J, in);
        c.h = 9, c.w = 17, c.kt = 2, c.past = 1, c.cin = 160, c.cout = 136; /* chunks and blocks that end early */
        add(all, c, false);
        c.h = 3;
        add(all, c);
    }
}

static void channels_of_the_published_model(cases &all) {
    const int pairs[][2] = {{512, 512}, {512, 256}, {256, 256}, {256, 128}, {128, 256}, {256, 512}};
    int n = 0;
    for (auto &p : pairs) { /* first frames: one time tap. Precisions take turns: 8 bits twice as often */
        conv_case c = conv_base(n % 2 ? TSR_CONV_K33T : TSR_CONV_K33, every_precision[(n * 5 + 2) % 4]);
        c.kt = 1, c.past = 0, c.h = 3 + n, c.w = 5 + 3 * n, c.cin = p[0], c.cout = p[1];
        add(all, c, n == 0 || n == 3);
        n++;
    }
    conv_case c = conv_base(TSR_CONV_K33, TSR_U8);
    c.cin = c.cout = 512, c.h = 4, c.w = 6; /* the longest sum: 13824 products */
    add(all, c, false);
    c.cout = 64;
    add(all, c);
}

static void one_pixel_and_odd_channels(cases &all) {
    for (tsr_dtype in : every_precision) {
        conv_case c = conv_base(TSR_CONV_K33, in);
        c.h = 1, c.w = 1, c.cin = 96, c.cout = 64, c.past = 1;
        add(all, c);
        c = conv_base(TSR_CONV_K33T, in);
        c.h = 2, c.w = 33, c.cin = 32, c.cout = 136, c.past = 0, c.outputs = 2; /* t0 = 2: all frames in the buffer */
        add(all, c, in == TSR_E4M3);
    }
}

static void merged_upsampler_phases_and_their_borders(cases &all) {
    for (int kt = 1; kt <= 3; kt++) { /* n1; q0, q1, n2, n3; s */
        conv_case c = conv_base(TSR_CONV_K22, TSR_F16);
        c.kt = kt, c.past = kt - 1, c.classes = 4, c.cin = c.cout = 64;
        c.h = kt == 1 ? 9 : 3, c.w = kt == 3 ? 17 : 4, c.out_dt = kt == 2 ? 2 : 1;
        c.outputs = kt == 2 ? 2 : 1;
        add(all, c);
    }
    conv_case c = conv_base(TSR_CONV_K22H, TSR_F16);
    c.kt = 2, c.past = 1, c.classes = 4, c.h = 3, c.w = 5, c.cin = 64, c.out_dt = 2, c.outputs = 2;
    add(all, c);
    c.kt = 1, c.past = 0, c.h = 17, c.w = 18, c.outputs = 1;
    add(all, c, false);
    c = conv_base(TSR_CONV_K22, TSR_F16);
    c.kt = 2, c.past = 1, c.classes = 4, c.h = 2, c.w = 3, c.cin = c.cout = 256;
    add(all, c, false);
    c.kt = 1, c.past = 0, c.h = c.w = 1, c.cin = c.cout = 256;
    add(all, c);
}

static void pointwise(cases &all) {
    for (tsr_dtype in : both_16) {
        conv_case c = conv_base(TSR_CONV_K11, in);
        c.kt = 1, c.past = 0, c.pad = 0, c.h = 9, c.w = 17, c.cin = 512, c.cout = 256; /* shortcut */
        add(all, c, in == TSR_F16);
        c.h = 3, c.w = 20, c.cin = 128, c.cout = 1536, c.outputs = 2; /* q k v */
        c.out = in == TSR_BF16 ? TSR_ELEM_BF16 : TSR_ELEM_F16;
        add(all, c, in == TSR_BF16);
        c.cin = 64, c.cout = 64, c.out = TSR_ELEM_F16, c.accumulate = true; /* the attention's output */
        add(all, c);
    }
}

static void strided_in_space_and_time(cases &all) {
    conv_case c = conv_base(TSR_CONV_K33S, TSR_F16);
    c.kt = 1, c.past = 0, c.pad = 0, c.h = 18, c.w = 36;
    add(all, c);
    c.kt = 3, c.st = 2, c.past = 1, c.outputs = 2, c.h = 10, c.w = 12; /* a later step: one frame remembered */
    add(all, c);
    c.past = 2, c.outputs = 1, c.h = 6, c.w = 6, c.cin = 256;
    add(all, c);
}

static void few_channels_in_or_out(cases &all) {
    for (tsr_dtype in : both_16) {
        conv_case c = conv_base(TSR_CONV_K33N, in);
        for (int cin : {3, 16, 20}) {
            c.cin = cin, c.h = 9, c.w = 17, c.cout = cin == 16 ? 512 : 128;
            add(all, c, cin == 3 || (cin == 16) == (in == TSR_F16));
        }
        c = conv_base(TSR_CONV_K33O, in);
        c.h = 17, c.w = 20, c.cout = 3, c.out = TSR_ELEM_F32, c.outputs = 2;
        add(all, c, in == TSR_F16);
        c.h = 4, c.w = 5, c.cin = 512, c.cout = 32, c.out = TSR_ELEM_F16, c.outputs = 1;
        add(all, c, in == TSR_BF16);
    }
}

static void a_band_of_rows(cases &all) {
    conv_case c = conv_base(TSR_CONV_K33, TSR_F16);
    c.h = 20, c.w = 16, c.y0 = 5, c.rows = 9, c.cin = 64, c.accumulate = true, c.kt = 1, c.past = 0;
    add(all, c);
}

static void overflow_raises_the_flag(cases &all) { /* bf16 in, so that a number beyond fp16's range can come out */
    for (tsr_conv_shape shape : {TSR_CONV_K33, TSR_CONV_K33O})
        for (bool accumulate : {false, true}) {
            conv_case c = conv_base(shape, TSR_BF16);
            c.out = TSR_ELEM_F16, c.huge = 1e8f, c.kt = 1, c.past = 0, c.cin = 64,
            c.cout = shape == TSR_CONV_K33 ? 64 : 8;
            c.accumulate = accumulate;
            add(all, c);
        }
}

static void every_type_and_width(cases &all) {
    for (tsr_elem in : {TSR_ELEM_F16, TSR_ELEM_BF16})
        for (tsr_elem out : {TSR_ELEM_F16, TSR_ELEM_BF16, TSR_ELEM_E4M3, TSR_ELEM_U8})
            for (int channels : {32, 96, 128, 256, 512}) {
                norm_case c;
                c.in = in, c.out = out, c.c = channels, c.pixels = channels == 128 ? 137 : 45;
                add(all, c, channels == 32 || (in == TSR_ELEM_F16 && out == TSR_ELEM_U8));
            }
}

static void codes_of_two_planes(cases &all) {
    for (int channels : {32, 96, 512}) {
        norm_case c;
        c.out = TSR_ELEM_U8, c.planes = 2, c.c = channels, c.pixels = 45;
        add(all, c);
        c.before = 0.02f;
        add(all, c);
    }
}

static void without_silu_and_without_norm(cases &all) {
    norm_case c;
    c.silu = false; /* before attention */
    add(all, c);
    c.norm = false; /* a raw stream */
    for (tsr_elem out : {TSR_ELEM_BF16, TSR_ELEM_E4M3, TSR_ELEM_U8}) {
        c.out = out;
        add(all, c);
    }
}

static void one_pixel(cases &all) {
    norm_case c;
    c.pixels = 1, c.frames = 1, c.c = 512, c.out = TSR_ELEM_U8;
    add(all, c);
}

static void never_shrinks_and_tells_what_is_not_finite(cases &all) {
    norm_case c;
    c.out = TSR_ELEM_U8, c.before = 0.4f; /* more than these numbers need */
    add(all, c);
    c.before = 1e-4f, c.spoilt = INFINITY;
    add(all, c);
    c.spoilt = NAN;
    add(all, c);
    c.before = NAN, c.spoilt = -INFINITY;
    add(all, c);
}

static void cached_codes_follow_it(cases &all) {
    all.push_back({"requantise", [] { return check_requantise(true); }, TSR_CONV_SHAPE_COUNT, TSR_U8, true});
    all.push_back({"requantise", [] { return check_requantise(false); }, TSR_CONV_SHAPE_COUNT, TSR_U8, true});
}

static void wide_and_narrow_heads(cases &all) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        attention_case c;
        c.bf16 = bf16;
        add(all, c); /* 512 channels; the last tile of keys and queries is not full */
        c.c = 128, c.tokens = 130, c.frames = 2;
        add(all, c);
        c.c = 72, c.tokens = 5;
        add(all, c);
        c.c = 64, c.tokens = 1;
        add(all, c);
    }
}

static void sharp_softmax(cases &all) {
    attention_case c;
    c.c = 64, c.tokens = 200, c.spread = 8; /* scores up to +-250: the running maximum rises often */
    add(all, c);
}

static void in_and_out(cases &all) {
    all.push_back({"input and store", check_moves, TSR_CONV_SHAPE_COUNT, TSR_F16, true});
}

static const struct {
    const char *name;
    void (*fill)(cases &all);
} groups[] = {
    {"causal_with_ragged_edges", causal_with_ragged_edges},
    {"channels_of_the_published_model", channels_of_the_published_model},
    {"one_pixel_and_odd_channels", one_pixel_and_odd_channels},
    {"merged_upsampler_phases_and_their_borders", merged_upsampler_phases_and_their_borders},
    {"pointwise", pointwise},
    {"strided_in_space_and_time", strided_in_space_and_time},
    {"few_channels_in_or_out", few_channels_in_or_out},
    {"a_band_of_rows", a_band_of_rows},
    {"overflow_raises_the_flag", overflow_raises_the_flag},
    {"every_type_and_width", every_type_and_width},
    {"codes_of_two_planes", codes_of_two_planes},
    {"without_silu_and_without_norm", without_silu_and_without_norm},
    {"one_pixel", one_pixel},
    {"never_shrinks_and_tells_what_is_not_finite", never_shrinks_and_tells_what_is_not_finite},
    {"cached_codes_follow_it", cached_codes_follow_it},
    {"wide_and_narrow_heads", wide_and_narrow_heads},
    {"sharp_softmax", sharp_softmax},
    {"in_and_out", in_and_out},
};

cases cases_of(const std::string &group) {
    cases all;
    for (auto &g : groups)
        if (group == "" || group == g.name)
            g.fill(all);
    return all;
}

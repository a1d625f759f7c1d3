/* Convolution kernels through the host shim: the published model's channels at small pictures,
 * every precision. */
#include "checks.h"

#include <criterion/criterion.h>

static void good(const conv_case &c) {
    std::string wrong = check_conv(c);
    cr_assert(wrong.empty(), "%s %s kt %d, %dx%d, %d->%d: %s", tsr_dtype_name(c.in),
        tsr_conv_forms[c.shape].name, c.kt, c.h, c.w, c.cin, c.cout, wrong.c_str());
}

static const tsr_dtype every_precision[] = {TSR_F16, TSR_BF16, TSR_E4M3, TSR_U8};
static const tsr_dtype both_16[] = {TSR_F16, TSR_BF16};

/* What the precision's residual stream is kept in. */
static tsr_elem stream_of(tsr_dtype in) {
    return in == TSR_BF16 ? TSR_ELEM_BF16 : TSR_ELEM_F16;
}

static conv_case base(tsr_conv_shape shape, tsr_dtype in) {
    conv_case c;
    c.shape = shape;
    c.in = in;
    c.out = stream_of(in);
    return c;
}

/* Frames before the clip's are in the cache, others in the buffer; pictures end within a tile; onto
 * the residual. */
Test(conv, causal_with_ragged_edges) {
    for (tsr_dtype in : every_precision) {
        conv_case c = base(TSR_CONV_K33, in);
        c.h = 9, c.w = 13, c.outputs = 2, c.accumulate = true;
        good(c);
        for (tsr_conv_shape large : {TSR_CONV_K33T, TSR_CONV_K33H}) {
            c = base(large, in);
            c.h = 17, c.w = 18, c.outputs = 1, c.accumulate = true;
            good(c);
        }
        c = base(TSR_CONV_K33J, in);
        c.h = 9, c.w = 17, c.kt = 2, c.past = 1, c.cin = 160, c.cout = 136; /* chunks and blocks that end early */
        good(c);
    }
}

Test(conv, channels_of_the_published_model) {
    const int pairs[][2] = {{512, 512}, {512, 256}, {256, 256}, {256, 128}, {128, 256}, {256, 512}};
    int n = 0;
    for (auto &p :
        pairs) { /* first frames: one time tap. Precisions take turns: 8 bits twice as often */
        conv_case c = base(n % 2 ? TSR_CONV_K33T : TSR_CONV_K33, every_precision[(n * 5 + 2) % 4]);
        c.kt = 1, c.past = 0, c.h = 3 + n, c.w = 5 + 3 * n, c.cin = p[0], c.cout = p[1];
        good(c);
        n++;
    }
    conv_case c = base(TSR_CONV_K33, TSR_U8);
    c.cin = c.cout = 512, c.h = 4, c.w = 6; /* the longest sum: 13824 products */
    good(c);
}

Test(conv, one_pixel_and_odd_channels) {
    for (tsr_dtype in : every_precision) {
        conv_case c = base(TSR_CONV_K33, in);
        c.h = 1, c.w = 1, c.cin = 96, c.cout = 64, c.past = 1;
        good(c);
        c = base(TSR_CONV_K33T, in);
        c.h = 2, c.w = 33, c.cin = 32, c.cout = 136, c.past = 0,
        c.outputs = 2; /* t0 = 2: all frames in the buffer */
        good(c);
    }
}

Test(conv, merged_upsampler_phases_and_their_borders) {
    for (tsr_dtype in : both_16)
        for (int kt = 1; kt <= 3; kt++) { /* n1; q0, q1, n2, n3; s */
            conv_case c = base(TSR_CONV_K22, in);
            c.kt = kt, c.past = kt - 1, c.classes = 4, c.cin = c.cout = 64;
            c.h = kt == 1 ? 9 : 3, c.w = kt == 3 ? 17 : 4, c.out_dt = kt == 2 ? 2 : 1;
            c.outputs = kt == 2 ? 2 : 1;
            good(c);
        }
    for (tsr_dtype in : both_16) {
        conv_case c = base(TSR_CONV_K22H, in);
        c.kt = 2, c.past = 1, c.classes = 4, c.h = 3, c.w = 5, c.cin = 64, c.out_dt = 2, c.outputs = 2;
        good(c);
        c.kt = 1, c.past = 0, c.h = 17, c.w = 18, c.outputs = 1;
        good(c);
    }
    conv_case c = base(TSR_CONV_K22, TSR_F16);
    c.kt = 2, c.past = 1, c.classes = 4, c.h = 2, c.w = 3, c.cin = c.cout = 256;
    good(c);
    c.kt = 1, c.past = 0, c.h = c.w = 1, c.cin = c.cout = 256;
    good(c);
}

Test(conv, pointwise) {
    for (tsr_dtype in : both_16) {
        conv_case c = base(TSR_CONV_K11, in);
        c.kt = 1, c.past = 0, c.pad = 0, c.h = 9, c.w = 17, c.cin = 512,
        c.cout = 256; /* shortcut */
        good(c);
        c.h = 3, c.w = 20, c.cin = 128, c.cout = 1536, c.outputs = 2; /* q k v */
        good(c);
        c.cin = 64, c.cout = 64;
        good(c);
    }
}

Test(conv, strided_in_space_and_time) {
    for (tsr_dtype in : both_16) {
        conv_case c = base(TSR_CONV_K33S, in);
        c.kt = 1, c.past = 0, c.pad = 0, c.h = 18, c.w = 36;
        good(c);
        c.kt = 3, c.st = 2, c.past = 1, c.outputs = 2, c.h = 10,
        c.w = 12; /* a later step: one frame remembered */
        good(c);
        c.past = 2, c.outputs = 1, c.h = 6, c.w = 6, c.cin = 256;
        good(c);
    }
}

Test(conv, few_channels_in_or_out) {
    for (tsr_dtype in : both_16) {
        conv_case c = base(TSR_CONV_K33N, in);
        for (int cin : {3, 16, 20}) {
            c.cin = cin, c.h = 9, c.w = 17, c.cout = cin == 16 ? 512 : 128;
            good(c);
        }
        c = base(TSR_CONV_K33O, in);
        c.h = 17, c.w = 20, c.cout = 3, c.out = TSR_ELEM_F32, c.outputs = 2;
        good(c);
        c.h = 4, c.w = 5, c.cin = 512, c.cout = 32, c.out = stream_of(in), c.outputs = 1;
        good(c);
    }
}

Test(conv, a_band_of_rows) {
    conv_case c = base(TSR_CONV_K33, TSR_F16);
    c.h = 20, c.w = 16, c.y0 = 5, c.rows = 9, c.cin = 64, c.accumulate = true, c.kt = 1, c.past = 0;
    good(c);
}

Test(conv,
    overflow_raises_the_flag) { /* bf16 in, so that a number beyond fp16's range can come out */
    for (tsr_conv_shape shape : {TSR_CONV_K33, TSR_CONV_K33O})
        for (bool accumulate : {false, true}) {
            conv_case c = base(shape, TSR_BF16);
            c.out = TSR_ELEM_F16, c.huge = 1e8f, c.kt = 1, c.past = 0, c.cin = 64,
            c.cout = shape == TSR_CONV_K33 ? 64 : 8;
            c.accumulate = accumulate;
            good(c);
        }
}

Test(conv, any_schedule_gives_the_same_bits) {
    for (tsr_conv_shape shape : {TSR_CONV_K33, TSR_CONV_K33J}) {
        conv_case c = base(shape, shape == TSR_CONV_K33 ? TSR_F16 : TSR_U8);
        c.h = 9, c.w = 17, c.kt = 2, c.past = 1;
        conv_seen first = {}, other = {};
        cr_assert(check_conv(c, &first).empty());
        c.schedule = 99;
        cr_assert(check_conv(c, &other).empty());
        cr_assert_eq(first.hash, other.hash);
    }
}

/* Bytes from global to shared memory per 1000 multiply-adds counted as 2, and not one bank conflict
 * (check_conv). Of 16 bits half as many fit a byte, at half the tensor cores' rate. */
Test(conv, traffic) {
    struct {
        tsr_conv_shape shape;
        int h, w;
        double most;
    } cases[] = {{TSR_CONV_K33, 24, 48, 4.5}, {TSR_CONV_K33T, 32, 32, 2.5}, {TSR_CONV_K33H, 32, 32, 2.5},
        {TSR_CONV_K33J, 24, 48, 4.5}};
    for (auto &t : cases)
        for (tsr_dtype in : every_precision) {
            const int size = static_cast<int>(tsr_dtype_size(in));
            conv_case c = base(t.shape, in);
            c.h = t.h, c.w = t.w, c.kt = 1, c.past = 0;
            conv_seen seen = {};
            std::string wrong = check_conv(c, &seen);
            cr_assert(wrong.empty(), "%s", wrong.c_str());
            double flops = 2.0 * 9 * 128 * 128 * t.h * t.w,
                   rate = static_cast<double>(seen.count.async_bytes) / flops * 1000;
            cr_assert_eq(static_cast<double>(seen.count.mma_flops), flops);
            cr_assert_eq(seen.count.bank_conflicts, 0u);
            cr_assert_eq(seen.count.write_conflicts, 0u);
            cr_assert(
                rate <= t.most * size, "%s: %.2f bytes per kFLOP", tsr_conv_forms[t.shape].name, rate);
        }
}

/* Convolution kernels through the host shim. */
#include "cases.h"

#include <criterion/criterion.h>

RUN_CASES(conv, causal_with_ragged_edges)
RUN_CASES(conv, channels_of_the_published_model)
RUN_CASES(conv, one_pixel_and_odd_channels)
RUN_CASES(conv, merged_upsampler_phases_and_their_borders)
RUN_CASES(conv, pointwise)
RUN_CASES(conv, strided_in_space_and_time)
RUN_CASES(conv, few_channels_in_or_out)
RUN_CASES(conv, a_band_of_rows)
RUN_CASES(conv, overflow_raises_the_flag)

Test(conv, any_schedule_gives_the_same_bits) {
    const bool few = !std::getenv("TSR_TEST_LONG");
    const tsr_conv_shape quick[] = {TSR_CONV_K33, TSR_CONV_K33J}, others[] = {TSR_CONV_K33T, TSR_CONV_K33H};
    for (tsr_conv_shape shape : few ? quick : others) {
        conv_case c = conv_base(shape, tsr_conv_forms[shape].hopper ? TSR_U8 : TSR_F16);
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
    } tiles[] = {{TSR_CONV_K33, 24, 48, 4.5}, {TSR_CONV_K33T, 32, 32, 2.5}, {TSR_CONV_K33H, 32, 32, 2.5},
        {TSR_CONV_K33J, 24, 48, 4.5}};
    const tsr_dtype quick[] = {TSR_F16, TSR_U8}, others[] = {TSR_BF16, TSR_E4M3};
    for (auto &t : tiles)
        for (tsr_dtype in : std::getenv("TSR_TEST_LONG") ? others : quick) {
            const int size = static_cast<int>(tsr_dtype_size(in));
            conv_case c = conv_base(t.shape, in);
            c.h = t.h, c.w = t.w, c.kt = 1, c.past = 0;
            conv_seen seen = {};
            std::string wrong = check_conv(c, &seen);
            cr_assert(wrong.empty(), "%s", wrong.c_str());
            double flops = 2.0 * 9 * 128 * 128 * t.h * t.w,
                   rate = static_cast<double>(seen.count.async_bytes) / flops * 1000;
            cr_assert_eq(static_cast<double>(seen.count.mma_flops), flops);
            cr_assert_eq(seen.count.bank_conflicts, 0u);
            cr_assert_eq(seen.count.write_conflicts, 0u);
            cr_assert(rate <= t.most * size, "%s: %.2f bytes per kFLOP", tsr_conv_forms[t.shape].name, rate);
        }
}

/* The longest sums of the published model, added as tensor cores add, are within what is allowed on a GPU. */
Test(conv, a_gpu_may_lose_what_tensor_cores_lose) {
    const struct {
        tsr_conv_shape shape;
        tsr_dtype in;
        shim::tensor_core adds;
        bool quick;
    } cores[] = {{TSR_CONV_K33J, TSR_E4M3, {32, 13, 13}, true}, {TSR_CONV_K33, TSR_E4M3, {16, 13, 13}, false},
        {TSR_CONV_K33, TSR_F16, {8, 24, 23}, false}};
    shim::exact_sums = false;
    for (auto &core : cores) {
        if (core.quick == (std::getenv("TSR_TEST_LONG") != nullptr))
            continue;
        conv_case c = conv_base(core.shape, core.in);
        c.cin = 512, c.h = c.w = 7;
        shim::adds = core.adds;
        std::string wrong = check_conv(c);
        cr_assert(wrong.empty(), "%s", wrong.c_str());
    }
}

/* Statistics, norm, attention and moves through the host shim. */
#include "checks.h"

#include <criterion/criterion.h>

#define GOOD(call)                                                                                 \
    do {                                                                                           \
        std::string wrong = call;                                                                  \
        cr_assert(wrong.empty(), "%s", wrong.c_str());                                             \
    } while (0)

Test(norm, every_type_and_width) {
    for (tsr_elem in : {TSR_ELEM_F16, TSR_ELEM_BF16})
        for (tsr_elem out : {TSR_ELEM_F16, TSR_ELEM_BF16, TSR_ELEM_E4M3, TSR_ELEM_U8})
            for (int channels : {32, 96, 128, 256, 512}) {
                norm_case c;
                c.in = in, c.out = out, c.c = channels, c.pixels = channels == 128 ? 137 : 45;
                GOOD(check_norm(c));
            }
}

Test(norm, without_silu_and_without_norm) {
    norm_case c;
    c.silu = false; /* before attention */
    GOOD(check_norm(c));
    c.norm = false; /* a raw stream */
    for (tsr_elem out : {TSR_ELEM_BF16, TSR_ELEM_E4M3, TSR_ELEM_U8}) {
        c.out = out;
        GOOD(check_norm(c));
    }
}

Test(norm, one_pixel) {
    norm_case c;
    c.pixels = 1, c.frames = 1, c.c = 512, c.out = TSR_ELEM_U8;
    GOOD(check_norm(c));
}

Test(range, never_shrinks_and_tells_what_is_not_finite) {
    norm_case c;
    c.out = TSR_ELEM_U8, c.before = 0.4f; /* more than these numbers need */
    GOOD(check_norm(c));
    c.before = 1e-4f, c.spoilt = INFINITY;
    GOOD(check_norm(c));
    c.spoilt = NAN;
    GOOD(check_norm(c));
    c.before = NAN, c.spoilt = -INFINITY;
    GOOD(check_norm(c));
}

Test(range, cached_codes_follow_it) {
    GOOD(check_requantise(true));
    GOOD(check_requantise(false));
}

Test(attention, wide_and_narrow_heads) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        attention_case c;
        c.bf16 = bf16;
        GOOD(check_attention(c)); /* 512 channels; the last tile of keys and queries is not full */
        c.c = 128, c.tokens = 130, c.frames = 2;
        GOOD(check_attention(c));
        c.c = 72, c.tokens = 5;
        GOOD(check_attention(c));
        c.c = 64, c.tokens = 1;
        GOOD(check_attention(c));
    }
}

Test(attention, sharp_softmax) {
    attention_case c;
    c.c = 64, c.tokens = 200,
    c.spread = 8; /* scores up to +-250: the running maximum rises often */
    GOOD(check_attention(c));
}

Test(moves, in_and_out) {
    GOOD(check_moves());
}

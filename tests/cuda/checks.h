/* Checks of single CUDA kernels, run through the host shim against plain references. Each returns
 * "" or what is wrong first. Used by the tests and, compiled with a planted fault, by the mutation
 * test. */
#ifndef TSR_TESTS_CUDA_CHECKS_H
#define TSR_TESTS_CUDA_CHECKS_H

#include "shim/shim.h"

extern "C" {
#include "backend/cuda/pack.h"
}

#include <string>

/* As printf. */
std::string text(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct conv_case {
    tsr_conv_shape shape = TSR_CONV_K33;
    tsr_dtype in = TSR_F16;
    tsr_elem out = TSR_ELEM_F16;
    int outputs = 1, kt = 3, st = 1;
    int past = 2; /* frames before frame 0, at most kt - 1 */
    int h = 8, w = 16, cin = 128, cout = 128;
    int y0 = 0, rows = 0; /* 0: all */
    int out_dt = 1;
    int pad = 1; /* above and left, of phase 0 */
    int classes = 1;
    bool accumulate = false, stats = true;
    int zero = 37;  /* U8 */
    float huge = 0; /* added to one input number, to make an output overflow */
    uint64_t seed = 1, schedule = 1;
};
struct conv_seen {
    shim::counters count;
    uint64_t hash; /* of every byte written */
};
std::string check_conv(const conv_case &c, conv_seen *seen = nullptr);
/* Of all convs checked so far, by what they multiply: how far sums were off and what is allowed, as parts of the
 * outputs' root mean square, where the first was the largest part of the second. */
std::string sum_errors();

struct norm_case {
    tsr_elem in = TSR_ELEM_F16, out = TSR_ELEM_F16;
    int frames = 2, pixels = 100, c = 128, pixels_per_tile = 32;
    int planes = 1; /* of u8 codes */
    bool norm = true, silu = true;
    float before = 1e-4f; /* scale of the codes that lie in the cache */
    float spoilt = 0;     /* takes the place of one input number: not finite */
    uint64_t seed = 1;
};
/* Statistics, reduction, range and norm, one after the other. */
std::string check_norm(const norm_case &c);
std::string check_requantise(bool changed);

struct attention_case {
    bool bf16 = false;
    int frames = 1, tokens = 100, c = 512;
    float spread = 1; /* of q and k: how sharp the softmax is */
    uint64_t seed = 1;
};
std::string check_attention(const attention_case &c);

std::string check_moves();

#endif

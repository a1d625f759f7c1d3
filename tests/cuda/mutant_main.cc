/* Runs the checks of one .cu file that the mutation test has put faults into (mutants.py); the argument says which of
 * them is live, 0: none. Exit status 1 where a check failed, and what it said. */
#include "checks.h"
#include "shim/kernels.h"

#include <cstdio>
#include <cstdlib>

static int tsr_fault;

#define ENTRY(name, args)                                                                                              \
    { #name, shim::entry < args, name>, sizeof(args) }

#if defined(MUTANT_CONV)
#include "conv.h"
TSR_CONV_KERNEL(u8, K33, 8, 128, 128, 3, 3, 1, 1, 2, 3)
TSR_CONV_KERNEL(f16, K22, 8, 128, 128, 2, 2, 1, 1, 2, 3)
TSR_CONV_KERNEL(f16, K33S, 8, 64, 128, 3, 3, 2, 1, 2, 3)
TSR_CONV_KERNEL(f16, K11, 8, 128, 128, 1, 1, 1, 1, 3, 3)
TSR_CONV_KERNEL_H(u8, K33J, 8, 128, 128, 3, 3, 1, 1, 2, 3)
static const shim::named_kernel all[] = {ENTRY(tsr_conv_u8_K33, tsr_conv_args), ENTRY(tsr_conv_f16_K11, tsr_conv_args),
    ENTRY(tsr_conv_f16_K22, tsr_conv_args), ENTRY(tsr_conv_f16_K33S, tsr_conv_args),
    ENTRY(tsr_conv_u8_K33J, tsr_conv_args)};

static std::string checks() {
    conv_case c;
    c.in = TSR_U8, c.h = 9, c.w = 18, c.kt = 2, c.past = 1, c.outputs = 2, c.accumulate = true;
    std::string wrong = check_conv(c);
    if (!wrong.empty())
        return wrong;
    c.shape = TSR_CONV_K33J, c.outputs = 1;
    wrong = check_conv(c);
    if (!wrong.empty())
        return wrong;
    c = conv_case();
    c.shape = TSR_CONV_K22, c.kt = 2, c.past = 1, c.classes = 4, c.h = 3, c.w = 5, c.cin = 64;
    wrong = check_conv(c);
    if (!wrong.empty())
        return wrong;
    c = conv_case();
    c.shape = TSR_CONV_K33S, c.kt = 1, c.past = 0, c.pad = 0, c.h = 10, c.w = 12, c.cin = 32;
    wrong = check_conv(c);
    if (!wrong.empty())
        return wrong;
    c.shape = TSR_CONV_K11;
    return check_conv(c);
}
#elif defined(MUTANT_ATTENTION)
#include "attention.cu"
static const shim::named_kernel all[] = {ENTRY(tsr_attention_f16, tsr_attention_args)};

static std::string checks() {
    attention_case c;
    c.c = 128, c.tokens = 200, c.spread = 3;
    std::string wrong = check_attention(c);
    c.tokens = 70, c.spread = 0.5f;
    return wrong.empty() ? check_attention(c) : wrong;
}
#else
#include "norm.cu"
static const shim::named_kernel all[] = {ENTRY(tsr_stats, tsr_stats_args), ENTRY(tsr_reduce, tsr_reduce_args),
    ENTRY(tsr_set_range, tsr_set_range_args), ENTRY(tsr_requantise, tsr_requantise_args),
    ENTRY(tsr_norm, tsr_norm_args)};

static std::string checks() {
    norm_case c;
    c.out = TSR_ELEM_U8;
    std::string wrong = check_norm(c);
    c.before = 0.4f;
    wrong = wrong.empty() ? check_norm(c) : wrong;
    c.spoilt = NAN;
    wrong = wrong.empty() ? check_norm(c) : wrong;
    c = {};
    c.out = TSR_ELEM_U8, c.planes = 2;
    wrong = wrong.empty() ? check_norm(c) : wrong;
    return wrong.empty() ? check_requantise(true) : wrong;
}
#endif

const shim::named_kernel *shim::find_kernel(const std::string &name) {
    for (const named_kernel &k : all)
        if (name == k.name)
            return &k;
    return nullptr;
}

int main(int, char **argv) {
    tsr_fault = std::atoi(argv[1]);
    std::string wrong = checks();
    std::printf("%s\n", wrong.c_str());
    return !wrong.empty();
}

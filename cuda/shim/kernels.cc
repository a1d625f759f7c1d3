#include "shim/kernels.h"

#include "tessera.cu"

namespace shim {

#define ENTRY(name, args)                                                                                              \
    { #name, entry < args, name>, sizeof(args) }
#define CONV(elem, name) ENTRY(tsr_conv_##elem##_##name, tsr_conv_args)
#define CONV_F16(name, ...) CONV(f16, name),
#define CONV_BF16(name, ...) CONV(bf16, name),
#define CONV_E4M3(name, ...) CONV(e4m3, name),
#define CONV_U8(name, ...) CONV(u8, name),

const std::vector<named_kernel> &kernels() {
    /* clang-format off */
    static const std::vector<named_kernel> all = {
        TSR_CONV_SHAPES(CONV_F16) TSR_CONV_SHAPES_H(CONV_F16)
        TSR_CONV_SHAPES_8(CONV_BF16) TSR_CONV_SHAPES_16(CONV_BF16) TSR_CONV_SHAPES_8H(CONV_BF16)
        TSR_CONV_SHAPES_8(CONV_E4M3) TSR_CONV_SHAPES_8H(CONV_E4M3)
        TSR_CONV_SHAPES_8(CONV_U8) TSR_CONV_SHAPES_8H(CONV_U8)
        ENTRY(tsr_stats, tsr_stats_args),
        ENTRY(tsr_reduce, tsr_reduce_args),
        ENTRY(tsr_set_range, tsr_set_range_args),
        ENTRY(tsr_requantise, tsr_requantise_args),
        ENTRY(tsr_norm, tsr_norm_args),
        ENTRY(tsr_attention_f16, tsr_attention_args),
        ENTRY(tsr_attention_bf16, tsr_attention_args),
        ENTRY(tsr_input, tsr_input_args),
        ENTRY(tsr_store, tsr_store_args),
    };
    /* clang-format on */
    return all;
}

const named_kernel *find_kernel(const std::string &name) {
    for (const named_kernel &k : kernels())
        if (name == k.name)
            return &k;
    return nullptr;
}

} // namespace shim

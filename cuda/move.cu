/* The ends of a step: pictures or latents in, finished frames out. */
#include "ptx.h"

extern "C" __global__ void __launch_bounds__(256, TSR_INPUT_BLOCKS)
    tsr_input(const __grid_constant__ tsr_input_args a) {
    const int64_t first = static_cast<int64_t>(blockIdx.x) * 1024 + threadIdx.x;
    for (int64_t i = first; i < first + 1024 && i < a.n; i += 256)
        stg(static_cast<uint16_t *>(a.out) + i, static_cast<uint16_t>(pack16(a.out_type, ldg(a.in + i), 0)));
}

extern "C" __global__ void __launch_bounds__(256, TSR_STORE_BLOCKS)
    tsr_store(const __grid_constant__ tsr_store_args a) {
    const int64_t pixel = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x, frame = blockIdx.y;
    if (pixel >= a.pixels)
        return;
    for (int c = 0; c < a.c; c++) {
        const int64_t from = (frame * a.pixels + pixel) * a.c + c, to = (frame * a.c + c) * a.pixels + pixel;
        const float v = a.in_type == TSR_ELEM_F32
                            ? ldg(static_cast<const float *>(a.in) + from)
                            : unpack16(a.in_type, ldg(static_cast<const uint16_t *>(a.in) + from), 0);
        if (a.out_type == TSR_ELEM_F32)
            stg(static_cast<float *>(a.out) + to, v);
        else
            stg(static_cast<uint16_t *>(a.out) + to, static_cast<uint16_t>(pack_f16(v, 0)));
    }
}

/* The shape of a convolution kernel, and where in the problem a block is (conv.h). */
#ifndef TSR_CUDA_CONV_PLACE_H
#define TSR_CUDA_CONV_PLACE_H

#include "ptx.h"

template <int TileH, int Chunk, int Couts, int Kh, int Kw, int Stride, int StepTaps, int HaloStages, int WeightStages,
    bool Warpgroup = false>
struct conv_shape {
    static constexpr bool warpgroup = Warpgroup; /* wgmma, not mma */
    static constexpr int tile_h = TileH, tile_w = TSR_CONV_TILE_W, chunk = Chunk, couts = Couts, kh = Kh, kw = Kw;
    static constexpr int stride = Stride, taps = Kh * Kw, step_taps = StepTaps, steps = taps / StepTaps;
    static constexpr int halo_stages = HaloStages, weight_stages = WeightStages;

    static constexpr int halo_h = (TileH - 1) * Stride + Kh, halo_w = (tile_w - 1) * Stride + Kw;
    static constexpr int pieces = Chunk / 16; /* of a pixel or weight row */
    static constexpr int halo_pieces = halo_h * halo_w * pieces, weight_pieces = StepTaps * Couts * pieces;
    static constexpr int halo_bytes = (TSR_CONV_HALO_BYTES(TileH, Chunk, Kh, Kw, Stride) + 127) / 128 * 128;
    static constexpr int weight_bytes = StepTaps * Couts * Chunk;
    static constexpr int shared =
        TSR_CONV_SHARED(TileH, Chunk, Couts, Kh, Kw, Stride, StepTaps, HaloStages, WeightStages);

    static constexpr int warps_n = Couts < 32 || Warpgroup ? 1 : Couts / 32, warps_m = 8 / warps_n;
    static constexpr int m_tiles = TileH / warps_m;            /* rows of 16 pixels a warp owns */
    static constexpr int n_tiles = Couts / 8 / warps_n;        /* groups of 8 channels a warp owns */
    static constexpr int bands = Couts < 32 ? 1 : n_tiles / 4; /* of 32 channels (or 8) */
    static constexpr int lane_channels = 2 * n_tiles / bands;  /* a lane's channels of a band */

    /* The halo of the next stage must be complete when its first step begins, and a step's copies
     * have weight_stages - 1 steps' time: these steps of a stage fetch pieces of the halo. */
    static constexpr int fetch_steps = steps == 1 ? 1 : steps - (WeightStages - 2);
    static constexpr int halo_turns = (halo_pieces + TSR_CONV_THREADS - 1) / TSR_CONV_THREADS;
    static constexpr int turns_a_step = (halo_turns + fetch_steps - 1) / fetch_steps;

    static_assert(taps % StepTaps == 0 && tile_h % warps_m == 0 && warps_m * warps_n == 8, "whole tiles");
    static_assert(
        steps == 1 ? HaloStages == WeightStages : HaloStages == 2 && steps >= WeightStages, "halos are in time");
    static_assert(shared <= (Warpgroup ? 227 : 99) << 10, "a block fits an SM of every target");
    static_assert(!Warpgroup || Couts == 128, "the width of the instruction");
    static_assert(weight_bytes % 1024 == 0 || !Warpgroup, "rows of 8 are swizzled by their address");
};

/* Position of a halo column in shared memory: with stride 2, even columns first, so that the
 * columns a tap reads are neighbours. */
template <class S> DEV int conv_column(int x) {
    return S::stride == 1 ? x : (x & 1) * ((S::halo_w + 1) / 2) + (x >> 1);
}

/* One block's place in the problem. */
struct conv_block {
    int n_block, tile, output, phase, p, r; /* (p, r): the phase's row and column */
    int oy, ox;                             /* first output row and column of the tile */
    int iy, ix;                             /* input row and column of the halo's corner */
    int chunks, stages;
    int zero; /* the code that stands for 0 */
};

template <class S, class E> DEV conv_block conv_place(const tsr_conv_args &a) {
    conv_block b;
    int phases = S::kh == 2 ? 4 : 1, tx = static_cast<int>(blockIdx.x) / a.n_blocks;
    b.n_block = static_cast<int>(blockIdx.x) - tx * a.n_blocks;
    b.output = static_cast<int>(blockIdx.z) / phases;
    b.phase = static_cast<int>(blockIdx.z) - b.output * phases;
    b.p = b.phase >> 1;
    b.r = b.phase & 1;
    int tiles_y = static_cast<int>(gridDim.y);
    b.tile = (b.phase * tiles_y + static_cast<int>(blockIdx.y)) * a.tiles_x + tx;
    b.oy = a.y0 + static_cast<int>(blockIdx.y) * S::tile_h;
    b.ox = tx * S::tile_w;
    b.iy = b.oy * S::stride - (a.pad_top - b.p);
    b.ix = b.ox * S::stride - (a.pad_left - b.r);
    b.chunks = (a.cin * E::bytes + S::chunk - 1) / S::chunk;
    b.stages = a.kt * b.chunks;
    b.zero = E::type == TSR_ELEM_U8 ? ldg(&a.range->zero) : 0;
    return b;
}

#endif

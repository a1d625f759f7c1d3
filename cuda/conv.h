/*
 * The convolution kernel: implicit GEMM on tensor cores, input pixels with their halo resident in
 * shared memory, pre-packed weights streaming through. backend/cuda/kernels.h says what it
 * computes; this is how.
 *
 * A block's 256 threads are 8 warps, `warps_m` down the tile's rows and `warps_n` across its output
 * channels. A warp owns tile_h / warps_m rows of 16 pixels (each row one m16 tile of the tensor
 * core) times 32 output channels (or 8). Where Hopper's warpgroups multiply (wgmma), four warps each
 * bring a row of pixels in registers and all share the 128 channels' weights, which the tensor core
 * reads from shared memory; swizzle and rows are as it wants them, and only conv_tap differs.
 *
 * The k loop runs over stages (one time tap, one chunk of channels) and, inside, over steps (one
 * spatial tap, or all of them where there is little to do in a tap). A spatial tap is only a shift
 * of the address ldmatrix reads from. Copies run ahead by WeightStages-1 steps; the next stage's
 * halo is fetched piece by piece during this one's steps. Every step commits exactly one group of
 * copies, empty or not, so a fixed number of groups is in flight.
 *
 * Banks: a pixel (or weight row) is `chunk` bytes; its 16-byte pieces are XORed with the column
 * (row) number, so the 8 rows that ldmatrix reads at once are in 8 different bank groups. As the
 * XOR touches address bits 4..6 only, stepping along k is one more XOR.
 *
 * Registers and shared memory: at most 255 and 99 KiB, so one block runs per SM on sm_86, 89 and
 * 120. On Hopper 227 KiB.
 */
#ifndef TSR_CUDA_CONV_H
#define TSR_CUDA_CONV_H

#include "conv_finish.h"

/* ---------------------------------------------------------------- global to shared memory */

/* What a stage reads: a chunk of channels of one input frame. */
struct conv_stage {
    const uint8_t *frame; /* pixel 0, first byte of the chunk; NULL beyond the last stage */
    int bytes;            /* of the chunk that exist */
};

template <class S, class E> DEV conv_stage conv_stage_at(const tsr_conv_args &a, const conv_block &b, int s) {
    if (s >= b.stages)
        return {nullptr, 0};
    int tap = s / b.chunks, chunk = s - tap * b.chunks, frame = a.t0 + b.output * a.st + tap - (a.kt - 1);
    const uint8_t *base = static_cast<const uint8_t *>(frame < 0 ? a.past : a.in);
    int64_t pixel_bytes = a.cin * E::bytes;
    return {base + frame * (pixel_bytes * a.h * a.w) + chunk * S::chunk, a.cin * E::bytes - chunk * S::chunk};
}

/* Pixels that are no row of 16-byte pieces, element by element: conv_in of pictures. */
template <class E> DEV vec4 conv_gather(const uint8_t *from, int bytes, uint32_t fill) {
    vec4 v = {{fill, fill, fill, fill}};
#pragma unroll
    for (int i = 0; i < 16 / E::bytes; i++) {
        if (i * E::bytes >= bytes)
            continue;
        uint32_t bits = E::bytes == 2 ? ldg(reinterpret_cast<const uint16_t *>(from) + i) : ldg(from + i);
        uint32_t mask = E::bytes == 2 ? 0xffffu : 0xffu, shift = i * E::bytes % 4 * 8;
        uint32_t &word = v.x[i * E::bytes / 4];
        word = (word & ~(mask << shift)) | bits << shift;
    }
    return v;
}

/* This thread's share of the halo, turns [from, to). */
template <class S, class E>
DEV void conv_load_halo(
    const tsr_conv_args &a, const conv_block &b, const conv_stage &s, uint32_t halo, int from, int to) {
    if (!s.frame)
        return;
    const uint32_t fill = static_cast<uint32_t>(b.zero) * 0x01010101u;
    for (int turn = from; turn < to; turn++) {
        int q = turn * TSR_CONV_THREADS + static_cast<int>(threadIdx.x);
        if (q >= S::halo_pieces)
            break;
        int pixel = q / S::pieces, c = q % S::pieces, hy = pixel / S::halo_w, hx = pixel % S::halo_w;
        int y = b.iy + hy, x = b.ix + hx, column = conv_column<S>(hx);
        uint32_t to_piece =
            halo + (hy * S::halo_w + column) * S::chunk + ((c ^ TSR_CONV_SWIZZLE(column, S::chunk)) << 4);
        const uint8_t *p = s.frame + (static_cast<int64_t>(y) * a.w + x) * (a.cin * E::bytes) + c * 16;
        bool there = static_cast<unsigned>(y) < static_cast<unsigned>(a.h) &&
                     static_cast<unsigned>(x) < static_cast<unsigned>(a.w) && c * 16 < s.bytes;
        if (!there)
            sts128(to_piece, {{fill, fill, fill, fill}});
        else if (S::chunk == 32 && (a.cin * E::bytes) % 16)
            sts128(to_piece, conv_gather<E>(p, s.bytes - c * 16, fill));
        else
            cp_async16(to_piece, p);
    }
}

template <class S> DEV void conv_load_weights(const uint8_t *stream, int step, int steps, uint32_t to) {
    if (step >= steps)
        return;
    const uint8_t *from = stream + static_cast<int64_t>(step) * S::weight_bytes;
#pragma unroll
    for (int i = 0; i < (S::weight_pieces + TSR_CONV_THREADS - 1) / TSR_CONV_THREADS; i++) {
        int q = i * TSR_CONV_THREADS + static_cast<int>(threadIdx.x);
        if (S::weight_pieces % TSR_CONV_THREADS == 0 || q < S::weight_pieces)
            cp_async16(to + q * 16, from + q * 16);
    }
}

/* ---------------------------------------------------------------- multiply */

/* acc += one spatial tap: `chunk` bytes of k for the warp's pixels and channels. halo and weights
 * are this lane's addresses of the tap. */
template <class S, class E>
DEV void conv_tap_warpgroup(typename E::acc (&acc)[S::m_tiles][S::n_tiles][4], uint32_t halo, uint32_t weights) {
    constexpr int row = S::stride * S::halo_w * S::chunk, steps = S::chunk / 32;
    uint32_t a[steps][S::m_tiles][4]; /* registers stay as they are until the product is done */
#pragma unroll
    for (int k = 0; k < steps; k++) {
#pragma unroll
        for (int i = 0; i < S::m_tiles; i++)
            ldmatrix4(a[k][i], (halo ^ (k << 5)) + i * row);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < S::m_tiles; i++)
            wgmma(E(), acc[i], a[k][i], wgmma_rows(weights + (k << 5), S::chunk));
        wgmma_commit();
    }
    wgmma_wait();
#pragma unroll
    for (int i = 0; i < S::m_tiles; i++)
        wgmma_sums_done(acc[i]);
}

template <class S, class E>
DEV void conv_tap(typename E::acc (&acc)[S::m_tiles][S::n_tiles][4], uint32_t halo, uint32_t weights) {
    constexpr int row = S::stride * S::halo_w * S::chunk; /* from one row of output pixels to the next */
#pragma unroll
    for (int k = 0; k < S::chunk / 32; k++) {
        uint32_t b[S::n_tiles][2];
        if constexpr (S::n_tiles == 1) {
            ldmatrix2(b[0], weights ^ (k << 5));
        } else {
#pragma unroll
            for (int j = 0; j < S::n_tiles; j += 2) {
                uint32_t pair[4];
                ldmatrix4(pair, (weights ^ (k << 5)) + j * 8 * S::chunk);
                b[j][0] = pair[0], b[j][1] = pair[1], b[j + 1][0] = pair[2], b[j + 1][1] = pair[3];
            }
        }
#pragma unroll
        for (int i = 0; i < S::m_tiles; i++) {
            uint32_t a[4];
            ldmatrix4(a, (halo ^ (k << 5)) + i * row);
#pragma unroll
            for (int j = 0; j < S::n_tiles; j++)
                mma(E(), acc[i][j], a, b[j][0], b[j][1]);
        }
    }
}

template <class S, class E>
DEV void conv_multiply(const tsr_conv_args &a, const conv_block &b, typename E::acc (&acc)[S::m_tiles][S::n_tiles][4]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, wm = warp % S::warps_m, wn = warp / S::warps_m;
    const uint32_t streams = shared_memory(), halos = streams + S::weight_stages * S::weight_bytes;
    const int steps = b.stages * S::steps;
    const uint8_t *stream = static_cast<const uint8_t *>(a.weights) +
                            static_cast<int64_t>(b.phase * a.n_blocks + b.n_block) * steps * S::weight_bytes;

    /* ldmatrix.x4 of pixels: lanes 0..15 the 16 pixels' first 16 bytes, lanes 16..31 their second.
     * Of weights: lanes 0..7 eight rows' first, 8..15 their second 16 bytes, 16..31 the next eight
     * rows likewise. */
    const int row = S::n_tiles == 1 ? lane & 7 : wn * 32 + (lane >> 4) * 8 + (lane & 7);
    const uint32_t weight_lane =
        S::warpgroup ? 0 : row * S::chunk + ((((lane >> 3) & 1) ^ TSR_CONV_SWIZZLE(row, S::chunk)) << 4);
    const uint32_t halo_lane = wm * S::m_tiles * (S::stride * S::halo_w * S::chunk);

    for (int i = 0; i < S::weight_stages - 1; i++) {
        if (i < S::halo_stages - 1)
            conv_load_halo<S, E>(a, b, conv_stage_at<S, E>(a, b, i), halos + i * S::halo_bytes, 0, S::halo_turns);
        conv_load_weights<S>(stream, i, steps, streams + i * S::weight_bytes);
        cp_commit();
    }

    int step = 0, weight_slot = 0, halo_slot = 0;
    for (int s = 0; s < b.stages; s++) {
        const uint32_t halo = halos + halo_slot * S::halo_bytes;
        const int next_halo = halo_slot == 0 ? S::halo_stages - 1 : halo_slot - 1; /* free since the stage before */
        const conv_stage ahead = conv_stage_at<S, E>(a, b, s + S::halo_stages - 1);
        int ky = 0, kx = 0;
#pragma unroll 1
        for (int i = 0; i < S::steps; i++, step++) {
            cp_wait<S::weight_stages - 2>();
            if constexpr (S::warpgroup)
                wgmma_publish();
            block_sync(); /* this step's data is there for all, and all have left the slots that are
                             filled next */
            if (i < S::fetch_steps)
                conv_load_halo<S, E>(a, b, ahead, halos + next_halo * S::halo_bytes, i * S::turns_a_step,
                    i + 1 == S::fetch_steps ? S::halo_turns : (i + 1) * S::turns_a_step);
            const int next_weights = weight_slot == 0 ? S::weight_stages - 1 : weight_slot - 1;
            conv_load_weights<S>(stream, step + S::weight_stages - 1, steps, streams + next_weights * S::weight_bytes);
            cp_commit();

            uint32_t weights = streams + weight_slot * S::weight_bytes + weight_lane;
#pragma unroll 1
            for (int tap = 0; tap < S::step_taps; tap++) {
                const int column = conv_column<S>(kx) + (lane & 15);
                const uint32_t pixels = halo + halo_lane + (ky * S::halo_w + column) * S::chunk +
                                        (((lane >> 4) ^ TSR_CONV_SWIZZLE(column, S::chunk)) << 4);
                if constexpr (S::warpgroup)
                    conv_tap_warpgroup<S, E>(acc, pixels, weights);
                else
                    conv_tap<S, E>(acc, pixels, weights);
                weights += S::couts * S::chunk;
                if (++kx == S::kw)
                    kx = 0, ky++;
            }
            weight_slot = weight_slot + 1 == S::weight_stages ? 0 : weight_slot + 1;
        }
        halo_slot = halo_slot + 1 == S::halo_stages ? 0 : halo_slot + 1;
    }
}

template <class E, class S> DEV void conv(const tsr_conv_args &a) {
    const conv_block b = conv_place<S, E>(a);
    typename E::acc acc[S::m_tiles][S::n_tiles][4];
#pragma unroll
    for (int i = 0; i < S::m_tiles; i++)
#pragma unroll
        for (int j = 0; j < S::n_tiles; j++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                acc[i][j][k] = 0;
    conv_multiply<S, E>(a, b, acc);
    conv_finish<S, E>(a, b, acc);
}

#define TSR_CONV_KERNEL_OF(elem, name, ...)                                                                            \
    extern "C" __global__ void __launch_bounds__(TSR_CONV_THREADS, TSR_CONV_BLOCKS)                                    \
        tsr_conv_##elem##_##name(const __grid_constant__ tsr_conv_args a) {                                            \
        conv<elem_##elem, conv_shape<__VA_ARGS__>>(a);                                                                 \
    }
#define TSR_CONV_KERNEL(elem, name, ...) TSR_CONV_KERNEL_OF(elem, name, __VA_ARGS__)
#define TSR_CONV_KERNEL_H(elem, name, ...) TSR_CONV_KERNEL_OF(elem, name, __VA_ARGS__, true)

#if defined(TSR_SHIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TSR_CONV_HOPPER 1
#endif

#endif

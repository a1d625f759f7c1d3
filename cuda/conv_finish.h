/* The end of a convolution (conv.h): accumulators to values, onto the residual, to memory; their statistics. */
#ifndef TSR_CUDA_CONV_FINISH_H
#define TSR_CUDA_CONV_FINISH_H

#include "conv_place.h"

/* Adds v to what is stored at p, if told to; stores it, rounded; gives back the rounded values. N
 * is 8 or, where channels lie singly, 2. */
template <int N> DEV void conv_store(const tsr_conv_args &a, int64_t at, int channels, float (&v)[N]) {
    if constexpr (N == 8) {
        vec4 *p = reinterpret_cast<vec4 *>(static_cast<uint16_t *>(a.out) + at), packed;
        if (a.accumulate) {
            packed = ldg(p);
#pragma unroll
            for (int c = 0; c < 8; c++)
                v[c] += unpack16(a.out_type, packed.x[c / 2], c & 1);
        }
#pragma unroll
        for (int c = 0; c < 8; c += 2) {
            packed.x[c / 2] = pack16(a.out_type, v[c], v[c + 1]);
            v[c] = unpack16(a.out_type, packed.x[c / 2], 0);
            v[c + 1] = unpack16(a.out_type, packed.x[c / 2], 1);
        }
        stg(p, packed);
    } else {
        for (int c = 0; c < N; c++) {
            if (c >= channels) {
                v[c] = 0;
            } else if (a.out_type == TSR_ELEM_F32) {
                float *p = static_cast<float *>(a.out) + at + c;
                v[c] += a.accumulate ? ldg(p) : 0;
                stg(p, v[c]);
            } else {
                uint16_t *p = static_cast<uint16_t *>(a.out) + at + c;
                v[c] += a.accumulate ? unpack16(a.out_type, ldg(p), 0) : 0;
                uint32_t rounded = pack16(a.out_type, v[c], 0);
                stg(p, static_cast<uint16_t>(rounded));
                v[c] = unpack16(a.out_type, rounded, 0);
            }
        }
    }
}

/* Sums and extremes of the channels a lane holds. */
template <int N> struct conv_stats { float sum[N], squares[N], least[N], most[N]; };

/* Where a channel's 16 bytes lie, so that neither lanes 8 channels apart nor neighbours share a
 * bank. */
template <class S> DEV uint32_t conv_stats_at(int wm, int channel) {
    return shared_memory() + (wm * S::couts + (channel ^ (channel >> 3 & 7))) * 16;
}

/* Of a warp's pixels: over lanes of equal lane%4, which hold the same channels. */
template <class S, int N> DEV void conv_gather_stats(conv_stats<N> &t, int lane, int wm, int in_block) {
#pragma unroll
    for (int c = 0; c < N; c++) {
#pragma unroll
        for (int m = 4; m < 32; m <<= 1) {
            t.sum[c] += shfl_xor(t.sum[c], m);
            t.squares[c] += shfl_xor(t.squares[c], m);
            t.least[c] = fminf(t.least[c], shfl_xor(t.least[c], m));
            t.most[c] = fmaxf(t.most[c], shfl_xor(t.most[c], m));
        }
        if (lane < 4)
            sts128(conv_stats_at<S>(wm, in_block + c),
                {{as_bits(t.sum[c]), as_bits(t.squares[c]), as_bits(t.least[c]), as_bits(t.most[c])}});
    }
}

/* Over the warps down the tile. */
template <class S> DEV void conv_store_stats(const tsr_conv_args &a, const conv_block &b) {
    const int c = threadIdx.x, channel = b.n_block * S::couts + c;
    if (c >= S::couts || channel >= a.cout)
        return;
    float sum = 0, squares = 0, least = INFINITY, most = -INFINITY;
    for (int w = 0; w < S::warps_m; w++) {
        const vec4 v = lds128(conv_stats_at<S>(w, c));
        sum += as_float(v.x[0]);
        squares += as_float(v.x[1]);
        least = fminf(least, as_float(v.x[2]));
        most = fmaxf(most, as_float(v.x[3]));
    }
    const int tiles = (S::kh == 2 ? 4 : 1) * static_cast<int>(gridDim.y) * a.tiles_x;
    const int64_t at = (static_cast<int64_t>(b.output) * tiles + b.tile) * a.cout + channel;
    stg(reinterpret_cast<vec2 *>(a.partial + at * 2), {{as_bits(sum), as_bits(squares)}});
    if (a.extremes)
        stg(a.extremes + at, pack16(a.out_type, least, most));
}

/* What turns a lane's sums of products into values. */
template <class E, int N> struct conv_affine {
    float scale[N], bias[N];
    int32_t correction[N];
};
template <class E, int N>
DEV conv_affine<E, N> conv_affine_at(const tsr_conv_args &a, const conv_block &b, int n, int n_padded) {
    conv_affine<E, N> f;
    const float activations = E::type == TSR_ELEM_U8 ? ldg(&a.range->scale) : 1.0f;
#pragma unroll
    for (int c = 0; c < N; c++) {
        f.scale[c] = E::bytes == 1 ? ldg(a.scale + b.phase * n_padded + n + c) * activations : 1.0f;
        f.correction[c] = E::type == TSR_ELEM_U8 ? ldg(a.weight_sum + b.phase * n_padded + n + c) * b.zero : 0;
        f.bias[c] = ldg(a.bias + b.phase * a.classes * n_padded + n + c);
    }
    return f;
}

/* One band of the warp's channels: accumulators to values, to memory, to statistics. */
template <class S, class E>
DEV void conv_finish_band(
    const tsr_conv_args &a, const conv_block &b, int band, typename E::acc (&acc)[S::m_tiles][S::n_tiles][4]) {
    constexpr int N = S::lane_channels, up = S::kh == 2 ? 2 : 1;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, wm = warp % S::warps_m, wn = warp / S::warps_m;
    const int in_block = (wn * S::bands + band) * 32 + (lane & 3) * N,
              n = b.n_block * S::couts + in_block; /* this lane's first channel */
    const int n_padded = a.n_blocks * S::couts;
    conv_affine<E, N> f = conv_affine_at<E, N>(a, b, n, n_padded);
    conv_stats<N> stats;
    bool bad = false;
#pragma unroll
    for (int c = 0; c < N; c++) {
        stats.sum[c] = stats.squares[c] = 0;
        stats.least[c] = INFINITY;
        stats.most[c] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < S::m_tiles; i++) {
        const int y = b.oy + wm * S::m_tiles + i;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int x = b.ox + half * 8 + (lane >> 2);
            if (y >= a.y0 + a.rows || x >= a.cols || n >= a.cout)
                continue;
            if (S::kh == 2 && a.classes == 4) { /* the same for nearly all pixels, so mostly cached loads */
                const int ey = b.p ? y == a.h - 1 : y == 0, ex = b.r ? x == a.w - 1 : x == 0;
#pragma unroll
                for (int c = 0; c < N; c++)
                    f.bias[c] = ldg(a.bias + ((b.phase * 4 + ey * 2 + ex) * n_padded + n + c));
            }
            float v[N];
#pragma unroll
            for (int c = 0; c < N; c++)
                v[c] = static_cast<float>(acc[i][band * 4 + c / 2][half * 2 + (c & 1)] - f.correction[c]) * f.scale[c] +
                       f.bias[c];
            const int64_t row = static_cast<int64_t>(b.output) * a.out_dt * a.out_h + up * y + b.p;
            conv_store<N>(a, (row * a.out_w + up * x + b.r) * a.cout + n, a.cout - n, v);
#pragma unroll
            for (int c = 0; c < N; c++) {
                stats.sum[c] += v[c];
                stats.squares[c] += v[c] * v[c];
                stats.least[c] = fminf(stats.least[c], v[c]);
                stats.most[c] = fmaxf(stats.most[c], v[c]);
                bad |= (as_bits(v[c]) & 0x7f800000u) == 0x7f800000u;
            }
        }
    }
    if (bad)
        stg(a.flag, a.flag_value);
    if (a.partial)
        conv_gather_stats<S, N>(stats, lane, wm, in_block);
}

template <class S, class E>
DEV void conv_finish(const tsr_conv_args &a, const conv_block &b, typename E::acc (&acc)[S::m_tiles][S::n_tiles][4]) {
    if (a.partial)
        block_sync(); /* all warps have left the last step's data, and no copy is on its way */
#pragma unroll
    for (int band = 0; band < S::bands; band++)
        conv_finish_band<S, E>(a, b, band, acc);
    if (!a.partial)
        return;
    block_sync();
    conv_store_stats<S>(a, b);
}

#endif

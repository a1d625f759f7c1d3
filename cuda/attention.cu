/*
 * Attention with one wide head (up to 512 channels), scores kept on chip.
 *
 * A block takes 64 queries and walks over all keys, 64 at a time. Q stays in shared memory; K and V
 * stream through a ring of 64 x 64-channel chunks: for each tile of keys first K's chunks (scores
 * += Q chunk * K chunk), then V's (outputs += P * V chunk). 8 warps:
 *
 *   scores   warp w: queries 16*(w%4).., keys 32*(w/4)..: one m16 by four n8 tiles
 *   outputs  warp w: all 64 queries, channels 64*j + 8*w.. of every chunk j: 8 chunks x 4 m16
 * tiles, 128 registers
 *
 * The softmax is carried along: per row the maximum so far and the sum of exponentials; outputs are
 * rescaled when the maximum rises. P passes from the first split to the second through shared
 * memory, rounded to the operands' type.
 */
#include "ptx.h"

namespace {

constexpr int rows = TSR_ATTENTION_TOKENS, max_chunks = 8, stages = TSR_ATTENTION_STAGES;
constexpr int chunk_bytes = rows * 128;

struct places { /* shared memory */
    uint32_t q, ring, p, part, factor;
};
DEV places attention_places() {
    places s;
    s.q = shared_memory();
    s.ring = s.q + max_chunks * chunk_bytes;
    s.p = s.ring + stages * chunk_bytes;
    s.part = s.p + chunk_bytes;       /* [2][64] f32: each half of the keys' maximum, at the end the sum */
    s.factor = s.part + 2 * rows * 4; /* [64] f32 */
    return s;
}

/* Piece c (16 bytes) of a row of 128 bytes, where ldmatrix finds 8 rows' equal pieces in 8
 * different bank groups. */
DEV uint32_t piece(int row, int c) {
    return row * 128 + ((c ^ (row & 7)) << 4);
}

/* 64 tokens x 64 channels of q, k or v, from token `first` on; zeros beyond the last token and
 * channel. */
DEV void load_chunk(const tsr_attention_args &a, const uint16_t *base, int first, int channel, uint32_t to) {
#pragma unroll
    for (int i = 0; i < rows * 8 / 256; i++) {
        const int q = i * 256 + static_cast<int>(threadIdx.x), row = q / 8, c = q % 8;
        if (first + row < a.tokens && channel + c * 8 < a.c)
            cp_async16(to + piece(row, c), base + static_cast<int64_t>(first + row) * (3 * a.c) + channel + c * 8);
        else
            sts128(to + piece(row, c), {{0, 0, 0, 0}});
    }
}

/* The stream of chunks: for each tile of keys all of K's, then all of V's. */
DEV void load_ahead(
    const tsr_attention_args &a, const uint16_t *frame, const places &s, int index, int chunks, int total) {
    if (index < total) {
        const int tile = index / (2 * chunks), within = index - tile * 2 * chunks, v = within >= chunks;
        load_chunk(
            a, frame + (1 + v) * a.c, tile * rows, (within - v * chunks) * 64, s.ring + index % stages * chunk_bytes);
    }
    cp_commit();
}

/* score[4][4] of one warp += Q chunk * K chunk. */
template <class E> DEV void scores_add(float (&score)[4][4], uint32_t q, uint32_t k, int lane, int wq, int wk) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t a[4], b[4];
        ldmatrix4(a, q + piece(wq * 16 + (lane & 15), 2 * i + (lane >> 4)));
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            const int row = wk * 32 + j * 8 + (lane >> 4) * 8 + (lane & 7);
            ldmatrix4(b, k + piece(row, 2 * i + ((lane >> 3) & 1)));
            mma(E(), score[j], a, b[0], b[1]);
            mma(E(), score[j + 1], a, b[2], b[3]);
        }
    }
}

DEV float row_max(float v) { /* over the 4 lanes that share a row */
    v = fmaxf(v, shfl_xor(v, 1));
    return fmaxf(v, shfl_xor(v, 2));
}

struct softmax_row {
    float max, sum; /* of this lane's keys, relative to max */
};

/* Scores to weights: exponentials relative to the rows' running maximum, to shared memory as P.
 * Leaves in `factor` what the outputs so far must be multiplied by. */
template <class E>
DEV void softmax_step(const tsr_attention_args &a, const places &s, float (&score)[4][4], softmax_row (&state)[2],
    int lane, int wq, int wk, int first_key) {
    const float to_log2 = a.scale * 1.44269504f;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = -INFINITY;
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &v = score[j][half * 2 + e];
                const int key = first_key + wk * 32 + j * 8 + (lane & 3) * 2 + e;
                v = key < a.tokens ? v * to_log2 : -INFINITY;
                most = fmaxf(most, v);
            }
        most = row_max(most);
        if ((lane & 3) == 0)
            sts32(s.part + (wk * rows + wq * 16 + half * 8 + (lane >> 2)) * 4, as_bits(most));
    }
    block_sync();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = wq * 16 + half * 8 + (lane >> 2);
        const float other = fmaxf(as_float(lds32(s.part + row * 4)), as_float(lds32(s.part + (rows + row) * 4)));
        /* Of nothing but -inf a finite number: they weigh 0, not exp2(-inf + inf). */
        const float most = fmaxf(fmaxf(state[half].max, other), -3.4028235e38f);
        const float factor = exp2_fast(state[half].max - most);
        state[half].max = most;
        state[half].sum *= factor;
        if (wk == 0 && (lane & 3) == 0)
            sts32(s.factor + row * 4, as_bits(factor));
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t p =
                pack16(E::type, exp2_fast(score[j][half * 2] - most), exp2_fast(score[j][half * 2 + 1] - most));
            state[half].sum += unpack16(E::type, p, 0) + unpack16(E::type, p, 1);
            sts32(s.p + piece(row, wk * 4 + j) + (lane & 3) * 4, p);
        }
    }
}

template <class E> DEV void attention(const tsr_attention_args &a) {
    const places s = attention_places();
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, wq = warp & 3, wk = warp >> 2;
    const int first = blockIdx.x * rows, chunks = (a.c + 63) / 64, tiles = (a.tokens + rows - 1) / rows;
    const int total = tiles * 2 * chunks;
    const uint16_t *frame =
        static_cast<const uint16_t *>(a.qkv) + static_cast<int64_t>(blockIdx.y) * a.tokens * (3 * a.c);

    float out[max_chunks][4][4] = {};
    softmax_row state[2] = {{-INFINITY, 0}, {-INFINITY, 0}};
    for (int j = 0; j < chunks; j++)
        load_chunk(a, frame, first, j * 64, s.q + j * chunk_bytes);
    for (int i = 0; i < stages - 1; i++)
        load_ahead(a, frame, s, i, chunks, total);

    int index = 0;
    for (int tile = 0; tile < tiles; tile++) {
        float score[4][4] = {};
        for (int j = 0; j < chunks; j++, index++) {
            cp_wait<stages - 2>();
            block_sync();
            load_ahead(a, frame, s, index + stages - 1, chunks, total);
            scores_add<E>(score, s.q + j * chunk_bytes, s.ring + index % stages * chunk_bytes, lane, wq, wk);
        }
        softmax_step<E>(a, s, score, state, lane, wq, wk, tile * rows);

        uint32_t p[4][4][4]; /* queries, keys: kept while V's chunks pass */
#pragma unroll
        for (int j = 0; j < max_chunks; j++) {
            if (j >= chunks)
                break;
            cp_wait<stages - 2>();
            block_sync();
            load_ahead(a, frame, s, index + stages - 1, chunks, total);
            if (j == 0) {
#pragma unroll
                for (int m = 0; m < 4; m++) {
#pragma unroll
                    for (int k = 0; k < 4; k++)
                        ldmatrix4(p[m][k], s.p + piece(m * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float factor = as_float(lds32(s.factor + (m * 16 + (i >> 1) * 8 + (lane >> 2)) * 4));
#pragma unroll
                        for (int n = 0; n < max_chunks; n++)
                            out[n][m][i] *= factor;
                    }
                }
            }
            const uint32_t v = s.ring + index % stages * chunk_bytes;
#pragma unroll
            for (int k = 0; k < 4; k += 2) {
                uint32_t b[4];
                ldmatrix4_trans(b, v + piece(k * 16 + lane, warp));
#pragma unroll
                for (int m = 0; m < 4; m++) {
                    mma(E(), out[j][m], p[m][k], b[0], b[1]);
                    mma(E(), out[j][m], p[m][k + 1], b[2], b[3]);
                }
            }
            index++;
        }
    }

#pragma unroll
    for (int half = 0; half < 2; half++) { /* all of a row's lanes, then both halves of the keys */
        float sum = state[half].sum;
        sum += shfl_xor(sum, 1);
        sum += shfl_xor(sum, 2);
        if ((lane & 3) == 0)
            sts32(s.part + (wk * rows + wq * 16 + half * 8 + (lane >> 2)) * 4, as_bits(sum));
    }
    block_sync();
    uint16_t *to = static_cast<uint16_t *>(a.out) + static_cast<int64_t>(blockIdx.y) * a.tokens * a.c;
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = m * 16 + half * 8 + (lane >> 2), token = first + row;
            const float sum = as_float(lds32(s.part + row * 4)) + as_float(lds32(s.part + (rows + row) * 4));
#pragma unroll
            for (int j = 0; j < max_chunks; j++) {
                const int channel = j * 64 + warp * 8 + (lane & 3) * 2;
                if (token < a.tokens && channel < a.c)
                    stg(reinterpret_cast<uint32_t *>(to + static_cast<int64_t>(token) * a.c + channel),
                        pack16(E::type, out[j][m][half * 2] / sum, out[j][m][half * 2 + 1] / sum));
            }
        }
}

} // namespace

extern "C" __global__ void __launch_bounds__(256, TSR_ATTENTION_BLOCKS)
    tsr_attention_f16(const __grid_constant__ tsr_attention_args a) {
    attention<elem_f16>(a);
}
extern "C" __global__ void __launch_bounds__(256, TSR_ATTENTION_BLOCKS)
    tsr_attention_bf16(const __grid_constant__ tsr_attention_args a) {
    attention<elem_bf16>(a);
}

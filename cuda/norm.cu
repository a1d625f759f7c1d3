/*
 * GroupNorm's statistics and the pass that normalises, activates and quantises. All are bound by
 * memory: a thread owns 8 neighbouring channels (16 bytes) and walks over pixels, so what depends
 * on the channel stays in registers.
 *
 * Sums go up in a fixed order (thread, block, f64 over blocks), so that equal input gives equal
 * bits.
 */
#include "ptx.h"

namespace {

/* How 256 threads share pixels of c channels: `lanes` pixels at a time, 8 channels a thread. */
struct octets {
    int lane, lanes, channel;
    bool used;
};
DEV octets my_octet(int c) {
    const int each = c / 8, tid = threadIdx.x;
    octets o;
    o.lanes = 256 / each;
    o.lane = tid / each;
    o.channel = (tid - o.lane * each) * 8;
    o.used = o.lane < o.lanes;
    return o;
}

DEV void load8(float (&v)[8], const void *base, int type, int64_t at) {
    const vec4 q = ldg(reinterpret_cast<const vec4 *>(static_cast<const uint16_t *>(base) + at));
#pragma unroll
    for (int c = 0; c < 8; c++)
        v[c] = unpack16(type, q.x[c / 2], c & 1);
}

/* Mean and 1/deviation of a group; f64, for the difference below cancels. */
struct moments {
    float mean, inverse;
};
DEV moments group_moments(const double *sums, int64_t group, double n, float eps) {
    const double mean = ldg(sums + group * 2) / n, variance = ldg(sums + group * 2 + 1) / n - mean * mean;
    return {static_cast<float>(mean), 1.0f / sqrtf(static_cast<float>(variance > 0 ? variance : 0) + eps)};
}

} // namespace

/* ---------------------------------------------------------------- statistics */

extern "C" __global__ void __launch_bounds__(256, TSR_STATS_BLOCKS)
    tsr_stats(const __grid_constant__ tsr_stats_args a) {
    const octets o = my_octet(a.c);
    const int tile = blockIdx.x, frame = blockIdx.y, first = tile * a.pixels_per_tile;
    const int end = a.pixels - first < a.pixels_per_tile ? a.pixels : first + a.pixels_per_tile;
    float sum[8], squares[8], least[8], most[8];
#pragma unroll
    for (int c = 0; c < 8; c++) {
        sum[c] = squares[c] = 0;
        least[c] = INFINITY;
        most[c] = -INFINITY;
    }
    if (o.used) {
        for (int p = first + o.lane; p < end; p += o.lanes) {
            float v[8];
            load8(v, a.in, a.type, (static_cast<int64_t>(frame) * a.pixels + p) * a.c + o.channel);
#pragma unroll
            for (int c = 0; c < 8; c++) {
                sum[c] += v[c];
                squares[c] += v[c] * v[c];
                least[c] = fminf(least[c], v[c]);
                most[c] = fmaxf(most[c], v[c]);
            }
        }
#pragma unroll
        for (int c = 0; c < 8; c++)
            sts128(shared_memory() + (o.lane * a.c + o.channel + c) * 16,
                {{as_bits(sum[c]), as_bits(squares[c]), as_bits(least[c]), as_bits(most[c])}});
    }
    block_sync();
    for (int c = threadIdx.x; c < a.c; c += 256) {
        float total = 0, total_squares = 0, low = INFINITY, high = -INFINITY;
        for (int l = 0; l < o.lanes; l++) {
            const vec4 v = lds128(shared_memory() + (l * a.c + c) * 16);
            total += as_float(v.x[0]);
            total_squares += as_float(v.x[1]);
            low = fminf(low, as_float(v.x[2]));
            high = fmaxf(high, as_float(v.x[3]));
        }
        const int64_t at = (static_cast<int64_t>(frame) * gridDim.x + tile) * a.c + c;
        stg(reinterpret_cast<vec2 *>(a.partial + at * 2), {{as_bits(total), as_bits(total_squares)}});
        if (a.extremes)
            stg(a.extremes + at, pack16(a.type, low, high));
    }
}

/* A thread keeps to one channel of the group, so that its extremes are that channel's. */
extern "C" __global__ void __launch_bounds__(256, TSR_REDUCE_BLOCKS)
    tsr_reduce(const __grid_constant__ tsr_reduce_args a) {
    const int tid = threadIdx.x, group = blockIdx.x, frame = blockIdx.y, each = a.c / a.groups, lanes = 256 / each;
    const int lane = tid / each, channel = group * each + tid - lane * each;
    double sum = 0, squares = 0;
    float least = INFINITY, most = -INFINITY;
    for (int tile = lane; lane < lanes && tile < a.tiles; tile += lanes) {
        const int64_t at = (static_cast<int64_t>(frame) * a.tiles + tile) * a.c + channel;
        const vec2 v = ldg(reinterpret_cast<const vec2 *>(a.partial + at * 2));
        sum += as_float(v.x[0]);
        squares += as_float(v.x[1]);
        if (a.extremes) {
            const uint32_t e = ldg(a.extremes + at);
            least = fminf(least, unpack16(a.type, e, 0));
            most = fmaxf(most, unpack16(a.type, e, 1));
        }
    }
    const uint32_t mine = shared_memory() + tid * 8, other = 256 * 8; /* two arrays: no bank conflicts */
    sts64(mine, double_bits(sum));
    sts64(mine + other, double_bits(squares));
    for (int half = 128; half; half >>= 1) {
        block_sync();
        if (tid < half) {
            sum += as_double(lds64(mine + half * 8));
            squares += as_double(lds64(mine + other + half * 8));
            sts64(mine, double_bits(sum));
            sts64(mine + other, double_bits(squares));
        }
    }
    if (tid == 0) {
        double *to = a.sums + (static_cast<int64_t>(frame) * a.pairs + group) * 2;
        stg(to, sum);
        stg(to + 1, squares);
    }
    if (!a.extremes)
        return;
    block_sync();
    sts64(mine, {{as_bits(least), as_bits(most)}});
    block_sync();
    if (tid < each) {
        for (int l = 1; l < lanes; l++) {
            const vec2 v = lds64(mine + l * each * 8);
            least = fminf(least, as_float(v.x[0]));
            most = fmaxf(most, as_float(v.x[1]));
        }
        double *to = a.sums + (static_cast<int64_t>(frame) * a.pairs + a.groups + channel) * 2;
        stg(to, static_cast<double>(least));
        stg(to + 1, static_cast<double>(most));
    }
}

/* ---------------------------------------------------------------- the range of u8 codes */

/* The largest of gain * silu(norm) of channel c of a frame; infinite where a number is not finite.
 * silu falls, then rises: over an interval it is largest at an end. */
DEV float range_high(const tsr_set_range_args &a, int frame, int c) {
    const double *sums = a.sums + static_cast<int64_t>(frame) * (a.groups + a.c) * 2, *ends = sums + (a.groups + c) * 2;
    const int each = a.c / a.groups, group = c / each;
    const double n = static_cast<double>(a.pixels) * each;
    const moments m = group_moments(sums, group, n, a.eps);
    const float factor = m.inverse * ldg(a.gamma + c), gain = ldg(a.gain + c);
    const float low = (static_cast<float>(ldg(ends)) - m.mean) * factor + ldg(a.beta + c);
    const float high = (static_cast<float>(ldg(ends + 1)) - m.mean) * factor + ldg(a.beta + c);
    const float most = gain * fmaxf(silu(low), silu(high));
    /* a NaN times 0 is one, and so is an infinity: maxima would lose it */
    const double whole = (ldg(sums + group * 2) + ldg(sums + group * 2 + 1)) * 0;
    return whole == 0 && most < INFINITY ? most : INFINITY;
}

extern "C" __global__ void __launch_bounds__(256, TSR_SET_RANGE_BLOCKS)
    tsr_set_range(const __grid_constant__ tsr_set_range_args a) {
    const float silu_least = 0.2785f; /* silu is nowhere below -0.2785 */
    const int tid = threadIdx.x;
    float high = 0, gain = 0;
    for (int i = tid; i < a.frames * a.c; i += 256) {
        high = fmaxf(high, range_high(a, i / a.c, i % a.c));
        gain = fmaxf(gain, ldg(a.gain + i % a.c));
    }
    for (int m = 1; m < 32; m <<= 1) {
        high = fmaxf(high, shfl_xor(high, m));
        gain = fmaxf(gain, shfl_xor(gain, m));
    }
    if (tid % 32 == 0)
        sts64(shared_memory() + tid / 32 * 8, {{as_bits(high), as_bits(gain)}});
    block_sync();
    if (tid)
        return;
    for (int w = 1; w < 8; w++) {
        const vec2 v = lds64(shared_memory() + w * 8);
        high = fmaxf(high, as_float(v.x[0]));
        gain = fmaxf(gain, as_float(v.x[1]));
    }
    const tsr_range before = a.before ? ldg(a.before) : tsr_range{0, 0, 0, 0};
    const double low = static_cast<double>(silu_least) * gain;
    float scale = static_cast<float>(exp2(ceil(128 * log2((high + low) / (255 * a.planes))) / 128));
    if (!(high < INFINITY) || !(before.scale >= 0))
        scale = NAN;
    else if (scale < before.scale)
        scale = before.scale;
    const int32_t zero = scale > 0 ? static_cast<int32_t>(rint(low / (static_cast<double>(scale) * a.planes))) : 0;
    stg(a.state, tsr_range{scale, zero, a.before ? before.scale : scale, a.before ? before.zero : zero});
}

extern "C" __global__ void __launch_bounds__(256, TSR_REQUANTISE_BLOCKS)
    tsr_requantise(const __grid_constant__ tsr_requantise_args a) {
    const float old_scale = ldg(&a.state->old_scale), scale = ldg(&a.state->scale);
    const int32_t old_zero = ldg(&a.state->old_zero), zero = ldg(&a.state->zero);
    if (old_scale == scale && old_zero == zero)
        return;
    const float factor = old_scale / scale;
    for (int64_t i = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * 16; i < a.n;
         i += static_cast<int64_t>(gridDim.x) * 4096) {
        vec4 *p = reinterpret_cast<vec4 *>(a.codes + i), v = ldg(p);
#pragma unroll
        for (int w = 0; w < 4; w++) {
            uint32_t codes = 0;
#pragma unroll
            for (int c = 0; c < 32; c += 8) {
                const int32_t code = static_cast<int32_t>(v.x[w] >> c & 0xff) - old_zero;
                codes |= to_u8(round_even(static_cast<float>(code) * factor) + static_cast<float>(zero)) << c;
            }
            v.x[w] = codes;
        }
        stg(p, v);
    }
}

/* ---------------------------------------------------------------- norm */

/* factor: by which values are multiplied before they are rounded to codes, a channel; zero: of all planes together */
DEV void store8(const tsr_norm_args &a, int64_t at, const float (&v)[8], const float (&factor)[8], float zero) {
    if (a.out_type == TSR_ELEM_U8) {
        vec2 q = {}, up = {};
#pragma unroll
        for (int c = 0; c < 8; c++) { /* rounded before the zero point is added: ties must not depend on it */
            const float code = round_even(v[c] * factor[c]) + zero, down = a.planes == 2 ? floorf(code / 2) : code;
            q.x[c / 4] |= to_u8(down) << c % 4 * 8;
            up.x[c / 4] |= to_u8(code - down) << c % 4 * 8;
        }
        stg(reinterpret_cast<vec2 *>(static_cast<uint8_t *>(a.out) + at), q);
        if (a.planes == 2)
            stg(reinterpret_cast<vec2 *>(static_cast<uint8_t *>(a.out) + at + a.c), up);
    } else if (a.out_type == TSR_ELEM_E4M3) {
        vec2 q = {};
#pragma unroll
        for (int c = 0; c < 8; c += 2)
            q.x[c / 4] |= pack_e4m3(v[c] * factor[c], v[c + 1] * factor[c + 1]) << c % 4 * 8;
        stg(reinterpret_cast<vec2 *>(static_cast<uint8_t *>(a.out) + at), q);
    } else {
        vec4 q;
#pragma unroll
        for (int c = 0; c < 8; c += 2)
            q.x[c / 2] = pack16(a.out_type, v[c], v[c + 1]);
        stg(reinterpret_cast<vec4 *>(static_cast<uint16_t *>(a.out) + at), q);
    }
}

extern "C" __global__ void __launch_bounds__(256, TSR_NORM_BLOCKS) tsr_norm(const __grid_constant__ tsr_norm_args a) {
    const octets o = my_octet(a.c);
    const int tid = threadIdx.x, frame = blockIdx.y, first = blockIdx.x * a.pixels_per_block;
    const int end = a.pixels - first < a.pixels_per_block ? a.pixels : first + a.pixels_per_block;
    const int each = a.sums ? a.c / a.groups : 1;
    if (a.sums && tid < a.groups) { /* once a block: f64 is slow on most GPUs */
        const moments m = group_moments(a.sums, frame * a.pairs + tid, static_cast<double>(a.pixels) * each, a.eps);
        sts64(shared_memory() + tid * 8, {{as_bits(m.mean), as_bits(m.inverse)}});
    }
    block_sync();
    if (!o.used)
        return;
    const bool u8 = a.out_type == TSR_ELEM_U8;
    const float scale = u8 ? ldg(&a.range->scale) : 1;
    const float zero = u8 ? static_cast<float>(a.planes * ldg(&a.range->zero)) : 0;
    float mean[8], gamma[8], beta[8], factor[8];
#pragma unroll
    for (int c = 0; c < 8; c++) {
        const int channel = o.channel + c;
        factor[c] = u8 ? ldg(a.gain + channel) / scale : a.factor;
        mean[c] = beta[c] = 0;
        gamma[c] = 1;
        if (a.sums) {
            const vec2 v = lds64(shared_memory() + channel / each * 8);
            mean[c] = as_float(v.x[0]);
            gamma[c] = as_float(v.x[1]) * ldg(a.gamma + channel);
            beta[c] = ldg(a.beta + channel);
        }
    }
    for (int p = first + o.lane; p < end; p += o.lanes) {
        const int64_t at = (static_cast<int64_t>(frame) * a.pixels + p) * a.c;
        float v[8];
        load8(v, a.in, a.in_type, at + o.channel);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            v[c] = (v[c] - mean[c]) * gamma[c] + beta[c];
            v[c] = a.silu ? silu(v[c]) : v[c];
        }
        store8(a, at * a.planes + o.channel, v, factor, zero);
    }
}

#include "checks.h"
#include "shim/kernels.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <memory>

std::string text(const char *format, ...) {
    char buf[300];
    va_list ap;
    va_start(ap, format);
    std::vsnprintf(buf, sizeof buf, format, ap);
    va_end(ap);
    return buf;
}

namespace {

struct rng {
    uint64_t s;
    explicit rng(uint64_t seed) : s(seed * 0x9e3779b97f4a7c15u + 12345) {
    }
    uint32_t bits() {
        s = s * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>(s >> 33);
    }
    double uniform() { /* 0..1 */
        return (bits() + 0.5) / 2147483648.0;
    }
    double normal() {
        return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform());
    }
};

tsr_dtype dtype_of(tsr_elem e) {
    switch (e) {
    case TSR_ELEM_F16:
        return TSR_F16;
    case TSR_ELEM_BF16:
        return TSR_BF16;
    case TSR_ELEM_F32:
        return TSR_F32;
    case TSR_ELEM_E4M3:
        return TSR_E4M3;
    default:
        return TSR_U8;
    }
}

/* Memory of exactly so many bytes, so that the address sanitizer and the shim's regions see any
 * byte beyond. */
struct block {
    std::unique_ptr<uint8_t[]> p;
    size_t bytes;
    explicit block(size_t n, uint8_t fill = 0) : p(new uint8_t[n]), bytes(n) {
        std::memset(p.get(), fill, n);
    }
    template <class T> T *as() {
        return reinterpret_cast<T *>(p.get());
    }
    double get(tsr_dtype t, size_t i) const {
        float f;
        tsr_to_f32(t, p.get() + i * tsr_dtype_size(t), &f, 1);
        return f;
    }
    void set(tsr_dtype t, size_t i, double v) {
        float f = static_cast<float>(v);
        tsr_from_f32(t, &f, p.get() + i * tsr_dtype_size(t), 1);
    }
};

uint64_t hash(std::initializer_list<const block *> blocks) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (const block *b : blocks)
        for (size_t i = 0; i < b->bytes; i++)
            h = (h ^ b->p[i]) * 0x100000001b3u;
    return h;
}

struct run { /* a launch whose global accesses are watched */
    shim::options how;
    shim::counters count;
    void allow(const block &b, bool writable) {
        how.regions.push_back({b.p.get(), b.bytes, writable});
    }
    template <class Args> std::string go(const char *name, const Args &args, dim3 grid, size_t shared) {
        const shim::named_kernel *k = shim::find_kernel(name);
        if (!k || k->args_bytes != sizeof args)
            return text("no kernel %s", name);
        std::string wrong = shim::launch(k->fn, &args, grid, {256, 1, 1}, shared, how, &count);
        return wrong.empty() ? wrong : std::string(name) + ": " + wrong;
    }
};

/* Half the distance between neighbouring numbers of a type around v. */
double half_step(tsr_elem t, double v) {
    switch (t) {
    case TSR_ELEM_F16:
        return std::max(std::fabs(v) * 0x1p-11, 0x1p-25);
    case TSR_ELEM_BF16:
        return std::fabs(v) * 0x1p-8;
    case TSR_ELEM_E4M3:
        return std::max(std::fabs(v) * 0x1p-4, 0x1p-10);
    default:
        return std::fabs(v) * 0x1p-24;
    }
}

/* ---------------------------------------------------------------- convolution */

struct conv_problem {
    const conv_case &c;
    tsr_kernel k = {};
    int t0, frames, out_h, out_w, phases, out_frames;
    bool eight;
    std::vector<float> x; /* [past + frames][h][w][cin], what the codes stand for (U8: without the scale) */
    std::vector<float> w; /* [tap][cin][phases][cout]: likewise */
    std::vector<float> scale, bias;
    std::vector<double> before;
    block in, past, codes, out;
    tsr_range range = {0.02f, 0, 0, 0};

    explicit conv_problem(const conv_case &cc);
    double value(int i, int y, int x_, int phase, int n, double *magnitude) const;
    void reference_pixel(int i, int y, int x_, int phase, std::vector<double> &sum) const;
};

size_t frame_elements(const conv_case &c) {
    return static_cast<size_t>(c.h) * c.w * c.cin;
}

conv_problem::conv_problem(const conv_case &cc) : c(cc), in(1), past(1), codes(1), out(1) {
    const tsr_conv_form &f = tsr_conv_forms[c.shape];
    rng r(c.seed);
    phases = f.kh == 2 ? 4 : 1;
    k.cin = c.cin, k.cout = c.cout, k.kt = c.kt, k.kh = f.kh, k.kw = f.kw, k.st = c.st, k.sy = k.sx = f.stride;
    k.pad_top = k.pad_left = c.pad, k.phases = phases, k.classes = c.classes;
    eight = tsr_dtype_size(c.in) == 1;
    t0 = c.kt - 1 - c.past;
    frames = t0 + (c.outputs - 1) * c.st + 1;
    int up = phases == 4 ? 2 : 1;
    out_h = c.h / f.stride * up, out_w = c.w / f.stride * up;
    out_frames = (c.outputs - 1) * c.out_dt + 1;

    size_t per = frame_elements(c), size = tsr_dtype_size(c.in);
    in = block(per * frames * size);
    past = block(per * c.past * size);
    x.resize(per * (c.past + frames));
    for (size_t i = 0; i < x.size(); i++) {
        block &b = i < per * c.past ? past : in;
        size_t at = i < per * c.past ? i : i - per * c.past;
        if (c.in == TSR_U8) {
            uint8_t code = static_cast<uint8_t>(std::min(255.0, std::max(0.0, c.zero + 40 * r.normal())));
            b.p[at] = code;
            x[i] = static_cast<float>(code - c.zero);
        } else {
            b.set(c.in, at, r.normal() + (i == x.size() / 2 ? c.huge : 0));
            x[i] = static_cast<float>(b.get(c.in, at));
        }
    }
    range.zero = c.zero;

    size_t taps = static_cast<size_t>(k.kt) * k.kh * k.kw, filters = static_cast<size_t>(phases) * c.cout;
    codes = block(filters * taps * c.cin * size);
    w.resize(filters * taps * c.cin);
    for (size_t o = 0; o < filters; o++)
        for (size_t t = 0; t < taps; t++)
            for (int ci = 0; ci < c.cin; ci++) {
                size_t at = (o * taps + t) * c.cin + ci;
                float &to = w[(t * c.cin + ci) * filters + o];
                if (c.in == TSR_U8) {
                    int8_t code = static_cast<int8_t>(static_cast<int>(r.bits() % 255) - 127);
                    codes.as<int8_t>()[at] = code;
                    to = code;
                } else {
                    codes.set(c.in, at, r.normal() * (eight ? 1 : 0.05));
                    to = static_cast<float>(codes.get(c.in, at));
                }
            }
    for (size_t o = 0; o < filters; o++)
        scale.push_back(c.in == TSR_U8 ? static_cast<float>(0.0005 * (1 + r.uniform()))
                        : eight        ? static_cast<float>(0.02 * (1 + r.uniform()))
                                       : 1.0f);
    for (size_t b = 0; b < filters * c.classes; b++)
        bias.push_back(static_cast<float>(r.normal()));

    tsr_dtype ot = dtype_of(c.out);
    out = block(static_cast<size_t>(out_frames) * out_h * out_w * c.cout * tsr_dtype_size(ot));
    before.resize(static_cast<size_t>(out_frames) * out_h * out_w * c.cout);
    for (size_t i = 0; i < before.size(); i++) {
        out.set(ot, i, r.normal());
        before[i] = out.get(ot, i);
    }
}

/* to[n] += x[k] * w[k][n], rows of w `step` apart. Most of a check's time: not instrumented. */
__attribute__((no_sanitize("address", "undefined"))) void add_products(
    float *to, const float *x, const float *w, int k, int n, size_t step) {
    for (; k > 0; k--, x++, w += step)
        for (int i = 0; i < n; i++)
            to[i] += *x * w[i];
}

/* sum[phase's cout] = taps and channels of one output pixel. Sums in f32 within a tap, f64 over
 * taps. */
void conv_problem::reference_pixel(int i, int y, int ox, int phase, std::vector<double> &sum) const {
    std::fill(sum.begin(), sum.end(), 0.0);
    std::vector<float> part(c.cout);
    size_t filters = static_cast<size_t>(phases) * c.cout;
    for (int t = 0; t < k.kt; t++)
        for (int ky = 0; ky < k.kh; ky++)
            for (int kx = 0; kx < k.kw; kx++) {
                int f = t0 + i * c.st + t - (k.kt - 1) + c.past;
                int yy = y * k.sy - (c.pad - (phase >> 1)) + ky, xx = ox * k.sx - (c.pad - (phase & 1)) + kx;
                if (yy < 0 || yy >= c.h || xx < 0 || xx >= c.w)
                    continue;
                const float *px = &x[(static_cast<size_t>(f * c.h + yy) * c.w + xx) * c.cin];
                size_t tap = static_cast<size_t>(t * k.kh + ky) * k.kw + kx;
                std::fill(part.begin(), part.end(), 0.0f);
                add_products(part.data(), px, &w[tap * c.cin * filters + static_cast<size_t>(phase) * c.cout], c.cin,
                    c.cout, filters);
                for (int n = 0; n < c.cout; n++)
                    sum[n] += part[n];
            }
}

/* What the additions may be off, as a part of the outputs' root mean square. On a GPU: of e4m3 products sm_89's and
 * sm_90's sums keep 13 bits (shim.h), and lose the more the longer they are. */
double sum_error(const conv_problem &p) {
    if (shim::exact_sums || p.c.in == TSR_U8)
        return 3e-5;
    const double products = static_cast<double>(p.w.size()) / (p.phases * p.c.cout);
    return p.c.in == TSR_E4M3 ? 4e-3 + 4e-6 * products : 2e-4;
}
struct sums_seen {
    double off, allowed;
};
sums_seen nearest[TSR_DTYPE_COUNT]; /* to what is allowed */

/* The output that is off most, beyond what its type rounds, is told with what it would have to be allowed. */
std::string compare_outputs(const conv_problem &p, const std::vector<double> &want) {
    const conv_case &c = p.c;
    double power = 0, most = 0;
    size_t worst = 0;
    for (double v : want)
        power += v * v;
    const double rms = std::sqrt(power / static_cast<double>(want.size()));
    for (size_t o = 0; o < want.size(); o++) {
        double got = p.out.get(dtype_of(c.out), o);
        if (c.huge && std::fabs(want[o]) > 65504)
            continue;
        if (want[o] == p.before[o] && got != want[o])
            return text("output %zu is %g, and was to stay %g", o, got, want[o]);
        double off = (std::fabs(got - want[o]) - 1.001 * half_step(c.out, want[o])) / rms;
        if (!(off <= most)) /* undefined is the worst */
            most = std::isfinite(off) ? off : INFINITY, worst = o;
    }
    const double allowed = sum_error(p);
    sums_seen &near = nearest[c.in];
    if (std::isfinite(most) && !c.huge && most * near.allowed >= near.off * allowed)
        near = {most, allowed};
    if (most <= allowed)
        return "";
    const size_t column = worst / c.cout, row = column / p.out_w;
    return text("output %zu (channel %zu, column %zu, row %zu, frame %zu) is %g, expected %g: off by %.1e of the root "
                "mean square, allowed are %.1e",
        worst, worst % c.cout, column % p.out_w, row % p.out_h, row / p.out_h, p.out.get(dtype_of(c.out), worst),
        want[worst], most, allowed);
}

struct conv_places { /* what the launch writes besides out */
    block partial, extremes, flag;
    int tiles_x, tiles_y, tiles;
};

std::string check_values(const conv_problem &p, conv_places &at, int rows) {
    const conv_case &c = p.c;
    tsr_dtype ot = dtype_of(c.out);
    const tsr_conv_form &f = tsr_conv_forms[c.shape];
    int up = p.phases == 4 ? 2 : 1, low_h = p.out_h / up, low_w = p.out_w / up;
    std::vector<double> want = p.before, sum(c.cout);
    size_t entries = static_cast<size_t>(c.outputs) * at.tiles * c.cout;
    std::vector<double> sums(entries), squares(entries), least(entries, INFINITY), most(entries, -INFINITY);
    for (int i = 0; i < c.outputs; i++)
        for (int phase = 0; phase < p.phases; phase++)
            for (int y = c.y0; y < c.y0 + rows; y++)
                for (int x = 0; x < low_w; x++) {
                    p.reference_pixel(i, y, x, phase, sum);
                    int pr = phase >> 1, pc = phase & 1;
                    int ey = c.classes == 4 && (pr ? y == low_h - 1 : y == 0);
                    int ex = c.classes == 4 && (pc ? x == low_w - 1 : x == 0);
                    size_t pixel =
                        (static_cast<size_t>(i * c.out_dt) * p.out_h + up * y + (up == 2 ? pr : 0)) * p.out_w + up * x +
                        (up == 2 ? pc : 0);
                    int tile = (phase * at.tiles_y + (y - c.y0) / f.tile_h) * at.tiles_x + x / 16;
                    for (int n = 0; n < c.cout; n++) {
                        double v = sum[n] * p.scale[phase * c.cout + n] * (c.in == TSR_U8 ? p.range.scale : 1) +
                                   p.bias[(phase * c.classes + ey * 2 + ex) * c.cout + n];
                        size_t o = pixel * c.cout + n, s = (static_cast<size_t>(i) * at.tiles + tile) * c.cout + n;
                        want[o] = v + (c.accumulate ? p.before[o] : 0);
                        double got = p.out.get(ot, o);
                        sums[s] += got;
                        squares[s] += got * got;
                        least[s] = std::min(least[s], got);
                        most[s] = std::max(most[s], got);
                    }
                }
    std::string wrong = compare_outputs(p, want);
    if (!wrong.empty())
        return wrong;
    for (size_t s = 0; c.stats && !c.huge && s < entries; s++) {
        double near_sum = 1e-5 * std::sqrt(squares[s] * 256) + 1e-6, near_squares = 1e-5 * squares[s] + 1e-6;
        if (!(std::fabs(at.partial.get(TSR_F32, 2 * s) - sums[s]) <= near_sum) ||
            !(std::fabs(at.partial.get(TSR_F32, 2 * s + 1) - squares[s]) <= near_squares))
            return text("statistics %zu are %g, %g, expected %g, %g", s, at.partial.get(TSR_F32, 2 * s),
                at.partial.get(TSR_F32, 2 * s + 1), sums[s], squares[s]);
        if (c.out != TSR_ELEM_F32 &&
            (at.extremes.get(ot, 2 * s) != least[s] || at.extremes.get(ot, 2 * s + 1) != most[s]))
            return text("extremes %zu are %g, %g, expected %g, %g", s, at.extremes.get(ot, 2 * s),
                at.extremes.get(ot, 2 * s + 1), least[s], most[s]);
    }
    int32_t flag = *at.flag.as<int32_t>();
    if (flag != (c.huge ? 7 : 0))
        return text("the flag is %d", flag);
    return "";
}

const char *elem_name(tsr_dtype t) {
    return t == TSR_F16 ? "f16" : t == TSR_BF16 ? "bf16" : t == TSR_E4M3 ? "e4m3" : "u8";
}

} // namespace

std::string sum_errors() {
    std::string all;
    for (tsr_dtype in : {TSR_F16, TSR_BF16, TSR_E4M3, TSR_U8})
        all += text("%s%s %.1e (%.0e)", all.empty() ? "" : ", ", elem_name(in), nearest[in].off, nearest[in].allowed);
    return all;
}

std::string check_conv(const conv_case &c, conv_seen *seen) {
    const tsr_conv_form &f = tsr_conv_forms[c.shape];
    conv_problem p(c);
    int low_h = p.out_h / (p.phases == 4 ? 2 : 1), low_w = p.out_w / (p.phases == 4 ? 2 : 1);
    int rows = c.rows ? c.rows : low_h - c.y0;
    int tiles_x = (low_w + 15) / 16, tiles_y = (rows + f.tile_h - 1) / f.tile_h, tiles = p.phases * tiles_y * tiles_x;
    size_t entries = static_cast<size_t>(c.outputs) * tiles * c.cout;
    conv_places at = {block(entries * 8), block(entries * 4), block(4), tiles_x, tiles_y, tiles};

    tsr_conv_packing packing = tsr_conv_packing_of(&p.k, c.shape, c.in);
    block packed(packing.bytes), range(sizeof(tsr_range));
    std::vector<float> gain(c.cin, 1.0f);
    tsr_conv_weights weights = {p.codes.p.get(), p.bias.data(), p.scale.data(), gain.data()};
    tsr_conv_pack(&packing, &p.k, &weights, packed.p.get());
    *range.as<tsr_range>() = p.range;

    tsr_conv_args a = {};
    a.in = p.in.p.get();
    a.past = p.past.p.get() + p.past.bytes;
    a.weights = packed.p.get() + packing.weights;
    a.bias = reinterpret_cast<float *>(packed.p.get() + packing.bias);
    if (p.eight) {
        a.scale = reinterpret_cast<float *>(packed.p.get() + packing.scale);
        a.weight_sum = reinterpret_cast<int32_t *>(packed.p.get() + packing.weight_sum);
        a.range = range.as<tsr_range>();
    }
    a.out = p.out.p.get();
    a.partial = c.stats ? at.partial.as<float>() : nullptr;
    a.extremes = c.stats && c.out != TSR_ELEM_F32 ? at.extremes.as<uint32_t>() : nullptr;
    a.flag = at.flag.as<int32_t>();
    a.flag_value = 7;
    a.frames = c.outputs, a.t0 = p.t0, a.st = c.st, a.kt = c.kt;
    a.h = c.h, a.w = c.w, a.cin = c.cin;
    a.rows = rows, a.cols = low_w, a.y0 = c.y0;
    a.out_h = p.out_h, a.out_w = p.out_w, a.cout = c.cout, a.out_dt = c.out_dt;
    a.pad_top = a.pad_left = c.pad;
    a.classes = c.classes, a.accumulate = c.accumulate, a.out_type = c.out;
    a.n_blocks = packing.n_blocks, a.tiles_x = tiles_x;

    run r;
    r.how.seed = c.schedule;
    for (const block *b : {&p.in, &p.past, &packed, &range})
        r.allow(*b, false);
    for (const block *b : {&p.out, &at.partial, &at.extremes, &at.flag})
        r.allow(*b, true);
    dim3 grid = {static_cast<unsigned>(packing.n_blocks * tiles_x), static_cast<unsigned>(tiles_y),
        static_cast<unsigned>(c.outputs * p.phases)};
    std::string name = std::string("tsr_conv_") + elem_name(c.in) + "_" + f.name;
    std::string wrong = r.go(name.c_str(), a, grid, static_cast<size_t>(f.shared));
    if (seen)
        *seen = {r.count, hash({&p.out, &at.partial, &at.extremes, &at.flag})};
    /* Writes to where 8 lanes fill pixels of two rows, or some of them copy and some fill, are not
     * held to it. */
    bool whole = f.stride == 1 && f.chunk > 32 && c.cin * tsr_dtype_size(c.in) % f.chunk == 0;
    uint64_t conflicts = r.count.bank_conflicts + (whole ? r.count.write_conflicts : 0);
    if (wrong.empty() && conflicts)
        wrong = text("%s: %llu bank conflicts", name.c_str(), static_cast<unsigned long long>(conflicts));
    if (wrong.empty())
        wrong = check_values(p, at, rows);
    return wrong;
}

/* ---------------------------------------------------------------- statistics and norm */

namespace {

double silu_of(double x) {
    return x / (1 + std::exp(-x));
}

struct norm_data {
    const norm_case &c;
    int tiles, pairs; /* of statistics a frame: groups and channels */
    block in, out, partial, extremes, sums, before, state, gamma, beta, gain;
    explicit norm_data(const norm_case &cc)
        : c(cc), tiles((c.pixels + c.pixels_per_tile - 1) / c.pixels_per_tile), pairs(32 + c.c), in(count() * 2),
          out(count() * c.planes * tsr_dtype_size(dtype_of(c.out)), 0xee),
          partial(static_cast<size_t>(c.frames) * tiles * c.c * 8),
          extremes(static_cast<size_t>(c.frames) * tiles * c.c * 4), sums(static_cast<size_t>(c.frames) * pairs * 16),
          before(sizeof(tsr_range)), state(sizeof(tsr_range)), gamma(c.c * 4u), beta(c.c * 4u), gain(c.c * 4u) {
        rng r(c.seed);
        for (size_t i = 0; i < count(); i++)
            in.set(dtype_of(c.in), i, (r.normal() + 0.3) * (1 + static_cast<double>(i % c.c) / c.c) * 3);
        if (c.spoilt != 0)
            in.set(dtype_of(c.in), count() / 2, c.spoilt);
        for (int i = 0; i < c.c; i++) {
            gamma.as<float>()[i] = static_cast<float>(r.normal());
            beta.as<float>()[i] = static_cast<float>(r.normal() * 0.5);
            gain.as<float>()[i] = static_cast<float>(0.5 + r.uniform());
        }
    }
    size_t count() const {
        return static_cast<size_t>(c.frames) * c.pixels * c.c;
    }
    double x(int f, int p, int ch) const {
        return in.get(dtype_of(c.in), (static_cast<size_t>(f) * c.pixels + p) * c.c + ch);
    }
    /* Number i of [frames][pixels][c] in a plane of what came out. */
    double y(size_t i, int plane) const {
        return out.get(dtype_of(c.out), (i / c.c * c.planes + plane) * c.c + i % c.c);
    }
};

std::string run_statistics(norm_data &d, run &r) {
    const norm_case &c = d.c;
    tsr_stats_args s = {
        d.in.p.get(), d.partial.as<float>(), d.extremes.as<uint32_t>(), c.in, c.pixels, c.c, c.pixels_per_tile};
    std::string wrong =
        r.go("tsr_stats", s, {static_cast<unsigned>(d.tiles), static_cast<unsigned>(c.frames), 1}, TSR_STATS_SHARED);
    if (!wrong.empty())
        return wrong;
    tsr_reduce_args q = {
        d.partial.as<float>(), d.extremes.as<uint32_t>(), d.sums.as<double>(), d.tiles, c.c, 32, c.in, d.pairs};
    wrong = r.go("tsr_reduce", q, {32, static_cast<unsigned>(c.frames), 1}, TSR_REDUCE_SHARED);
    if (!wrong.empty())
        return wrong;
    if (c.out != TSR_ELEM_U8)
        return "";
    *d.before.as<tsr_range>() = {c.before, 3, 0, 0};
    tsr_set_range_args g = {d.sums.as<double>(), d.gamma.as<float>(), d.beta.as<float>(), d.gain.as<float>(),
        d.before.as<tsr_range>(), d.state.as<tsr_range>(), c.frames, c.pixels, c.c, 32, c.planes, 1e-6f};
    return r.go("tsr_set_range", g, {1, 1, 1}, TSR_SET_RANGE_SHARED);
}

struct group {
    double mean, inverse;
};
group group_of(const norm_data &d, int f, int g, double *sum, double *squares) {
    int each = d.c.c / 32;
    *sum = *squares = 0;
    for (int p = 0; p < d.c.pixels; p++)
        for (int ch = g * each; ch < (g + 1) * each; ch++) {
            double v = d.x(f, p, ch);
            *sum += v;
            *squares += v * v;
        }
    double n = static_cast<double>(d.c.pixels) * each, mean = *sum / n;
    return {mean, 1 / std::sqrt(*squares / n - mean * mean + 1e-6)};
}

/* The range as docs/precision.md defines it, from the reference's own y. */
std::string check_range(norm_data &d, const std::vector<double> &y) {
    double high = 0, most = 0;
    for (int ch = 0; ch < d.c.c; ch++) {
        double gain = d.gain.as<float>()[ch], top = -1;
        for (size_t i = ch; i < y.size(); i += d.c.c)
            top = std::max(top, silu_of(y[i]));
        high = std::max(high, gain * top);
        most = std::max(most, gain);
    }
    double span = high + 0.2785 * most;
    double chosen = std::exp2(std::ceil(128 * std::log2(span / (255 * d.c.planes))) / 128);
    double scale = std::max(chosen, static_cast<double>(d.c.before));
    tsr_range got = *d.state.as<tsr_range>();
    if (std::fabs(got.scale / scale - 1) > 1e-6 ||
        got.zero != static_cast<int>(std::nearbyint(0.2785 * most / (scale * d.c.planes))))
        return text("the range is %g, %d, expected %g", static_cast<double>(got.scale), got.zero, scale);
    if (got.old_scale != d.c.before || got.old_zero != 3)
        return "the old range is lost";
    return "";
}

} // namespace

std::string check_norm(const norm_case &c) {
    norm_data d(c);
    run r;
    r.how.seed = c.seed;
    for (const block *b : {&d.in, &d.gamma, &d.beta, &d.gain, &d.before})
        r.allow(*b, false);
    for (const block *b : {&d.partial, &d.extremes, &d.sums, &d.state, &d.out})
        r.allow(*b, true);
    std::string wrong = run_statistics(d, r);
    if (!wrong.empty())
        return wrong;
    if (c.spoilt != 0) {
        tsr_range got = *d.state.as<tsr_range>();
        return std::isnan(got.scale) && got.zero == 0 ? "" : "a range of numbers that are not finite";
    }
    std::vector<double> y(d.count());
    for (int f = 0; f < c.frames; f++)
        for (int g = 0; g < 32; g++) {
            double sum, squares;
            group m = group_of(d, f, g, &sum, &squares);
            const double *got = d.sums.as<double>() + (f * d.pairs + g) * 2;
            if (std::fabs(got[0] - sum) > 1e-6 * std::sqrt(squares * c.pixels) ||
                std::fabs(got[1] / squares - 1) > 1e-6)
                return text("group %d of frame %d: sums %g, %g, expected %g, %g", g, f, got[0], got[1], sum, squares);
            for (int p = 0; p < c.pixels; p++)
                for (int ch = g * (c.c / 32); ch < (g + 1) * (c.c / 32); ch++) {
                    double v = d.x(f, p, ch);
                    if (c.norm)
                        v = (v - m.mean) * m.inverse * d.gamma.as<float>()[ch] + d.beta.as<float>()[ch];
                    y[(static_cast<size_t>(f) * c.pixels + p) * c.c + ch] = v;
                }
        }
    if (c.out == TSR_ELEM_U8 && c.norm && !(wrong = check_range(d, y)).empty())
        return wrong;

    tsr_norm_args n = {d.in.p.get(), d.out.p.get(), c.norm ? d.sums.as<double>() : nullptr, d.gamma.as<float>(),
        d.beta.as<float>(), d.gain.as<float>(), d.state.as<tsr_range>(), c.in, c.out, c.pixels, c.c, 32, d.pairs, 40,
        c.planes, c.silu, 8.0f, 1e-6f};
    wrong = r.go("tsr_norm", n, {static_cast<unsigned>((c.pixels + 39) / 40), static_cast<unsigned>(c.frames), 1},
        TSR_NORM_SHARED);
    if (!wrong.empty())
        return wrong;
    tsr_range range = *d.state.as<tsr_range>();
    for (size_t i = 0; i < y.size(); i++) {
        double v = c.silu ? silu_of(y[i]) : y[i], got = d.y(i, 0), off = 2e-6 * (1 + std::fabs(y[i]));
        if (c.out == TSR_ELEM_U8) {
            double exact = v * d.gain.as<float>()[i % c.c] / range.scale + c.planes * range.zero;
            v = std::min(255.0 * c.planes, std::max(0.0, exact));
            off = 0.5 + 1e-3;
            double other = c.planes == 2 ? d.y(i, 1) : 0, more = other - got;
            if (c.planes == 2 && more != 0 && more != 1)
                return text("norm: element %zu has planes of %g and %g", i, got, other);
            got += other;
        } else if (c.out == TSR_ELEM_E4M3) {
            v = std::min(448.0, std::max(-448.0, v * 8));
            off = off * 8 + half_step(TSR_ELEM_E4M3, v) * 1.01;
        } else {
            off += half_step(c.out, v) * 1.01;
        }
        if (!(std::fabs(got - v) <= off))
            return text("norm: element %zu is %g, expected %g", i, got, v);
    }
    return "";
}

std::string check_requantise(bool changed) {
    block codes(256 * 37), state(sizeof(tsr_range));
    for (size_t i = 0; i < codes.bytes; i++)
        codes.p[i] = static_cast<uint8_t>(i * 7);
    *state.as<tsr_range>() = {changed ? 0.5f : 0.3f, 40, 0.3f, changed ? 70 : 40};
    run r;
    r.allow(codes, true);
    r.allow(state, false);
    tsr_requantise_args a = {codes.p.get(), static_cast<int64_t>(codes.bytes), state.as<tsr_range>()};
    std::string wrong = r.go("tsr_requantise", a, {2, 1, 1}, 0);
    for (size_t i = 0; wrong.empty() && i < codes.bytes; i++) {
        uint8_t q0 = static_cast<uint8_t>(i * 7);
        float moved = std::nearbyint((q0 - 70) * (0.3f / 0.5f)) + 40;
        int want = changed ? static_cast<int>(std::min(255.0f, std::max(0.0f, moved))) : q0;
        if (codes.p[i] != want)
            wrong = text("requantise: code %d became %d, expected %d", q0, codes.p[i], want);
    }
    return wrong;
}

/* ---------------------------------------------------------------- attention and moves */

std::string check_attention(const attention_case &c) {
    tsr_dtype t = c.bf16 ? TSR_BF16 : TSR_F16;
    size_t n = static_cast<size_t>(c.frames) * c.tokens * c.c;
    block qkv(n * 3 * 2), out(n * 2);
    rng g(c.seed);
    for (size_t i = 0; i < n * 3; i++)
        qkv.set(t, i, g.normal() * (i / c.c % 3 < 2 ? c.spread : 1));
    run r;
    r.how.seed = c.seed;
    r.allow(qkv, false);
    r.allow(out, true);
    tsr_attention_args a = {qkv.p.get(), out.p.get(), c.tokens, c.c, static_cast<float>(1 / std::sqrt(c.c))};
    dim3 grid = {static_cast<unsigned>((c.tokens + 63) / 64), static_cast<unsigned>(c.frames), 1};
    std::string wrong = r.go(c.bf16 ? "tsr_attention_bf16" : "tsr_attention_f16", a, grid, TSR_ATTENTION_SHARED);
    if (wrong.empty() && r.count.bank_conflicts + r.count.write_conflicts)
        wrong = text("attention: %llu bank conflicts, %llu of writes",
            static_cast<unsigned long long>(r.count.bank_conflicts),
            static_cast<unsigned long long>(r.count.write_conflicts));
    if (!wrong.empty())
        return wrong;
    std::vector<float> x(n * 3);
    tsr_to_f32(t, qkv.p.get(), x.data(), x.size());
    std::vector<double> p(c.tokens), y(c.c);
    for (int f = 0; f < c.frames; f++)
        for (int q = 0; q < c.tokens; q++) {
            auto row = [&](int token, int part) {
                return &x[((static_cast<size_t>(f) * c.tokens + token) * 3 + part) * c.c];
            };
            double most = -INFINITY, sum = 0;
            for (int k = 0; k < c.tokens; k++) {
                p[k] = 0;
                for (int ch = 0; ch < c.c; ch++)
                    p[k] += static_cast<double>(row(q, 0)[ch]) * row(k, 1)[ch];
                p[k] /= std::sqrt(c.c);
                most = std::max(most, p[k]);
            }
            std::fill(y.begin(), y.end(), 0.0);
            double power = 0;
            for (int k = 0; k < c.tokens; k++) {
                p[k] = std::exp(p[k] - most);
                sum += p[k];
                power += p[k] * p[k];
                for (int ch = 0; ch < c.c; ch++)
                    y[ch] += p[k] * row(k, 2)[ch];
            }
            /* P is rounded, so an output is off by about the root of the summed squares of its
             * roundings */
            double off = (c.bf16 ? 0x1p-8 : 0x1p-11) * 6 * std::sqrt(power) / sum + 1e-5;
            for (int ch = 0; ch < c.c; ch++) {
                double want = y[ch] / sum, got = out.get(t, (static_cast<size_t>(f) * c.tokens + q) * c.c + ch);
                if (!(std::fabs(got - want) <= off + half_step(c.bf16 ? TSR_ELEM_BF16 : TSR_ELEM_F16, want)))
                    return text("attention: frame %d token %d channel %d is %g, expected %g", f, q, ch, got, want);
            }
        }
    return "";
}

static std::string check_store(tsr_elem in, tsr_elem out, int c) {
    const int frames = 2, pixels = 300;
    block from(frames * pixels * c * tsr_dtype_size(dtype_of(in))),
        to(frames * pixels * c * tsr_dtype_size(dtype_of(out)));
    rng g(5);
    for (int i = 0; i < frames * pixels * c; i++)
        from.set(dtype_of(in), i, g.normal());
    run r;
    r.allow(from, false);
    r.allow(to, true);
    tsr_store_args a = {from.p.get(), to.p.get(), in, out, pixels, c};
    std::string wrong = r.go("tsr_store", a, {(pixels + 255) / 256, frames, 1}, 0);
    block one(4);
    for (int f = 0; wrong.empty() && f < frames; f++)
        for (int p = 0; p < pixels; p++)
            for (int ch = 0; ch < c; ch++) {
                one.set(dtype_of(out), 0, from.get(dtype_of(in), (f * pixels + p) * c + ch));
                if (to.get(dtype_of(out), (f * c + ch) * pixels + p) != one.get(dtype_of(out), 0))
                    return text("store: frame %d pixel %d channel %d", f, p, ch);
            }
    return wrong;
}

std::string check_moves() {
    for (tsr_elem t : {TSR_ELEM_F16, TSR_ELEM_BF16}) {
        const int n = 3001;
        block from(n * 4), to(n * 2), one(2);
        rng g(3);
        for (int i = 0; i < n; i++)
            from.as<float>()[i] = static_cast<float>(g.normal());
        run r;
        r.allow(from, false);
        r.allow(to, true);
        tsr_input_args a = {from.as<float>(), to.p.get(), n, t};
        std::string wrong = r.go("tsr_input", a, {(n + 1023) / 1024, 1, 1}, 0);
        if (!wrong.empty())
            return wrong;
        for (int i = 0; i < n; i++) {
            one.set(dtype_of(t), 0, from.as<float>()[i]);
            if (to.get(dtype_of(t), i) != one.get(dtype_of(t), 0))
                return text("input: element %d", i);
        }
    }
    for (tsr_elem in : {TSR_ELEM_F16, TSR_ELEM_BF16, TSR_ELEM_F32})
        for (tsr_elem out : {TSR_ELEM_F16, TSR_ELEM_F32}) {
            std::string wrong = check_store(in, out, in == TSR_ELEM_BF16 ? 32 : 3);
            if (!wrong.empty())
                return wrong;
        }
    return "";
}

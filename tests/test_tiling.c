/* Tiling against the reference's values and by its promises over random shapes; packing of lifetimes. */
#include "random.h"

#include "plan/pack.h"
#include "plan/spans.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- spans, seams, fade */

/* Printed by the Python reference: spans in latents; begins weighted by place (from 1); of spans in pixels, seams
 * 3*begin + end weighted by place, and each span's fade weighted by position + span + 1. */
static const struct {
    int total, tile, overlap, n, length;
    long begins, seams;
    double fades;
} reference[] = {
    {160, 64, 8, 3, 59, 405, 8304, 303996},
    {90, 64, 8, 2, 49, 82, 1376, 141840},
    {480, 128, 16, 5, 109, 3711, 90360, 1683836},
    {270, 128, 16, 3, 101, 677, 13936, 875876},
    {19, 8, 2, 3, 8, 45, 960, 5088},
    {23, 8, 4, 5, 8, 151, 4008, 6344},
    {1, 1, 0, 1, 1, 0, 0, 36},
    {64, 64, 32, 1, 64, 0, 0, 131328},
    {65, 64, 32, 2, 49, 32, 912, 102440},
    {7, 1, 0, 7, 1, 112, 2912, 420},
    {100, 10, 5, 19, 10, 11400, 344280, 39600},
    {101, 10, 5, 20, 10, 12733, 386896, 40400},
    {33, 4, 1, 11, 4, 1275, 36168, 5672},
    {240, 64, 8, 5, 55, 1852, 45152, 427196},
    {136, 64, 8, 3, 51, 341, 7024, 223580},
    {12, 8, 3, 2, 8, 8, 160, 3168},
    {1942, 83, 9, 27, 81, 468975, 14229696, 5243396},
    {1334, 102, 3, 14, 99, 86450, 2492672, 4300816},
    {1682, 19, 8, 153, 19, 13061078, 414633160, 2052036},
    {749, 25, 9, 47, 25, 544464, 16958488, 740012},
    {1864, 15, 3, 156, 15, 15095005, 478722080, 2057856},
    {144, 108, 15, 2, 80, 128, 2176, 369792},
    {1129, 24, 6, 63, 24, 1485128, 46506760, 1151576},
    {1694, 16, 1, 113, 16, 7205128, 227581776, 1633008},
    {1941, 150, 7, 14, 146, 125657, 3624712, 9177048},
    {1200, 148, 50, 12, 146, 54807, 1577952, 5664000},
    {2000, 13, 1, 167, 13, 18582270, 589437592, 2167996},
    {1141, 12, 6, 190, 12, 13656915, 434462360, 1305304},
    {632, 147, 71, 8, 142, 11760, 330176, 2892032},
    {129, 183, 72, 1, 129, 0, 0, 533028},
    {1394, 128, 54, 19, 125, 160785, 4833792, 5681908},
};

Test(spans, agree_with_the_reference) {
    for (size_t c = 0; c < sizeof reference / sizeof *reference; c++) {
        tsr_span s[256], cut[256];
        int n = tsr_spans(reference[c].total, reference[c].tile, reference[c].overlap, s, 256);
        cr_assert_eq(n, reference[c].n, "case %zu", c);
        cr_assert_eq(s[0].end, reference[c].length);
        long begins = 0, seams = 0;
        for (int i = 0; i < n; i++) {
            begins += (i + 1L) * s[i].begin;
            s[i] = (tsr_span){8 * s[i].begin, 8 * s[i].end};
        }
        tsr_seams(s, n, cut);
        for (int i = 0; i + 1 < n; i++)
            seams += (i + 1L) * (3 * cut[i].begin + cut[i].end);
        double fades = 0;
        for (int i = 0; i < n; i++) {
            float w[2048];
            tsr_fade(s, n, i, w);
            for (int x = 0; x < s[i].end - s[i].begin; x++)
                fades += (double)w[x] * (x + 1 + i);
        }
        cr_assert_eq(begins, reference[c].begins, "case %zu", c);
        cr_assert_eq(seams, reference[c].seams, "case %zu", c);
        cr_assert(fabs(fades - reference[c].fades) < 1e-7 * reference[c].fades, "case %zu: %.9g, expected %.9g", c,
            fades, reference[c].fades);
    }
}

Test(spans, fade_is_the_reference_s_raised_cosine) {
    static const double want[] = {0.0010705383806982605, 0.009607359398784385, 0.026534935252447156,
        0.05156362923365587, 0.08426519384872738, 0.12408009626051131, 0.17032709244996552, 0.22221488349019886};
    tsr_span s[4] = {{0, 56}, {32, 88}, {64, 120}, {96, 152}};
    float w[56];
    tsr_fade(s, 4, 1, w);
    for (int i = 0; i < 8; i++)
        cr_assert(fabs((double)w[i] - want[i]) < 1e-7);
}

Test(spans, keep_their_promises) {
    enum { MOST = 4096 };
    static tsr_span s[MOST], cut[MOST];
    static float sum[1 << 16], w[1 << 16];
    static int touched[1 << 16];
    for (int c = 0; c < 10000; c++) {
        int total = 1 + below(c % 2 ? 60 : 2000), tile = 1 + below(c % 3 ? 40 : 600), overlap = below(tile / 2 + 1);
        int unit = 1 + below(3);
        int n = tsr_spans(total, tile, overlap, s, MOST), length = tsr_span_length(total, tile, overlap);
        cr_assert(n <= MOST && length <= tile && length <= total);
        cr_assert(s[0].begin == 0 && s[n - 1].end == total, "%d %d %d", total, tile, overlap);
        for (int i = 0; i < n; i++) {
            cr_assert_eq(s[i].end - s[i].begin, length);
            cr_assert(i == 0 || s[i - 1].end - s[i].begin >= overlap);
            cr_assert(i == 0 || s[i].begin > s[i - 1].begin);
        }
        if (n > 1) /* one fewer does not do */
            cr_assert((int64_t)(n - 1) * tile - (int64_t)(n - 2) * overlap < total);
        for (int i = 0; i < n; i++)
            s[i] = (tsr_span){unit * s[i].begin, unit * s[i].end};
        tsr_seams(s, n, cut);
        for (int i = 0; i + 1 < n; i++) {
            cr_assert(cut[i].begin <= cut[i].end);
            cr_assert(i == 0 || cut[i - 1].end <= cut[i].begin, "seams meet: %d %d %d", total, tile, overlap);
        }
        memset(sum, 0, sizeof *sum * (size_t)(unit * total));
        memset(touched, 0, sizeof *touched * (size_t)(unit * total));
        for (int i = 0; i < n; i++) {
            tsr_fade(s, n, i, w);
            for (int x = s[i].begin; x < s[i].end; x++) {
                float v = w[x - s[i].begin];
                cr_assert(v >= 0 && v <= 1);
                sum[x] += v;
                touched[x] += v > 0;
            }
        }
        for (int x = 0; x < unit * total; x++)
            cr_assert(touched[x] <= 2 && fabsf(sum[x] - 1) < 1e-6f, "%d of %d %d %d: %g from %d", x, total, tile,
                overlap, (double)sum[x], touched[x]);
    }
}

Test(spans, huge_axes_do_not_overflow) {
    tsr_span s[2];
    int n = tsr_spans(INT32_MAX, 1024, 512, s, 2), length = tsr_span_length(INT32_MAX, 1024, 512);
    cr_assert(n > INT32_MAX / 1024 && length <= 1024 && s[0].begin == 0 && s[1].begin > 0 && s[1].begin <= 512);
    cr_assert_eq(tsr_spans(INT32_MAX, 1, 0, s, 2), INT32_MAX);
    cr_assert_eq(tsr_spans(INT32_MAX, INT32_MAX, INT32_MAX / 2, s, 2), 1);
}

/* ---------------------------------------------------------------- packing */

/* Byte ranges that live from `first` on: the lead, or the rest. */
static void check_apart(const tsr_life *a, size_t at_a, const tsr_life *b, size_t at_b) {
    for (int k = 0; k < 4; k++) {
        bool lead_a = k & 1, lead_b = k & 2;
        int first_a = lead_a ? a->lead_first : a->first, first_b = lead_b ? b->lead_first : b->first;
        size_t begin_a = at_a + (lead_a ? 0 : a->lead), end_a = at_a + (lead_a ? a->lead : a->bytes);
        size_t begin_b = at_b + (lead_b ? 0 : b->lead), end_b = at_b + (lead_b ? b->lead : b->bytes);
        bool together = first_a <= b->last && first_b <= a->last;
        cr_assert(!together || begin_a == end_a || begin_b == end_b || end_a <= begin_b || end_b <= begin_a,
            "two live buffers overlap");
    }
}

static void check_packing(const tsr_life *life, int n, size_t align, const size_t *at, size_t bytes) {
    for (int i = 0; i < n; i++) {
        cr_assert(at[i] % align == 0 && at[i] + life[i].bytes <= bytes);
        for (int j = 0; j < i; j++)
            check_apart(&life[i], at[i], &life[j], at[j]);
    }
}

Test(pack, never_overlaps_what_lives_together) {
    double worst = 1;
    for (int c = 0; c < 10000; c++) {
        enum { MOST = 60 };
        tsr_life life[MOST];
        size_t at[MOST], bytes, align = (size_t)1 << below(9);
        int n = below(MOST + 1), ops = 1 + below(80);
        for (int i = 0; i < n; i++) {
            int first = below(ops), length = below(c % 2 ? 6 : ops);
            life[i] =
                (tsr_life){(size_t)below(1 << below(24)), first, first + length < ops ? first + length : ops - 1, 0, 0};
            if (c % 5 > 2 && below(2)) {
                life[i].lead = (size_t)below((int)life[i].bytes + 1);
                life[i].lead_first = below(life[i].last + 1);
            }
        }
        cr_assert_eq(tsr_pack(life, n, align, c % 4, 0, at, &bytes), TSR_OK);
        size_t bound = tsr_pack_bound(life, n, align);
        check_packing(life, n, align, at, bytes);
        cr_assert_geq(bytes, bound);
        if (bound && (double)bytes / (double)bound > worst)
            worst = (double)bytes / (double)bound;
    }
    cr_assert_lt(worst, 2.0, "greedy packing of random lifetimes should not be worse than twice the bound");
}

Test(pack, meets_the_bound_of_a_chain) {
    tsr_life life[100]; /* each layer reads the one before: two alive at a time */
    size_t at[100], bytes;
    for (int i = 0; i < 100; i++)
        life[i] = (tsr_life){(size_t)(1 + below(1000)) << 10, i, i + 1, 0, 0};
    cr_assert_eq(tsr_pack(life, 100, 256, 8, 0, at, &bytes), TSR_OK);
    check_packing(life, 100, 256, at, bytes);
    cr_assert_eq(bytes, tsr_pack_bound(life, 100, 256));
}

Test(pack, what_comes_late_takes_the_place_of_what_has_gone) {
    /* norm (op 1) makes b of a; its lead is filled at op 2, when a is dead, and may lie where a lay. */
    const tsr_life life[] = {{1000, 0, 1, 0, 0}, {1500, 1, 3, 1000, 2}};
    size_t at[2], bytes;
    cr_assert_eq(tsr_pack_bound(life, 2, 1), 1500);
    cr_assert_eq(tsr_pack(life, 2, 1, 0, 0, at, &bytes), TSR_OK);
    check_packing(life, 2, 1, at, bytes);
    cr_assert_eq(bytes, 1500);
}

Test(pack, sees_overflow) {
    tsr_life life[2] = {{SIZE_MAX / 2, 0, 1, 0, 0}, {SIZE_MAX / 2 + 2, 1, 2, 0, 0}};
    size_t at[2], bytes;
    cr_assert_eq(tsr_pack(life, 2, 1, 0, 0, at, &bytes), TSR_ERR_UNSUPPORTED);
    cr_assert_eq(tsr_pack_bound(life, 2, 64), SIZE_MAX);
}

/* Number conversions against exhaustive or independent arithmetic, checked sizes, memory, worker threads. */
#include "core/core.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

Test(dtype, f16_agrees_with_the_compiler) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        _Float16 x;
        uint16_t u = (uint16_t)h;
        memcpy(&x, &u, 2);
        float f = tsr_f16_to_f32(u);
        cr_assert((isnan((float)x) && isnan(f)) || (float)x == f, "f16 %04x: %g, expected %g", h, (double)f, (double)x);
    }
    uint64_t seed = 1;
    for (int i = 0; i < 2000000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t u = (uint32_t)(seed >> 32);
        float f;
        memcpy(&f, &u, 4);
        if (isnan(f))
            continue;
        _Float16 x = (_Float16)f;
        uint16_t want;
        memcpy(&want, &x, 2);
        cr_assert(tsr_f32_to_f16(f) == want, "%a: %04x, expected %04x", (double)f, tsr_f32_to_f16(f), want);
    }
}

Test(dtype, e4m3_rounds_to_the_nearest_even_code) {
    for (int v = 0; v < 256; v++) {
        float f = tsr_e4m3_to_f32((uint8_t)v);
        if ((v & 0x7f) == 0x7f) {
            cr_assert(isnan(f));
            continue;
        }
        cr_assert(tsr_f32_to_e4m3(f) == v, "code %02x comes back as %02x", v, tsr_f32_to_e4m3(f));
        if ((v & 0x7f) == 0x7e)
            continue;
        float next = tsr_e4m3_to_f32((uint8_t)(v + 1)), half = (f + next) / 2; /* exact in f32 */
        int even = v & 1 ? v + 1 : v;
        cr_assert(tsr_f32_to_e4m3(half) == even);
        cr_assert(tsr_f32_to_e4m3(nextafterf(half, f)) == v);
        cr_assert(tsr_f32_to_e4m3(nextafterf(half, next)) == v + 1);
    }
    cr_assert(tsr_f32_to_e4m3(1e9f) == 0x7e);
    cr_assert(tsr_f32_to_e4m3(-INFINITY) == 0xfe);
    cr_assert((tsr_f32_to_e4m3(NAN) & 0x7f) == 0x7f);
}

Test(dtype, bf16_rounds_and_keeps_nan) {
    cr_assert(tsr_f32_to_bf16(1.0f) == 0x3f80);
    cr_assert(tsr_f32_to_bf16(0x1.01p0f) == 0x3f80); /* a tie goes to the even code */
    cr_assert(tsr_f32_to_bf16(0x1.03p0f) == 0x3f82);
    cr_assert(isnan(tsr_bf16_to_f32(tsr_f32_to_bf16(NAN))));
}

Test(sizes, overflow_is_seen) {
    size_t n = 7;
    cr_assert(tsr_mul(SIZE_MAX / 2, 2, &n) && n == SIZE_MAX - 1);
    cr_assert(!tsr_mul(SIZE_MAX / 2, 3, &n) && n == SIZE_MAX - 1);
    cr_assert(!tsr_add(SIZE_MAX, 1, &n));
}

Test(memory, is_counted_and_can_fail) {
    size_t before = tsr_mem_used();
    void *a = tsr_mem_alloc(1000), *b = tsr_mem_alloc(5000);
    cr_assert(a && b && (uintptr_t)a % 4096 == 0);
    cr_assert_eq(tsr_mem_used(), before + 6000);
    tsr_mem_free(a);
    cr_assert_eq(tsr_mem_used(), before + 5000);
    cr_assert_geq(tsr_mem_peak(), before + 6000);
    tsr_mem_fail_at(1);
    void *c = tsr_mem_alloc(1);
    cr_assert(c);
    cr_assert_null(tsr_mem_alloc(1));
    void *d = tsr_mem_alloc(1);
    cr_assert(d, "only one allocation fails");
    tsr_mem_free(b), tsr_mem_free(c), tsr_mem_free(d);
    cr_assert_eq(tsr_mem_used(), before);
}

enum { PAGES = 64, PAGE = 4096 };

/* Of the first PAGES pages behind p those that are in memory. */
static int resident(void *p) {
    unsigned char in[PAGES];
    int n = 0;
    cr_assert_eq(mincore(p, PAGES * PAGE, in), 0);
    for (int i = 0; i < PAGES; i++)
        n += in[i] & 1;
    return n;
}

Test(memory, pages_are_kept_and_given_back) {
    size_t before = tsr_mem_used();
    char *p = tsr_mem_turn(NULL, PAGES * PAGE);
    cr_assert(p && tsr_mem_used() == before + PAGES * PAGE);
    memset(p, 7, PAGES * PAGE);
    cr_assert_eq(resident(p), PAGES);
    cr_assert(tsr_mem_turn(p, 10 * PAGE + 1) == p);
    cr_assert_eq(tsr_mem_used(), before + 10 * PAGE + 1);
    cr_assert_eq(resident(p), 11);
    cr_assert_eq(p[11 * PAGE - 1], 7);
    tsr_mem_reset_peak();
    cr_assert(tsr_mem_turn(p, 20 * PAGE) == p);
    cr_assert(tsr_mem_used() == before + 20 * PAGE && tsr_mem_peak() == tsr_mem_used());
    cr_assert_eq(resident(p), 11);
    p = tsr_mem_turn(p, 2 * PAGES * PAGE);
    cr_assert(p && tsr_mem_used() == before + 2 * PAGES * PAGE && tsr_mem_peak() == tsr_mem_used(), "never both");
    for (int more = 0; more < 2; more++) {
        tsr_mem_fail_at(0);
        cr_assert_null(tsr_mem_turn(p, more ? 4 * PAGES * PAGE : PAGE));
        tsr_mem_fail_at(-1);
        cr_assert_eq(tsr_mem_used(), before);
        p = tsr_mem_alloc(PAGES * PAGE);
    }
    tsr_mem_free(p);
}

static void count(void *ctx, size_t begin, size_t end) {
    atomic_int *seen = ctx;
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&seen[i], 1);
}

Test(threads, every_element_once) {
    static atomic_int seen[1000];
    for (int threads = 1; threads <= 5; threads++) {
        tsr_threads_set(threads);
        for (size_t n = 0; n <= 1000; n += 37) {
            memset(seen, 0, sizeof seen);
            tsr_parallel_for(n, 3, count, seen);
            for (size_t i = 0; i < 1000; i++)
                cr_assert_eq(atomic_load(&seen[i]), i < n ? 1 : 0);
        }
    }
}

Test(errors, are_one_line) {
    cr_assert_eq(tsr_fail(TSR_ERR_FORMAT, "a\nb%d", 1), TSR_ERR_FORMAT);
    cr_assert_str_eq(tsr_last_error(), "a?b1");
    tsr_fail_context(TSR_ERR_FORMAT, "file %s", "x");
    cr_assert_str_eq(tsr_last_error(), "file x: a?b1");
}

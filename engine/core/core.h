/* The ground floor: failing, logging, memory, number types, worker threads. Everything else builds on it. */
#ifndef TSR_CORE_H
#define TSR_CORE_H

#include <tessera/tessera.h>

/* ---------------------------------------------------------------- failing */

/* Records the message of the calling thread and returns status: `return tsr_fail(TSR_ERR_FORMAT, "...")`. */
tsr_status tsr_fail(tsr_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "context: " in front of the message recorded last. */
tsr_status tsr_fail_context(tsr_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The single check macro: runs the call, keeps its status in `status`, jumps to `error:` where it failed. */
#define TSR_TRY(call)                                                                                                  \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != TSR_OK)                                                                                          \
            goto error;                                                                                                \
    } while (0)

void tsr_log(tsr_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
double tsr_now(void); /* seconds, monotonic */

/* What two APIs share memory and semaphores by. */
#ifdef _WIN32
typedef void *tsr_handle; /* NT handle */
#define TSR_NO_HANDLE NULL
#else
typedef int tsr_handle; /* file descriptor */
#define TSR_NO_HANDLE (-1)
#endif

/* ---------------------------------------------------------------- sizes and memory */

/* Products and sums of sizes that came from a file: false (and *out untouched) where they overflow. */
bool tsr_mul(size_t a, size_t b, size_t *out);
bool tsr_add(size_t a, size_t b, size_t *out);
static inline size_t tsr_align(size_t n, size_t to) { /* `to` a power of two; n far below SIZE_MAX */
    return (n + to - 1) & ~(to - 1);
}

/* Memory that a plan accounts for: what a device holds (on a CPU, it stands for the device's), and what lies on the
 * host beside it. Zeroed? No. Aligned to 4096, so that Vulkan can import it. NULL where it fails. Counted:
 * tsr_mem_used() and tsr_mem_peak() are bytes asked for, over the process; those of the host apart. Tests make the n-th
 * allocation from now fail with tsr_mem_fail_at (0: the next; -1: never). Bookkeeping structs use plain malloc and are
 * not counted. */
void *tsr_mem_alloc(size_t bytes);
void *tsr_mem_alloc_host(size_t bytes);
/* Another size for p (NULL: none yet). What it holds is given up, but its pages stay as far as they serve: the system
 * takes more than half a second to clear those of a decode. The rest is given back. NULL where it fails: p is freed. */
void *tsr_mem_turn(void *p, size_t bytes);
void tsr_mem_free(void *p);
void tsr_mem_count(int64_t bytes);      /* memory that a driver took for the plan; negative: gave back */
void tsr_mem_count_host(int64_t bytes); /* the same of the host's */
size_t tsr_mem_used(void);
size_t tsr_mem_peak(void);
size_t tsr_mem_host_used(void);
size_t tsr_mem_host_peak(void);
void tsr_mem_reset_peak(void); /* both */
void tsr_mem_fail_at(int64_t n);

char *tsr_format_text(const char *format, ...) __attribute__((format(printf, 1, 2))); /* malloc'd, or NULL */
/* "13.0 GiB", "512 KiB": for people. */
const char *tsr_bytes_text(char buf[32], int64_t bytes);
/* The ending of the word after n: "" or "s". */
const char *tsr_plural(int64_t n);

/* ---------------------------------------------------------------- number types */

typedef enum tsr_dtype {
    TSR_F32,
    TSR_F16,
    TSR_BF16,
    TSR_F64,
    TSR_E4M3, /* 8-bit float, 4 exponent bits, no infinity ("fn"), largest 448 */
    TSR_E5M2,
    TSR_U8,
    TSR_I8,
    TSR_I16,
    TSR_I32,
    TSR_I64,
    TSR_BOOL,
    /* GGUF blocks, only ever in files */
    TSR_Q8_0,
    TSR_Q4_0,
    TSR_Q4_1,
    TSR_Q5_0,
    TSR_Q5_1,
    TSR_Q2_K,
    TSR_Q3_K,
    TSR_Q4_K,
    TSR_Q5_K,
    TSR_Q6_K,
    TSR_DTYPE_COUNT,
} tsr_dtype;
const char *tsr_dtype_name(tsr_dtype t);
size_t tsr_dtype_size(tsr_dtype t); /* bytes an element; 0 for block types */

float tsr_f16_to_f32(uint16_t h);
uint16_t tsr_f32_to_f16(float f); /* nearest even, overflow to infinity */
static inline float tsr_bf16_to_f32(uint16_t b) {
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)b << 16};
    return v.f;
}
uint16_t tsr_f32_to_bf16(float f); /* nearest even, NaN stays NaN */
float tsr_e4m3_to_f32(uint8_t v);
uint8_t tsr_f32_to_e4m3(float f); /* nearest even, saturating to 448 as CUDA's satfinite; NaN stays NaN */
float tsr_e5m2_to_f32(uint8_t v);

/* n elements of a plain (not block) type to float and back. */
void tsr_to_f32(tsr_dtype t, const void *src, float *dst, size_t n);
void tsr_from_f32(tsr_dtype t, const float *src, void *dst, size_t n);

/* ---------------------------------------------------------------- worker threads */

/* Calls fn(ctx, begin, end) on disjoint ranges that cover [0, n), each at least `grain` long where n allows, on
 * up to tsr_threads() threads, and returns when all are done. The split depends on n, grain and the number of
 * threads only. Not to be nested. */
typedef void (*tsr_range_fn)(void *ctx, size_t begin, size_t end);
void tsr_parallel_for(size_t n, size_t grain, tsr_range_fn fn, void *ctx);
int tsr_threads(void);
void tsr_threads_set(int n); /* 0: one a core */
/* OpenMP counts threads per calling thread: makes the caller's loops, those of libraries too, use tsr_threads(). */
void tsr_threads_apply(void);

#endif

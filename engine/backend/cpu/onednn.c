#include "backend/cpu/onednn.h"

#include <pthread.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void start(void) {
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        engine = NULL;
    else if (dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success)
        stream = NULL;
}

dnnl_engine_t tsr_dnnl_engine(void) {
    pthread_once(&once, start);
    return engine;
}

dnnl_stream_t tsr_dnnl_stream(void) {
    pthread_once(&once, start);
    return stream;
}

tsr_status tsr_dnnl_check(dnnl_status_t status, const char *what) {
    switch (status) {
    case dnnl_success:
        return TSR_OK;
    case dnnl_out_of_memory:
        return tsr_fail(TSR_ERR_MEMORY, "oneDNN: out of memory in %s", what);
    case dnnl_unimplemented:
        return tsr_fail(TSR_ERR_UNSUPPORTED, "oneDNN: no implementation for %s; run with the plain C tier", what);
    default:
        return tsr_fail(TSR_ERR_DEVICE, "oneDNN: status %d from %s; run with the plain C tier", (int)status, what);
    }
}

/* ---------------------------------------------------------------- sizes, which the planner asks for many times */

static tsr_dnnl_sizes measure(tsr_status (*create)(const void *ctx, dnnl_primitive_desc_t *out), const void *ctx) {
    dnnl_primitive_desc_t desc;
    if (create(ctx, &desc) != TSR_OK)
        return (tsr_dnnl_sizes){0};
    tsr_dnnl_sizes out = {
        dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0)),
        dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0)),
    };
    dnnl_primitive_desc_destroy(desc);
    return out;
}

tsr_dnnl_sizes tsr_dnnl_sizes_of(
    const tsr_dnnl_shape *s, tsr_status (*create)(const void *ctx, dnnl_primitive_desc_t *out), const void *ctx) {
    enum { ENTRIES = 4096 };
    static struct {
        tsr_dnnl_shape key;
        tsr_dnnl_sizes value;
    } table[ENTRIES];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint32_t hash = 2166136261u; /* FNV-1a over the numbers */
    for (size_t i = 0; i < sizeof *s / sizeof(int); i++)
        hash = (hash ^ (uint32_t)((const int *)s)[i]) * 16777619u;
    size_t at = (hash ^ hash >> 16) % ENTRIES;
    pthread_mutex_lock(&lock);
    bool known = memcmp(&table[at].key, s, sizeof *s) == 0;
    tsr_dnnl_sizes out = table[at].value;
    pthread_mutex_unlock(&lock);
    if (known)
        return out;
    out = measure(create, ctx);
    pthread_mutex_lock(&lock);
    table[at].key = *s;
    table[at].value = out;
    pthread_mutex_unlock(&lock);
    return out;
}

/* ---------------------------------------------------------------- packing */

tsr_status tsr_dnnl_reorder(
    const tsr_kernel *k, dnnl_data_type_t type, const void *from, const dnnl_memory_desc_t *wanted, void *to) {
    tsr_status status;
    dnnl_memory_desc_t plain;
    dnnl_memory_t src = NULL, dst = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_engine_t on = tsr_dnnl_engine();
    DNNL_TRY(dnnl_memory_desc_init_by_tag(
        &plain, 5, (dnnl_dims_t){k->cout, k->cin, k->kt, k->kh, k->kw}, type, dnnl_odhwi));
    DNNL_TRY(dnnl_memory_create(&src, &plain, on, (void *)from));
    DNNL_TRY(dnnl_memory_create(&dst, wanted, on, to));
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&desc, &plain, on, wanted, on, NULL));
    DNNL_TRY(dnnl_primitive_create(&primitive, desc));
    DNNL_TRY(dnnl_primitive_execute(
        primitive, tsr_dnnl_stream(), 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, src}, {DNNL_ARG_TO, dst}}));
    DNNL_TRY(dnnl_stream_wait(tsr_dnnl_stream()));
error:
    if (primitive)
        dnnl_primitive_destroy(primitive);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (dst)
        dnnl_memory_destroy(dst);
    if (src)
        dnnl_memory_destroy(src);
    return status;
}

/* ---------------------------------------------------------------- the tier */

static bool here(void) {
    return tsr_dnnl_engine() && tsr_dnnl_stream();
}

static void gemm(int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc) {
    dnnl_status_t status = dnnl_sgemm('N', 'N', m, n, k, 1, a, lda, b, ldb, beta, c, ldc);
    if (status != dnnl_success) /* it has no memory for its own buffers: slower, but right */
        tsr_sgemm_plain(m, n, k, a, lda, b, ldb, beta, c, ldc);
}

const tsr_tier tsr_tier_onednn = {
    .name = "oneDNN",
    .here = here,
    .gemm = gemm,
    .kernel_bytes = tsr_dnnl_kernel_bytes,
    .pack = tsr_dnnl_pack,
    .unpack = tsr_dnnl_unpack,
    .packed_for = tsr_dnnl_packed_for,
    .op =
        {
            [TSR_OP_CONV] = {tsr_dnnl_conv_can, tsr_dnnl_conv_scratch, tsr_dnnl_conv_bind, tsr_dnnl_conv_unbind,
                tsr_dnnl_conv_run},
            [TSR_OP_ATTENTION] = {.can = tsr_dnnl_attention_can,
                .scratch = tsr_dnnl_attention_scratch,
                .run = tsr_dnnl_attention_run},
        },
};

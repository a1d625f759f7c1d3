/* Slabs: device memory exported for another API, that API's memory imported, or pinned host memory. */
#include "backend/cuda/device.h"

#include <stdlib.h>

typedef struct record { /* one of the three */
    tsr_cuda_block block;
    tsr_cuda_foreign foreign;
    void *pinned;
} record;

enum { PAGE = 4096 };

/* Pinned memory may begin anywhere: the pages are those that lie wholly in it. */
static tsr_status on_host(tsr_cuda *c, size_t bytes, tsr_slab *s) {
    CUdeviceptr at = 0;
    char text[32];
    tsr_status status;
    size_t pages = tsr_align(bytes, PAGE);
    record *r = calloc(1, sizeof *r);
    if (!r)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    status = tsr_cuda_pin(c, pages + PAGE, &r->pinned, &at);
    if (status != TSR_OK)
        TSR_TRY(tsr_fail_context(status, "%s for slots", tsr_bytes_text(text, (int64_t)bytes)));
    size_t skip = (PAGE - (uintptr_t)r->pinned % PAGE) % PAGE;
    *s = (tsr_slab){.kind = TSR_SLAB_HOST,
        .bytes = bytes,
        .export_bytes = pages,
        .host = (char *)r->pinned + skip,
        .device = at + skip,
        .handle = TSR_NO_HANDLE,
        .backend = r};
    tsr_mem_count((int64_t)bytes); /* wherever slots lie, a plan has them among what is the device's */
    return TSR_OK;
error:
    tsr_cuda_unpin(c, r->pinned);
    free(r);
    return status;
}

/* The mapping keeps the memory once the handle is released. */
static tsr_status on_device(tsr_cuda *c, size_t bytes, tsr_slab *s) {
    tsr_handle handle = TSR_NO_HANDLE;
    tsr_status status;
    record *r = calloc(1, sizeof *r);
    if (!r)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    TSR_TRY(tsr_cuda_block_create(c, bytes, true, "slots", &r->block));
    TSR_TRY(tsr_cu_check(
        tsr_cu.p_cuMemExportToShareableHandle(&handle, r->block.handle, tsr_cuda_handle_type, 0), "exporting memory"));
    tsr_cu.p_cuMemRelease(r->block.handle);
    r->block.handle = 0;
    *s = (tsr_slab){.kind = TSR_SLAB_EXPORTED,
        .bytes = bytes,
        .export_bytes = r->block.bytes,
        .device = r->block.at,
        .handle = handle,
        .backend = r};
    return TSR_OK;
error:
    tsr_cuda_block_destroy(&r->block);
    free(r);
    return status;
}

tsr_status tsr_cuda_slab_alloc(tsr_backend *b, size_t bytes, tsr_slab *out) {
    tsr_cuda *c = (tsr_cuda *)b;
    tsr_status status = tsr_cuda_enter(c);
    if (status != TSR_OK)
        return status;
    return c->exports && !b->slabs_on_host ? on_device(c, bytes, out) : on_host(c, bytes, out);
}

tsr_status tsr_cuda_slab_import(
    tsr_backend *b, tsr_handle handle, size_t bytes, size_t export_bytes, bool dedicated, tsr_slab *out) {
    tsr_cuda_foreign foreign;
    tsr_status status = tsr_cuda_foreign_import((tsr_cuda *)b, handle, export_bytes, dedicated, &foreign);
    if (status != TSR_OK)
        return status;
    record *r = calloc(1, sizeof *r);
    if (!r) {
        tsr_cuda_foreign_release(&foreign);
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    }
    r->foreign = foreign;
    *out = (tsr_slab){.kind = TSR_SLAB_IMPORTED,
        .bytes = bytes,
        .export_bytes = export_bytes,
        .device = r->foreign.at,
        .handle = TSR_NO_HANDLE,
        .backend = r};
    tsr_mem_count((int64_t)bytes);
    return TSR_OK;
}

void tsr_cuda_slab_free(tsr_backend *b, tsr_slab *s) {
    if (!s->bytes)
        return;
    tsr_cu.p_cuCtxSetCurrent(((tsr_cuda *)b)->context);
    tsr_cu.p_cuStreamSynchronize(((tsr_cuda *)b)->stream); /* a step may still write it */
    if (s->kind != TSR_SLAB_EXPORTED) /* whose block counts itself */
        tsr_mem_count(-(int64_t)s->bytes);
    record *r = s->backend;
    tsr_cuda_block_destroy(&r->block);
    tsr_cuda_foreign_release(&r->foreign);
    tsr_cuda_unpin((tsr_cuda *)b, r->pinned);
    tsr_cuda_handle_close(s->handle);
    free(r);
    *s = (tsr_slab){.handle = TSR_NO_HANDLE};
}

tsr_status tsr_cuda_slab_read(tsr_backend *b, const tsr_slab *s, size_t at, size_t bytes, void *host) {
    const tsr_cuda *c = (tsr_cuda *)b;
    tsr_status status;
    TSR_TRY(tsr_cuda_enter(c));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemcpyDtoHAsync(host, s->device + at, bytes, c->stream), "reading a slot"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuStreamSynchronize(c->stream), "reading a slot"));
error:
    return status;
}

tsr_status tsr_cuda_slab_write(tsr_backend *b, const tsr_slab *s, size_t at, size_t bytes, const void *host) {
    const tsr_cuda *c = (tsr_cuda *)b;
    tsr_status status;
    TSR_TRY(tsr_cuda_enter(c));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemcpyHtoDAsync(s->device + at, host, bytes, c->stream), "writing a slot"));
error:
    return status;
}

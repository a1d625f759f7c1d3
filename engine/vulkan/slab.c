/* Slabs: memory that holds slots, written by a backend and read by blends. */
#include "vulkan/internal.h"

#include <stdlib.h>

enum { PAGE = 4096 };

static tsr_status create_slab(size_t bytes, tsr_vk_slab **out) {
    *out = NULL;
    if (!bytes)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: a slab of no bytes");
    tsr_vk_slab *s = calloc(1, sizeof *s);
    if (!s)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for a slab");
    s->bytes = bytes;
    *out = s;
    return TSR_OK;
}

/* Of a slab that no work has seen. */
static void discard_slab(tsr_vk *vk, tsr_vk_slab *s) {
    if (s)
        tsr_vk_buffer_destroy(vk, &s->b);
    free(s);
}

void tsr_vk_slab_destroy(tsr_vk *vk, tsr_vk_slab **s) {
    if (!*s)
        return;
    tsr_vk_drain(vk);
    discard_slab(vk, *s);
    *s = NULL;
}

/* ---------------------------------------------------------------- host pages */

static tsr_status import_pages(tsr_vk *vk, void *pages, vk_buffer *b) {
    tsr_status status;
    const VkExternalMemoryHandleTypeFlagBits kind = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
    TSR_TRY(tsr_vk_buffer_bare(vk, b, b->bytes, kind, "slab of host pages"));
    VkMemoryRequirements need;
    vk->d.vkGetBufferMemoryRequirements(vk->device, b->buffer, &need);
    VkMemoryHostPointerPropertiesEXT props = {.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
    VK(vk->d.vkGetMemoryHostPointerPropertiesEXT(vk->device, kind, pages, &props));
    int type = tsr_vk_memory_type_index(
        vk, need.memoryTypeBits & props.memoryTypeBits, VK_MEMORY_PROPERTY_HOST_COHERENT_BIT, 0);
    if (type < 0 || need.size > b->bytes) {
        status = tsr_fail(TSR_ERR_UNSUPPORTED, "vulkan: no memory type takes these pages");
        goto error;
    }
    VkImportMemoryHostPointerInfoEXT import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        .handleType = kind,
        .pHostPointer = pages,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &import,
        .allocationSize = b->bytes,
        .memoryTypeIndex = (uint32_t)type,
    };
    VK(vk->d.vkAllocateMemory(vk->device, &info, NULL, &b->memory));
    VK(vk->d.vkBindBufferMemory(vk->device, b->buffer, b->memory, 0));
    return TSR_OK;
error:
    tsr_vk_buffer_destroy(vk, b);
    return status;
}

tsr_status tsr_vk_slab_host(tsr_vk *vk, void *pages, size_t bytes, tsr_vk_slab **out, bool *imported) {
    tsr_status status;
    tsr_vk_slab *s = NULL;
    *out = NULL;
    if (imported)
        *imported = false;
    /* Checked here because lavapipe and its validation layer take pages at any address. */
    if ((uintptr_t)pages % PAGE || bytes % PAGE)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "vulkan: a slab at %p of %zu bytes; it must be whole pages of %d", pages, bytes, PAGE);
    TSR_TRY(create_slab(bytes, &s));
    bool fits = vk->host_import && (uintptr_t)pages % vk->import_align == 0 && bytes % vk->import_align == 0 &&
                bytes <= vk->memory_most;
    s->b.bytes = bytes;
    bool took = fits && import_pages(vk, pages, &s->b) == TSR_OK;
    if (fits && !took)
        tsr_log(TSR_LOG_WARN, "%s; tiles are copied", tsr_last_error());
    if (!took) {
        TSR_TRY(tsr_vk_buffer_create(vk, &s->b, bytes, VK_HOME_UPLOAD, "copy of a slab"));
        s->copy_from = pages;
    }
    if (imported)
        *imported = took;
    *out = s;
    return TSR_OK;
error:
    discard_slab(vk, s);
    return status;
}

/* ---------------------------------------------------------------- device memory of another API */

tsr_status tsr_vk_slab_fd(tsr_vk *vk, tsr_handle handle, size_t bytes, tsr_vk_slab **out) {
    tsr_status status;
    tsr_vk_slab *s = NULL;
    bool handed = false;
    *out = NULL;
    if (!vk->memory_import) {
        status = tsr_fail(TSR_ERR_UNSUPPORTED, "vulkan: %s cannot import device memory: %s", vk->properties.deviceName,
            vk->why_no_memory_import);
        goto error;
    }
    TSR_TRY(create_slab(bytes, &s));
    TSR_TRY(tsr_vk_buffer_bare(vk, &s->b, bytes, tsr_vk_memory_type, "imported slab"));
    VkMemoryRequirements need;
    vk->d.vkGetBufferMemoryRequirements(vk->device, s->b.buffer, &need);
    /* The handle's own properties are not asked for: the spec forbids that question about opaque
     * ones. */
    int type = tsr_vk_memory_type_index(vk, need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0);
    if (type < 0 || need.size > bytes) {
        status = tsr_fail(TSR_ERR_UNSUPPORTED, "vulkan: %s wants %zu bytes for a buffer of the %zu exported",
            vk->properties.deviceName, (size_t)need.size, bytes);
        goto error;
    }
    handed = true;
    TSR_TRY(tsr_vk_memory_import_handle(
        vk, handle, bytes, (uint32_t)type, vk->dedicated ? s->b.buffer : VK_NULL_HANDLE, &s->b.memory));
    VK(vk->d.vkBindBufferMemory(vk->device, s->b.buffer, s->b.memory, 0));
    s->external = true;
    *out = s;
    return TSR_OK;
error:
    if (!handed)
        tsr_vk_handle_reject(handle);
    discard_slab(vk, s);
    return status;
}

static tsr_status bind_export(tsr_vk *vk, vk_buffer *b, size_t *export_bytes) {
    tsr_status status;
    TSR_TRY(tsr_vk_buffer_bare(vk, b, b->bytes, tsr_vk_memory_type, "exported slab"));
    VkMemoryRequirements need;
    vk->d.vkGetBufferMemoryRequirements(vk->device, b->buffer, &need);
    int type = tsr_vk_memory_type_index(vk, need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0);
    if (type < 0 || need.size > vk->memory_most) {
        status = tsr_fail(TSR_ERR_MEMORY, "vulkan: %s has no device memory for a slab of %zu bytes",
            vk->properties.deviceName, b->bytes);
        goto error;
    }
    VkMemoryDedicatedAllocateInfo alone = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, .buffer = b->buffer};
    VkExportMemoryAllocateInfo ext = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
        .pNext = vk->dedicated ? &alone : NULL,
        .handleTypes = tsr_vk_memory_type,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &ext,
        .allocationSize = need.size,
        .memoryTypeIndex = (uint32_t)type,
    };
    VK(vk->d.vkAllocateMemory(vk->device, &info, NULL, &b->memory));
    b->taken = *export_bytes = need.size;
    vk->used += b->taken;
    VK(vk->d.vkBindBufferMemory(vk->device, b->buffer, b->memory, 0));
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_slab_export(tsr_vk *vk, size_t bytes, tsr_vk_slab **out, tsr_handle *handle, size_t *export_bytes) {
    tsr_status status;
    tsr_vk_slab *s = NULL;
    *out = NULL;
    *handle = TSR_NO_HANDLE;
    if (!vk->memory_export)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "vulkan: %s cannot export device memory", vk->properties.deviceName);
    TSR_TRY(create_slab(bytes, &s));
    s->b.bytes = bytes;
    TSR_TRY(bind_export(vk, &s->b, export_bytes));
    TSR_TRY(tsr_vk_memory_export_handle(vk, s->b.memory, handle));
    s->external = true;
    *out = s;
    return TSR_OK;
error:
    discard_slab(vk, s);
    return status;
}

bool tsr_vk_exports_dedicated(const tsr_vk *vk) {
    return vk->dedicated;
}

/* ---------------------------------------------------------------- writing */

tsr_status tsr_vk_slab_fill(tsr_vk *vk, tsr_vk_slab *s, size_t at, size_t bytes, uint32_t word) {
    tsr_status status;
    size_t end;
    vk_batch *batch;
    if (at % 4 || bytes % 4 || !bytes || !tsr_add(at, bytes, &end) || end > s->bytes)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: %zu bytes at %zu of a slab of %zu", bytes, at, s->bytes);
    TSR_TRY(tsr_vk_batch_room(vk, 0, 0, NULL, 0, &batch));
    if (s->external)
        tsr_vk_change_owner(vk, batch, s, at, bytes, true);
    vk->d.vkCmdFillBuffer(batch->commands, s->b.buffer, at, bytes, word);
    if (s->external)
        tsr_vk_change_owner(vk, batch, s, at, bytes, false);
    return TSR_OK;
error:
    return status;
}

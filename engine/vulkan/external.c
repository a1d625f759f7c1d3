/* Memory and semaphores shared with another API: file descriptors, and NT handles on Windows. The
 * only file that knows one from the other. */
#include "vulkan/internal.h"

#include <stdlib.h>

#ifdef _WIN32

const VkExternalMemoryHandleTypeFlagBits tsr_vk_memory_type = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_WIN32_BIT;
const VkExternalSemaphoreHandleTypeFlagBits tsr_vk_semaphore_type = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_WIN32_BIT;
const char *const tsr_vk_memory_extension = VK_KHR_EXTERNAL_MEMORY_WIN32_EXTENSION_NAME;
const char *const tsr_vk_memory_lacking = "the driver lacks " VK_KHR_EXTERNAL_MEMORY_WIN32_EXTENSION_NAME;
const char *const tsr_vk_semaphore_extension = VK_KHR_EXTERNAL_SEMAPHORE_WIN32_EXTENSION_NAME;
const char *const tsr_vk_semaphore_lacking = "the driver lacks " VK_KHR_EXTERNAL_SEMAPHORE_WIN32_EXTENSION_NAME;

void tsr_vk_handle_reject(tsr_handle handle) {
    (void)handle; /* stays the caller's */
}

tsr_status tsr_vk_memory_export_handle(tsr_vk *vk, VkDeviceMemory memory, tsr_handle *out) {
    tsr_status status;
    VkMemoryGetWin32HandleInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_GET_WIN32_HANDLE_INFO_KHR,
        .memory = memory,
        .handleType = tsr_vk_memory_type,
    };
    VK(vk->d.vkGetMemoryWin32HandleKHR(vk->device, &info, out));
    return TSR_OK;
error:
    return status;
}

static tsr_status semaphore_export(tsr_vk *vk, VkSemaphore semaphore, tsr_handle *out) {
    tsr_status status;
    VkSemaphoreGetWin32HandleInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_WIN32_HANDLE_INFO_KHR,
        .semaphore = semaphore,
        .handleType = tsr_vk_semaphore_type,
    };
    VK(vk->d.vkGetSemaphoreWin32HandleKHR(vk->device, &info, out));
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_memory_import_handle(
    tsr_vk *vk, tsr_handle handle, VkDeviceSize bytes, uint32_t type, VkBuffer dedicated, VkDeviceMemory *out) {
    tsr_status status;
    VkMemoryDedicatedAllocateInfo alone = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, .buffer = dedicated};
    VkImportMemoryWin32HandleInfoKHR import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_WIN32_HANDLE_INFO_KHR,
        .pNext = dedicated ? &alone : NULL,
        .handleType = tsr_vk_memory_type,
        .handle = handle,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &import,
        .allocationSize = bytes,
        .memoryTypeIndex = type,
    };
    VK(vk->d.vkAllocateMemory(vk->device, &info, NULL, out));
    return TSR_OK;
error:
    return status;
}

#else

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

const VkExternalMemoryHandleTypeFlagBits tsr_vk_memory_type = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
const VkExternalSemaphoreHandleTypeFlagBits tsr_vk_semaphore_type = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT;
const char *const tsr_vk_memory_extension = VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME;
const char *const tsr_vk_memory_lacking = "the driver lacks " VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME;
const char *const tsr_vk_semaphore_extension = VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME;
const char *const tsr_vk_semaphore_lacking = "the driver lacks " VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME;

void tsr_vk_handle_reject(tsr_handle handle) {
    if (handle >= 0)
        close(handle);
}

tsr_status tsr_vk_memory_export_handle(tsr_vk *vk, VkDeviceMemory memory, tsr_handle *out) {
    tsr_status status;
    VkMemoryGetFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
        .memory = memory,
        .handleType = tsr_vk_memory_type,
    };
    VK(vk->d.vkGetMemoryFdKHR(vk->device, &info, out));
    return TSR_OK;
error:
    return status;
}

static tsr_status semaphore_export(tsr_vk *vk, VkSemaphore semaphore, tsr_handle *out) {
    tsr_status status;
    VkSemaphoreGetFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
        .semaphore = semaphore,
        .handleType = tsr_vk_semaphore_type,
    };
    VK(vk->d.vkGetSemaphoreFdKHR(vk->device, &info, out));
    return TSR_OK;
error:
    return status;
}

/* Vulkan is given a duplicate: after a failure the spec leaves it ours, yet Mesa 22 closes it.
 * Closing it again could hit a file another thread opened meanwhile, so it is closed only where it
 * still is the file we handed in. */
static void close_left(int copy, int original) {
    struct stat a, b;
    if (!fstat(copy, &a) && !fstat(original, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        close(copy);
}

tsr_status tsr_vk_memory_import_handle(
    tsr_vk *vk, tsr_handle handle, VkDeviceSize bytes, uint32_t type, VkBuffer dedicated, VkDeviceMemory *out) {
    tsr_status status = TSR_OK;
    int copy = fcntl(handle, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "vulkan: the memory's file descriptor %d is not open, or there are too many", handle);
    VkMemoryDedicatedAllocateInfo alone = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, .buffer = dedicated};
    VkImportMemoryFdInfoKHR import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
        .pNext = dedicated ? &alone : NULL,
        .handleType = tsr_vk_memory_type,
        .fd = copy,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &import,
        .allocationSize = bytes,
        .memoryTypeIndex = type,
    };
    VK(vk->d.vkAllocateMemory(vk->device, &info, NULL, out));
    close(handle);
    return TSR_OK;
error:
    close_left(copy, handle);
    close(handle);
    return status;
}

#endif

/* ---------------------------------------------------------------- timelines */

tsr_status tsr_vk_timeline_create(tsr_vk *vk, bool exportable, tsr_vk_timeline **out) {
    tsr_status status;
    *out = NULL;
    if (exportable && !vk->timeline_export)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
            "vulkan: %s cannot share timeline semaphores (%s); signal them from the host", vk->properties.deviceName,
            vk->why_no_timeline_export);
    tsr_vk_timeline *t = calloc(1, sizeof *t);
    if (!t)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for a timeline");
    t->exportable = exportable;
    VkExportSemaphoreCreateInfo ext = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO, .handleTypes = tsr_vk_semaphore_type};
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .pNext = exportable ? &ext : NULL,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VK(vk->d.vkCreateSemaphore(vk->device, &info, NULL, &t->semaphore));
    tsr_vk_name(vk, VK_OBJECT_TYPE_SEMAPHORE, (uint64_t)t->semaphore, "timeline");
    *out = t;
    return TSR_OK;
error:
    free(t);
    return status;
}

void tsr_vk_timeline_destroy(tsr_vk *vk, tsr_vk_timeline **t) {
    if (!*t)
        return;
    tsr_vk_drain(vk);
    vk->d.vkDestroySemaphore(vk->device, (*t)->semaphore, NULL);
    free(*t);
    *t = NULL;
}

tsr_status tsr_vk_timeline_export(tsr_vk *vk, tsr_vk_timeline *t, tsr_handle *out) {
    *out = TSR_NO_HANDLE;
    if (!t->exportable)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "vulkan: this timeline was not made to be exported");
    return semaphore_export(vk, t->semaphore, out);
}

tsr_status tsr_vk_timeline_signal(tsr_vk *vk, tsr_vk_timeline *t, uint64_t value) {
    tsr_status status;
    VkSemaphoreSignalInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = t->semaphore, .value = value};
    VK(vk->d.vkSignalSemaphore(vk->device, &info));
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_timeline_value(tsr_vk *vk, tsr_vk_timeline *t, uint64_t *value) {
    tsr_status status;
    VK(vk->d.vkGetSemaphoreCounterValue(vk->device, t->semaphore, value));
    return TSR_OK;
error:
    return status;
}

tsr_vk_timeline *tsr_vk_progress(tsr_vk *vk) {
    return vk->progress;
}

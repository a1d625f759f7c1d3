/* What Mesa's software driver cannot do, lent to it for the tests of interop: timeline semaphores behind file
 * descriptors, which the driver without a GPU signals and waits for through the host; and memory, which the two do
 * share. */
#ifndef CUDA_LEND_H
#define CUDA_LEND_H

#include "fake_help.h"
#include "vulkan/internal.h"

#include <sys/mman.h>
#include <unistd.h>

static struct {
    tsr_vk *vk;
    PFN_vkCreateSemaphore create;
    uint8_t uuid[16], mark[16]; /* the Vulkan device's; of the files behind its memory */
} lent;

static VKAPI_ATTR VkResult VKAPI_CALL lend_fd(VkDevice device, const VkSemaphoreGetFdInfoKHR *info, int *fd) {
    (void)device;
    *fd = memfd_create("timeline", MFD_CLOEXEC);
    return write(*fd, &info->semaphore, sizeof info->semaphore) > 0 ? VK_SUCCESS : VK_ERROR_TOO_MANY_OBJECTS;
}

static VKAPI_ATTR VkResult VKAPI_CALL lend_create(
    VkDevice device, const VkSemaphoreCreateInfo *info, const VkAllocationCallbacks *allocator, VkSemaphore *out) {
    VkSemaphoreTypeCreateInfo type = *(const VkSemaphoreTypeCreateInfo *)info->pNext;
    VkSemaphoreCreateInfo bare = *info;
    type.pNext = NULL; /* that it is to be exported */
    bare.pNext = &type;
    return lent.create(device, &bare, allocator, out);
}

static void *timeline_open(int fd) {
    VkSemaphore *s = malloc(sizeof *s); /* outlives the test: nobody tells when it ends */
    return pread(fd, s, sizeof *s, 0) == sizeof *s ? s : NULL;
}

static void timeline_signal(void *timeline, uint64_t value) {
    VkSemaphoreSignalInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = *(VkSemaphore *)timeline, .value = value};
    lent.vk->d.vkSignalSemaphore(lent.vk->device, &info);
}

static uint64_t timeline_value(void *timeline) {
    uint64_t value = 0;
    lent.vk->d.vkGetSemaphoreCounterValue(lent.vk->device, *(VkSemaphore *)timeline, &value);
    return value;
}

/* To the Vulkan device of an engine that has not probed yet. */
static inline void lend_timelines(tsr_engine *e) {
    ok(tsr_engine_vulkan(e));
    lent.vk = e->vk;
    lent.create = e->vk->d.vkCreateSemaphore;
    e->vk->d.vkCreateSemaphore = lend_create;
    e->vk->d.vkGetSemaphoreFdKHR = lend_fd;
    e->vk->timeline_export = e->vk->progress->exportable = true;
    fake.set_timelines(&(fake_cuda_timelines){timeline_open, timeline_signal, timeline_value});
}

/* Skips the test where Vulkan is not one that memory can be shared with here. */
static inline void learn_vulkan(void) {
    tsr_vk *vk;
    tsr_vk_slab *slab;
    int fd;
    size_t bytes;
    if (tsr_vk_create(&vk, &(tsr_vk_params){.index = -1}) != TSR_OK)
        cr_skip_test("no Vulkan here: %s", tsr_last_error());
    memcpy(lent.uuid, vk->id.deviceUUID, sizeof lent.uuid);
    bool software = tsr_vk_is_software(vk) && tsr_vk_slab_export(vk, 4096, &slab, &fd, &bytes) == TSR_OK;
    if (software) {
        cr_assert_eq(pread(fd, lent.mark, sizeof lent.mark, 16), (ssize_t)sizeof lent.mark);
        close(fd);
        tsr_vk_slab_destroy(vk, &slab);
    }
    tsr_vk_destroy(&vk);
    if (!software)
        cr_skip_test("Vulkan here is not Mesa's software driver, or exports no memory");
}

#endif

/* Submissions: recorded one at a time, up to VK_BATCHES of them under way, each numbered by the
 * ticket that the device's own timeline reaches when it is done. */
#include "vulkan/internal.h"

#include <string.h>

static const double ASK_EVERY = 0.1; /* seconds, of tsr_vk_watch */

/* ---------------------------------------------------------------- life */

static tsr_status create_batch(tsr_vk *vk, vk_batch *b) {
    tsr_status status;
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
        .queueFamilyIndex = vk->family,
    };
    VK(vk->d.vkCreateCommandPool(vk->device, &pool, NULL, &b->pool));
    VkCommandBufferAllocateInfo commands = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = b->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VK(vk->d.vkAllocateCommandBuffers(vk->device, &commands, &b->commands));
    VkDescriptorPoolSize sizes[] = {
        {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, VK_BATCH_SETS * VK_SHOW_BINDINGS},
        {VK_DESCRIPTOR_TYPE_STORAGE_IMAGE, VK_BATCH_SETS},
        {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, VK_BATCH_SETS * VK_SHOW_TEXELS},
    };
    VkDescriptorPoolCreateInfo sets = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = VK_BATCH_SETS,
        .poolSizeCount = sizeof sizes / sizeof *sizes,
        .pPoolSizes = sizes,
    };
    VK(vk->d.vkCreateDescriptorPool(vk->device, &sets, NULL, &b->sets));
    TSR_TRY(tsr_vk_buffer_create(vk, &b->upload, VK_BATCH_UPLOAD, VK_HOME_UPLOAD, "weights"));
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_batches_create(tsr_vk *vk) {
    tsr_status status;
    TSR_TRY(tsr_vk_timeline_create(vk, vk->timeline_export, &vk->progress));
    for (int i = 0; i < VK_BATCHES; i++)
        TSR_TRY(create_batch(vk, &vk->batch[i]));
    return TSR_OK;
error:
    return status; /* tsr_vk_destroy cleans up */
}

void tsr_vk_batches_destroy(tsr_vk *vk) {
    tsr_vk_timeline_destroy(vk, &vk->progress); /* drains */
    for (int i = 0; i < VK_BATCHES; i++) {
        vk_batch *b = &vk->batch[i];
        tsr_vk_buffer_destroy(vk, &b->upload);
        vk->d.vkDestroyDescriptorPool(vk->device, b->sets, NULL);
        vk->d.vkDestroyCommandPool(vk->device, b->pool, NULL);
    }
}

/* ---------------------------------------------------------------- recording */

/* Everything before is done and visible to everything after. */
static void barrier(tsr_vk *vk, vk_batch *b) {
    VkMemoryBarrier all = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_HOST_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |
                         VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    const VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    vk->d.vkCmdPipelineBarrier(b->commands, work | VK_PIPELINE_STAGE_HOST_BIT, work, 0, 1, &all, 0, NULL, 0, NULL);
    vk->epoch++;
}

void tsr_vk_touch(tsr_vk *vk, vk_batch *b, tsr_vk_frames *f, int frame) {
    if (f->touched[frame] == vk->epoch)
        barrier(vk, b);
    f->touched[frame] = vk->epoch;
}

static tsr_status open_batch(tsr_vk *vk) {
    tsr_status status;
    vk_batch *b = &vk->batch[vk->started % VK_BATCHES];
    TSR_TRY(tsr_vk_wait(vk, b->ticket, -1, NULL));
    b->sets_used = 0;
    b->upload_at = 0;
    b->waits = 0;
    VK(vk->d.vkResetCommandPool(vk->device, b->pool, 0));
    VK(vk->d.vkResetDescriptorPool(vk->device, b->sets, 0));
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    VK(vk->d.vkBeginCommandBuffer(b->commands, &begin));
    barrier(vk, b);
    vk->open = b;
    return TSR_OK;
error:
    return status;
}

static int find_wait(const vk_batch *b, VkSemaphore s) {
    int i = 0;
    while (i < b->waits && b->wait[i] != s)
        i++;
    return i;
}

tsr_status tsr_vk_batch_room(
    tsr_vk *vk, int sets, size_t upload, const tsr_vk_timeline *wait, uint64_t value, vk_batch **out) {
    tsr_status status;
    vk_batch *b = vk->open;
    upload = tsr_align(upload, vk->offset_align);
    if (sets > VK_BATCH_SETS || upload > VK_BATCH_UPLOAD)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
            "vulkan: a picture this large takes %d passes and %zu bytes of weights at once; there "
            "may be %d and %d",
            sets, upload, VK_BATCH_SETS, VK_BATCH_UPLOAD);
    if (b && (b->sets_used + sets > VK_BATCH_SETS || b->upload_at + upload > VK_BATCH_UPLOAD ||
                 (wait && find_wait(b, wait->semaphore) == VK_BATCH_WAITS)))
        TSR_TRY(tsr_vk_start(vk, NULL));
    if (!vk->open)
        TSR_TRY(open_batch(vk));
    b = vk->open;
    if (wait) {
        int i = find_wait(b, wait->semaphore);
        if (i == b->waits) {
            b->wait[b->waits++] = wait->semaphore;
            b->wait_value[i] = 0;
        }
        b->wait_value[i] = value > b->wait_value[i] ? value : b->wait_value[i];
    }
    *out = b;
    return TSR_OK;
error:
    return status;
}

void *tsr_vk_batch_upload(tsr_vk *vk, vk_batch *b, size_t bytes, VkDescriptorBufferInfo *piece) {
    *piece = (VkDescriptorBufferInfo){b->upload.buffer, b->upload_at, bytes};
    void *at = (char *)b->upload.mapped + b->upload_at;
    b->upload_at += tsr_align(bytes, vk->offset_align);
    return at;
}

VkDescriptorBufferInfo tsr_vk_piece(
    const tsr_vk *vk, const vk_buffer *b, VkDeviceSize at, VkDeviceSize bytes, VkDeviceSize *rest) {
    *rest = at & (vk->offset_align - 1);
    return (VkDescriptorBufferInfo){b->buffer, at - *rest, bytes + *rest};
}

void tsr_vk_change_owner(
    tsr_vk *vk, vk_batch *b, const tsr_vk_slab *s, VkDeviceSize at, VkDeviceSize bytes, bool acquire) {
    const VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    VkBufferMemoryBarrier change = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
        .srcAccessMask = acquire ? 0 : VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = acquire ? VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT : 0,
        .srcQueueFamilyIndex = acquire ? VK_QUEUE_FAMILY_EXTERNAL : vk->family,
        .dstQueueFamilyIndex = acquire ? vk->family : VK_QUEUE_FAMILY_EXTERNAL,
        .buffer = s->b.buffer,
        .offset = at,
        .size = bytes,
    };
    vk->d.vkCmdPipelineBarrier(
        b->commands, work, acquire ? work : VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, NULL, 1, &change, 0, NULL);
}

tsr_status tsr_vk_batch_set(tsr_vk *vk, vk_batch *b, VkDescriptorSetLayout layout, VkDescriptorSet *out) {
    tsr_status status;
    VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = b->sets,
        .descriptorSetCount = 1,
        .pSetLayouts = &layout,
    };
    VK(vk->d.vkAllocateDescriptorSets(vk->device, &info, out));
    b->sets_used++;
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_dispatch(tsr_vk *vk, vk_batch *b, VkPipeline pipe, const VkDescriptorBufferInfo *bind, int binds,
    const void *push, size_t push_bytes, uint32_t groups_x, uint32_t groups_y) {
    tsr_status status;
    VkDescriptorSet set;
    TSR_TRY(tsr_vk_batch_set(vk, b, vk->set_layout, &set));
    VkWriteDescriptorSet write[VK_BINDINGS];
    for (int i = 0; i < binds; i++)
        write[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = (uint32_t)i,
            .descriptorCount = 1,
            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .pBufferInfo = &bind[i],
        };
    vk->d.vkUpdateDescriptorSets(vk->device, (uint32_t)binds, write, 0, NULL);
    vk->d.vkCmdBindPipeline(b->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipe);
    vk->d.vkCmdBindDescriptorSets(b->commands, VK_PIPELINE_BIND_POINT_COMPUTE, vk->layout, 0, 1, &set, 0, NULL);
    vk->d.vkCmdPushConstants(b->commands, vk->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, (uint32_t)push_bytes, push);
    vk->d.vkCmdDispatch(b->commands, groups_x, groups_y, 1);
    return TSR_OK;
error:
    return status;
}

/* ---------------------------------------------------------------- running */

/* The batch that records is given up: what it would have read back never comes. */
static void drop_open(tsr_vk *vk) {
    vk->open = NULL;
    for (int i = 0; i < VK_READBACKS; i++)
        if (vk->readback[i].ticket > vk->started)
            vk->readback[i].ticket = 0;
    if (vk->error_ticket > vk->started)
        vk->error_ticket = 0;
}

tsr_status tsr_vk_start(tsr_vk *vk, uint64_t *ticket) {
    tsr_status status;
    vk_batch *b = vk->open;
    if (ticket)
        *ticket = vk->started + (b != NULL);
    if (!b)
        return TSR_OK;
    VkMemoryBarrier to_host = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_HOST_READ_BIT,
    };
    const VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    vk->d.vkCmdPipelineBarrier(b->commands, work, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &to_host, 0, NULL, 0, NULL);
    VK(vk->d.vkEndCommandBuffer(b->commands));
    uint64_t number = vk->started + 1;
    VkPipelineStageFlags stages[VK_BATCH_WAITS];
    for (int i = 0; i < b->waits; i++)
        stages[i] = work;
    VkTimelineSemaphoreSubmitInfo values = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .waitSemaphoreValueCount = (uint32_t)b->waits,
        .pWaitSemaphoreValues = b->wait_value,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &number,
    };
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &values,
        .waitSemaphoreCount = (uint32_t)b->waits,
        .pWaitSemaphores = b->wait,
        .pWaitDstStageMask = stages,
        .commandBufferCount = 1,
        .pCommandBuffers = &b->commands,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &vk->progress->semaphore,
    };
    VK(vk->d.vkQueueSubmit(vk->queue, 1, &info, VK_NULL_HANDLE));
    vk->started = b->ticket = number;
    vk->open = NULL;
    return TSR_OK;
error:
    drop_open(vk);
    return status;
}

void tsr_vk_watch(tsr_vk *vk, bool (*failed)(void *user), void *user) {
    vk->failed = failed;
    vk->failed_user = user;
}

/* Signals what unfinished batches wait for, so that nothing hangs on a producer that gave up. */
static void let_go(tsr_vk *vk) {
    for (int i = 0; i < VK_BATCHES; i++) {
        const vk_batch *b = &vk->batch[(vk->started + (uint64_t)i) % VK_BATCHES]; /* oldest first */
        for (int w = 0; b->ticket > vk->done && w < b->waits; w++) {
            uint64_t value = 0;
            VkSemaphoreSignalInfo signal = {
                .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                .semaphore = b->wait[w],
                .value = b->wait_value[w],
            };
            if (!vk->d.vkGetSemaphoreCounterValue(vk->device, b->wait[w], &value) && value < b->wait_value[w])
                vk->d.vkSignalSemaphore(vk->device, &signal);
        }
    }
}

/* VK_SUCCESS once the ticket is done, VK_TIMEOUT after so many seconds (negative: never), or an error. */
static VkResult wait_for(tsr_vk *vk, uint64_t ticket, double seconds) {
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &vk->progress->semaphore,
        .pValues = &ticket,
    };
    for (double end = tsr_now() + seconds;;) {
        double left = seconds < 0 ? ASK_EVERY : end - tsr_now();
        left = left < 0 ? 0 : left > ASK_EVERY ? ASK_EVERY : left;
        VkResult result = vk->d.vkWaitSemaphores(vk->device, &info, (uint64_t)(left * 1e9));
        if (result != VK_TIMEOUT || (seconds >= 0 && tsr_now() >= end))
            return result;
        if (vk->failed && vk->failed(vk->failed_user))
            let_go(vk);
    }
}

tsr_status tsr_vk_wait(tsr_vk *vk, uint64_t ticket, double seconds, bool *done) {
    tsr_status status;
    if (done)
        *done = ticket <= vk->done;
    if (ticket <= vk->done)
        return TSR_OK;
    if (ticket > vk->started)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: nothing was started as number %llu yet", (unsigned long long)ticket);
    if (seconds != 0) {
        VkResult result = tsr_vk_failing() ? VK_ERROR_DEVICE_LOST : wait_for(vk, ticket, seconds);
        if (result < 0) /* VK_TIMEOUT is no error */
            return tsr_vk_error(result, "vkWaitSemaphores", __FILE__, __LINE__);
    }
    uint64_t value = 0;
    VK(vk->d.vkGetSemaphoreCounterValue(vk->device, vk->progress->semaphore, &value));
    if (value > vk->started) /* what a lost device may answer */
        return tsr_vk_error(VK_ERROR_DEVICE_LOST, "vkGetSemaphoreCounterValue", __FILE__, __LINE__);
    vk->done = value;
    if (done)
        *done = ticket <= value;
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_submit(tsr_vk *vk) {
    tsr_status status;
    uint64_t ticket;
    TSR_TRY(tsr_vk_start(vk, &ticket));
    TSR_TRY(tsr_vk_wait(vk, ticket, -1, NULL));
    return TSR_OK;
error:
    return status;
}

void tsr_vk_drain(tsr_vk *vk) {
    drop_open(vk);
    if (vk->done >= vk->started || !vk->progress)
        return;
    if (wait_for(vk, vk->started, vk->failed ? -1 : 2) == VK_TIMEOUT) {
        tsr_log(TSR_LOG_WARN, "vulkan: tiles nobody finished are let go");
        let_go(vk);
        wait_for(vk, vk->started, -1);
    }
    vk->done = vk->started;
}

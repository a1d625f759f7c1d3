/* Swapchain or image, and a frame of triangles on it. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- what is drawn on */

static bool find_format(gpu *g) {
    VkSurfaceFormatKHR have[64];
    uint32_t n = 64;
    return vkGetPhysicalDeviceSurfaceFormatsKHR(g->physical, g->surface, &n, have) >= 0 &&
           gpu_choose_format(have, n, &g->format, &g->deep);
}

static void drop_images(gpu *g) {
    for (uint32_t i = 0; i < g->images; i++) {
        vkDestroyFramebuffer(g->device, g->framebuffer[i], NULL);
        vkDestroyImageView(g->device, g->view[i], NULL);
        vkDestroySemaphore(g->device, g->drawn[i], NULL);
        g->framebuffer[i] = VK_NULL_HANDLE;
        g->view[i] = VK_NULL_HANDLE;
        g->drawn[i] = VK_NULL_HANDLE;
    }
    if (!g->surface && g->images)
        vkDestroyImage(g->device, g->image[0], NULL);
    vkFreeMemory(g->device, g->image_memory, NULL);
    g->image_memory = VK_NULL_HANDLE;
    g->images = 0;
}

static tsr_status make_swapchain(gpu *g, uint32_t width, uint32_t height) {
    tsr_status status;
    VkSurfaceCapabilitiesKHR caps;
    VkSwapchainKHR old = g->swapchain;
    GPU_TRY(vkGetPhysicalDeviceSurfaceCapabilitiesKHR(g->physical, g->surface, &caps));
    if (caps.currentExtent.width != UINT32_MAX) {
        width = caps.currentExtent.width;
        height = caps.currentExtent.height;
    }
    g->width = width;
    g->height = height;
    drop_images(g);
    if (!width || !height)
        return TSR_OK;
    uint32_t count = caps.minImageCount < 3 ? 3 : caps.minImageCount;
    if (caps.maxImageCount && count > caps.maxImageCount)
        count = caps.maxImageCount;
    VkSwapchainCreateInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_SWAPCHAIN_CREATE_INFO_KHR,
        .surface = g->surface,
        .minImageCount = count,
        .imageFormat = g->format.format,
        .imageColorSpace = g->format.colorSpace,
        .imageExtent = {width, height},
        .imageArrayLayers = 1,
        .imageUsage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
        .preTransform = caps.currentTransform,
        .compositeAlpha = caps.supportedCompositeAlpha & VK_COMPOSITE_ALPHA_OPAQUE_BIT_KHR
                              ? VK_COMPOSITE_ALPHA_OPAQUE_BIT_KHR
                              : VK_COMPOSITE_ALPHA_INHERIT_BIT_KHR,
        .presentMode = VK_PRESENT_MODE_FIFO_KHR,
        .clipped = VK_TRUE,
        .oldSwapchain = old,
    };
    VkSwapchainKHR new = VK_NULL_HANDLE;
    GPU_TRY(vkCreateSwapchainKHR(g->device, &info, NULL, &new));
    g->swapchain = new;
    vkDestroySwapchainKHR(g->device, old, NULL);
    uint32_t n = GPU_IMAGES;
    VkResult all = vkGetSwapchainImagesKHR(g->device, g->swapchain, &n, g->image);
    GPU_DO(gpu_check(all, "vkGetSwapchainImagesKHR"));
    if (all == VK_INCOMPLETE) /* and any of them may be acquired */
        return gpu_fail(TSR_ERR_UNSUPPORTED, "window: the display wants more than %d images", GPU_IMAGES);
    g->images = n;
error:
    return status;
}

static tsr_status make_targets(gpu *g) {
    tsr_status status = TSR_OK;
    for (uint32_t i = 0; i < g->images; i++) {
        GPU_DO(gpu_make_view(g, g->image[i], g->format.format, &g->view[i]));
        VkFramebufferCreateInfo framebuffer = {
            .sType = VK_STRUCTURE_TYPE_FRAMEBUFFER_CREATE_INFO,
            .renderPass = g->pass,
            .attachmentCount = 1,
            .pAttachments = &g->view[i],
            .width = g->width,
            .height = g->height,
            .layers = 1,
        };
        VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO};
        GPU_TRY(vkCreateFramebuffer(g->device, &framebuffer, NULL, &g->framebuffer[i]));
        GPU_TRY(vkCreateSemaphore(g->device, &semaphore, NULL, &g->drawn[i]));
    }
error:
    return status;
}

tsr_status gpu_resize(gpu *g, int width, int height) {
    tsr_status status;
    GPU_TRY(vkDeviceWaitIdle(g->device));
    g->stale = false;
    if (g->surface) {
        GPU_DO(make_swapchain(g, (uint32_t)width, (uint32_t)height));
    } else {
        drop_images(g);
        g->width = (uint32_t)width;
        g->height = (uint32_t)height;
        if (!width || !height)
            return TSR_OK;
        GPU_DO(gpu_make_image(g, g->format.format, g->width, g->height,
            VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT, &g->image[0], &g->image_memory));
        g->images = 1;
        GPU_DO(gpu_buffer_need(
            g, &g->readback, (VkDeviceSize)width * (VkDeviceSize)height * 4, VK_BUFFER_USAGE_TRANSFER_DST_BIT));
    }
    GPU_DO(make_targets(g));
error:
    return status;
}

/* ---------------------------------------------------------------- life */

tsr_status gpu_open(gpu *g, const tsr_preview_vulkan *vk, VkSurfaceKHR surface, int width, int height) {
    tsr_status status = TSR_OK;
    *g = (gpu){
        .instance = vk->instance,
        .physical = vk->physical,
        .device = vk->device,
        .queue = vk->queue,
        .family = vk->family,
        .surface = surface,
        .format = {VK_FORMAT_R8G8B8A8_UNORM, VK_COLOR_SPACE_SRGB_NONLINEAR_KHR},
    };
    volkLoadDevice(g->device);
    vkGetPhysicalDeviceMemoryProperties(g->physical, &g->memory);
    if (surface) {
        VkBool32 presents = VK_FALSE;
        GPU_TRY(vkGetPhysicalDeviceSurfaceSupportKHR(g->physical, g->family, surface, &presents));
        if (!presents || !vk->swapchain || !vk->draws || !find_format(g)) {
            status = gpu_fail(TSR_ERR_UNSUPPORTED,
                "window: %s does not draw on this display; choose another with --vulkan", vk->name);
            goto error;
        }
    } else if (!vk->draws) {
        status = gpu_fail(TSR_ERR_UNSUPPORTED, "window: %s does not draw; choose another with --vulkan", vk->name);
        goto error;
    }
    GPU_DO(gpu_make_pass(g));
    GPU_DO(gpu_make_pipeline(g));
    GPU_DO(gpu_make_frames(g));
    GPU_DO(gpu_resize(g, width, height));
    return TSR_OK;
error:
    gpu_close(g);
    return status;
}

static void drop_atlas(gpu *g) {
    vkDestroyImageView(g->device, g->atlas_view, NULL);
    vkDestroyImage(g->device, g->atlas, NULL);
    vkFreeMemory(g->device, g->atlas_memory, NULL);
    g->atlas_view = VK_NULL_HANDLE;
    g->atlas = VK_NULL_HANDLE;
    g->atlas_memory = VK_NULL_HANDLE;
}

void gpu_close(gpu *g) {
    if (!g->device)
        return;
    vkDeviceWaitIdle(g->device);
    drop_atlas(g);
    for (int i = 0; i < GPU_IN_FLIGHT; i++) {
        gpu_frame *f = &g->frame[i];
        gpu_buffer_free(g, &f->vertices);
        gpu_buffer_free(g, &f->indices);
        vkDestroyDescriptorPool(g->device, f->sets, NULL);
        vkDestroySemaphore(g->device, f->acquired, NULL);
        vkDestroyFence(g->device, f->done, NULL);
    }
    vkDestroyCommandPool(g->device, g->pool, NULL);
    gpu_buffer_free(g, &g->readback);
    drop_images(g);
    if (g->surface)
        vkDestroySwapchainKHR(g->device, g->swapchain, NULL);
    vkDestroyPipeline(g->device, g->pipeline, NULL);
    vkDestroyPipelineLayout(g->device, g->layout, NULL);
    vkDestroyDescriptorSetLayout(g->device, g->set_layout, NULL);
    vkDestroySampler(g->device, g->smooth, NULL);
    vkDestroySampler(g->device, g->nearest, NULL);
    vkDestroyRenderPass(g->device, g->pass, NULL);
    if (g->surface)
        vkDestroySurfaceKHR(g->instance, g->surface, NULL);
    *g = (gpu){0};
}

/* ---------------------------------------------------------------- the font atlas */

struct upload {
    VkBuffer from;
    uint32_t width, height;
};

static void record_atlas(gpu *g, VkCommandBuffer c, void *user) {
    const struct upload *u = user;
    VkBufferImageCopy all = {
        .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, .imageExtent = {u->width, u->height, 1}};
    gpu_move_image(c, g->atlas, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    vkCmdCopyBufferToImage(c, u->from, g->atlas, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &all);
    gpu_move_image(c, g->atlas, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, VK_IMAGE_LAYOUT_GENERAL);
}

tsr_status gpu_set_atlas(gpu *g, const unsigned char *alpha, int width, int height, uint64_t *texture) {
    tsr_status status;
    gpu_buffer from = {0};
    size_t bytes = (size_t)width * (size_t)height;
    GPU_TRY(vkDeviceWaitIdle(g->device));
    drop_atlas(g);
    GPU_DO(gpu_make_image(g, VK_FORMAT_R8_UNORM, (uint32_t)width, (uint32_t)height,
        VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT, &g->atlas, &g->atlas_memory));
    GPU_DO(gpu_make_view(g, g->atlas, VK_FORMAT_R8_UNORM, &g->atlas_view));
    GPU_DO(gpu_buffer_need(g, &from, bytes, VK_BUFFER_USAGE_TRANSFER_SRC_BIT));
    memcpy(from.mapped, alpha, bytes);
    GPU_DO(gpu_run(g, record_atlas, &(struct upload){from.buffer, (uint32_t)width, (uint32_t)height}));
    *texture = (uint64_t)g->atlas_view;
error:
    gpu_buffer_free(g, &from);
    return status;
}

/* ---------------------------------------------------------------- a frame */

static tsr_status upload_lists(gpu *g, gpu_frame *f, int lists) {
    tsr_status status;
    VkDeviceSize vertices = 0, indices = 0;
    for (int i = 0; i < lists; i++) {
        ui_list l = ui_get_list(i);
        vertices += (VkDeviceSize)l.vertices * sizeof(ui_vertex);
        indices += (VkDeviceSize)l.indices * sizeof(uint16_t);
    }
    GPU_DO(gpu_buffer_need(g, &f->vertices, vertices, VK_BUFFER_USAGE_VERTEX_BUFFER_BIT));
    GPU_DO(gpu_buffer_need(g, &f->indices, indices, VK_BUFFER_USAGE_INDEX_BUFFER_BIT));
    ui_vertex *v = f->vertices.mapped;
    uint16_t *n = f->indices.mapped;
    for (int i = 0; i < lists; i++) {
        ui_list l = ui_get_list(i);
        memcpy(v, l.vertex, (size_t)l.vertices * sizeof *v);
        memcpy(n, l.index, (size_t)l.indices * sizeof *n);
        v += l.vertices;
        n += l.indices;
    }
error:
    return status;
}

static tsr_status bind_texture(gpu *g, gpu_frame *f, uint64_t texture) {
    tsr_status status;
    VkDescriptorSet set;
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = f->sets,
        .descriptorSetCount = 1,
        .pSetLayouts = &g->set_layout};
    GPU_TRY(vkAllocateDescriptorSets(g->device, &info, &set));
    bool atlas = texture == (uint64_t)g->atlas_view;
    float mask = atlas;
    VkDescriptorImageInfo image = {.sampler = atlas ? g->smooth : g->nearest,
        .imageView = (VkImageView)texture,
        .imageLayout = VK_IMAGE_LAYOUT_GENERAL};
    VkWriteDescriptorSet write = {
        .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
        .dstSet = set,
        .descriptorCount = 1,
        .descriptorType = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
        .pImageInfo = &image,
    };
    vkUpdateDescriptorSets(g->device, 1, &write, 0, NULL);
    vkCmdBindDescriptorSets(f->commands, VK_PIPELINE_BIND_POINT_GRAPHICS, g->layout, 0, 1, &set, 0, NULL);
    vkCmdPushConstants(f->commands, g->layout, VK_SHADER_STAGE_VERTEX_BIT | VK_SHADER_STAGE_FRAGMENT_BIT,
        2 * sizeof(float), sizeof mask, &mask);
error:
    return status;
}

static bool scissor(const gpu *g, const float clip[4], VkRect2D *out) {
    float x0 = clip[0] > 0 ? clip[0] : 0, y0 = clip[1] > 0 ? clip[1] : 0;
    float x1 = clip[2] < (float)g->width ? clip[2] : (float)g->width,
          y1 = clip[3] < (float)g->height ? clip[3] : (float)g->height;
    if (x1 <= x0 || y1 <= y0)
        return false;
    *out = (VkRect2D){{(int32_t)x0, (int32_t)y0}, {(uint32_t)(x1 - x0), (uint32_t)(y1 - y0)}};
    return true;
}

static tsr_status record_lists(gpu *g, gpu_frame *f, int lists) {
    tsr_status status = TSR_OK;
    VkCommandBuffer c = f->commands;
    VkDeviceSize zero = 0;
    VkViewport viewport = {0, 0, (float)g->width, (float)g->height, 0, 1};
    float size[] = {viewport.width, viewport.height};
    vkCmdBindPipeline(c, VK_PIPELINE_BIND_POINT_GRAPHICS, g->pipeline);
    vkCmdSetViewport(c, 0, 1, &viewport);
    vkCmdPushConstants(c, g->layout, VK_SHADER_STAGE_VERTEX_BIT | VK_SHADER_STAGE_FRAGMENT_BIT, 0, sizeof size, size);
    vkCmdBindVertexBuffers(c, 0, 1, &f->vertices.buffer, &zero);
    vkCmdBindIndexBuffer(c, f->indices.buffer, 0, VK_INDEX_TYPE_UINT16);
    uint32_t first_index = 0;
    int32_t first_vertex = 0;
    uint64_t bound = 0;
    for (int i = 0; i < lists; i++) {
        ui_list l = ui_get_list(i);
        for (int k = 0; k < l.draws; k++) {
            ui_draw d = ui_get_draw(i, k);
            VkRect2D area;
            if (!d.indices || !scissor(g, d.clip, &area))
                continue;
            if (d.texture != bound)
                GPU_DO(bind_texture(g, f, d.texture));
            bound = d.texture;
            vkCmdSetScissor(c, 0, 1, &area);
            vkCmdDrawIndexed(c, d.indices, 1, first_index + d.first_index, first_vertex + d.first_vertex, 0);
        }
        first_index += (uint32_t)l.indices;
        first_vertex += l.vertices;
    }
error:
    return status;
}

static tsr_status acquire(gpu *g, gpu_frame *f, uint32_t *image, bool *ready) {
    *ready = g->images > 0;
    *image = 0;
    if (!g->surface || !*ready)
        return TSR_OK;
    VkResult r = vkAcquireNextImageKHR(g->device, g->swapchain, UINT64_MAX, f->acquired, VK_NULL_HANDLE, image);
    g->stale |= r == VK_ERROR_OUT_OF_DATE_KHR || r == VK_SUBOPTIMAL_KHR;
    *ready = r != VK_ERROR_OUT_OF_DATE_KHR;
    return *ready ? gpu_check(r, "vkAcquireNextImageKHR") : TSR_OK;
}

static tsr_status present(gpu *g, uint32_t image) {
    VkPresentInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_PRESENT_INFO_KHR,
        .waitSemaphoreCount = 1,
        .pWaitSemaphores = &g->drawn[image],
        .swapchainCount = 1,
        .pSwapchains = &g->swapchain,
        .pImageIndices = &image,
    };
    VkResult r = vkQueuePresentKHR(g->queue, &info);
    if (r == VK_ERROR_OUT_OF_DATE_KHR || r == VK_SUBOPTIMAL_KHR) {
        g->stale = true;
        return TSR_OK;
    }
    return gpu_check(r, "vkQueuePresentKHR");
}

static VkClearValue clear_value(ui_color c) {
    VkClearValue v;
    for (int i = 0; i < 4; i++)
        v.color.float32[i] = (float)(c >> 8 * i & 0xff) / 255;
    return v;
}

static void record_fill(gpu *g, VkCommandBuffer c, const gpu_fill *fill) {
    VkClearAttachment color = {.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT, .clearValue = clear_value(fill->color)};
    VkClearRect area = {.layerCount = 1};
    ui_rect r = fill->area;
    if (scissor(g, (float[]){r.x, r.y, r.x + r.w, r.y + r.h}, &area.rect))
        vkCmdClearAttachments(c, 1, &color, 1, &area);
}

tsr_status gpu_draw(gpu *g, int lists, ui_color clear, const gpu_fill *fill, int fills, bool *drawn) {
    tsr_status status;
    gpu_frame *f = &g->frame[g->turn % GPU_IN_FLIGHT];
    uint32_t image;
    GPU_TRY(vkWaitForFences(g->device, 1, &f->done, VK_TRUE, UINT64_MAX));
    GPU_DO(acquire(g, f, &image, drawn));
    if (!*drawn)
        return TSR_OK;
    GPU_DO(upload_lists(g, f, lists));
    GPU_TRY(vkResetDescriptorPool(g->device, f->sets, 0));
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    GPU_TRY(vkBeginCommandBuffer(f->commands, &begin));
    VkClearValue color = clear_value(clear);
    VkRenderPassBeginInfo pass = {
        .sType = VK_STRUCTURE_TYPE_RENDER_PASS_BEGIN_INFO,
        .renderPass = g->pass,
        .framebuffer = g->framebuffer[image],
        .renderArea = {{0, 0}, {g->width, g->height}},
        .clearValueCount = 1,
        .pClearValues = &color,
    };
    vkCmdBeginRenderPass(f->commands, &pass, VK_SUBPASS_CONTENTS_INLINE);
    for (int i = 0; i < fills; i++)
        record_fill(g, f->commands, &fill[i]);
    GPU_DO(record_lists(g, f, lists));
    vkCmdEndRenderPass(f->commands);
    GPU_TRY(vkEndCommandBuffer(f->commands));
    GPU_TRY(vkResetFences(g->device, 1, &f->done));
    VkPipelineStageFlags stage = VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT;
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .waitSemaphoreCount = g->surface ? 1 : 0,
        .pWaitSemaphores = &f->acquired,
        .pWaitDstStageMask = &stage,
        .commandBufferCount = 1,
        .pCommandBuffers = &f->commands,
        .signalSemaphoreCount = g->surface ? 1 : 0,
        .pSignalSemaphores = &g->drawn[image],
    };
    GPU_TRY(vkQueueSubmit(g->queue, 1, &submit, f->done));
    g->turn++;
    if (g->surface)
        GPU_DO(present(g, image));
error:
    return status;
}

static void record_copy(gpu *g, VkCommandBuffer c, void *user) {
    (void)user;
    VkBufferImageCopy all = {
        .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, .imageExtent = {g->width, g->height, 1}};
    vkCmdCopyImageToBuffer(c, g->image[0], VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, g->readback.buffer, 1, &all);
    VkMemoryBarrier to_host = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    vkCmdPipelineBarrier(
        c, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &to_host, 0, NULL, 0, NULL);
}

tsr_status gpu_read(gpu *g, uint8_t *rgb) {
    tsr_status status;
    if (!g->images)
        return gpu_fail(TSR_ERR_UNSUPPORTED, "window: it is minimised, nothing is drawn");
    GPU_DO(gpu_run(g, record_copy, NULL));
    const uint8_t *from = g->readback.mapped;
    for (size_t i = 0, n = (size_t)g->width * (size_t)g->height; i < n; i++, from += 4, rgb += 3)
        memcpy(rgb, from, 3);
error:
    return status;
}

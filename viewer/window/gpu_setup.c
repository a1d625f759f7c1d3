/* What is made once: the pass, the pipeline, frames under way; buffers and images. */
#include "gpu.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static const uint32_t ui_vert[] = {
#include "ui_vert.inc"
};
static const uint32_t ui_frag[] = {
#include "ui_frag.inc"
};

/* ---------------------------------------------------------------- failing */

static atomic_bool fail_next;
static char last_error[256] = "";

const char *gpu_last_error(void) {
    return last_error;
}

tsr_status gpu_fail(tsr_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

void gpu_fail_next(void) {
    atomic_store(&fail_next, true);
}

tsr_status gpu_check(VkResult r, const char *call) {
    if (atomic_exchange(&fail_next, false))
        r = VK_ERROR_DEVICE_LOST;
    if (r >= 0)
        return TSR_OK;
    int n = (int)strcspn(call, "(");
    return gpu_fail(
        r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_OUT_OF_DEVICE_MEMORY ? TSR_ERR_MEMORY : TSR_ERR_DEVICE,
        "window: %.*s failed (%d)%s", n, call, r, r == VK_ERROR_DEVICE_LOST ? ", the device was lost" : "");
}

/* ---------------------------------------------------------------- memory */

static int memory_type(const gpu *g, uint32_t bits, VkMemoryPropertyFlags want) {
    for (uint32_t i = 0; i < g->memory.memoryTypeCount; i++)
        if (bits >> i & 1 && (g->memory.memoryTypes[i].propertyFlags & want) == want)
            return (int)i;
    return -1;
}

static tsr_status allocate(gpu *g, const VkMemoryRequirements *need, VkMemoryPropertyFlags want, VkDeviceMemory *out) {
    tsr_status status;
    int type = memory_type(g, need->memoryTypeBits, want);
    if (type < 0)
        return gpu_fail(TSR_ERR_DEVICE, "window: the device has no memory of the kind it draws from");
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = need->size,
        .memoryTypeIndex = (uint32_t)type,
    };
    GPU_TRY(vkAllocateMemory(g->device, &info, NULL, out));
error:
    return status;
}

void gpu_buffer_free(gpu *g, gpu_buffer *b) {
    vkDestroyBuffer(g->device, b->buffer, NULL);
    vkFreeMemory(g->device, b->memory, NULL);
    *b = (gpu_buffer){0};
}

tsr_status gpu_buffer_need(gpu *g, gpu_buffer *b, VkDeviceSize bytes, VkBufferUsageFlags usage) {
    tsr_status status;
    if (b->bytes >= bytes && b->buffer)
        return TSR_OK;
    gpu_buffer_free(g, b);
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = bytes + bytes / 2 + 4096, .usage = usage};
    GPU_TRY(vkCreateBuffer(g->device, &info, NULL, &b->buffer));
    VkMemoryRequirements need;
    vkGetBufferMemoryRequirements(g->device, b->buffer, &need);
    GPU_DO(allocate(g, &need, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT, &b->memory));
    GPU_TRY(vkBindBufferMemory(g->device, b->buffer, b->memory, 0));
    GPU_TRY(vkMapMemory(g->device, b->memory, 0, VK_WHOLE_SIZE, 0, &b->mapped));
    b->bytes = info.size;
    return TSR_OK;
error:
    gpu_buffer_free(g, b);
    return status;
}

tsr_status gpu_make_image(gpu *g, VkFormat format, uint32_t width, uint32_t height, VkImageUsageFlags usage,
    VkImage *image, VkDeviceMemory *memory) {
    tsr_status status;
    VkImageCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
        .imageType = VK_IMAGE_TYPE_2D,
        .format = format,
        .extent = {width, height, 1},
        .mipLevels = 1,
        .arrayLayers = 1,
        .samples = VK_SAMPLE_COUNT_1_BIT,
        .usage = usage,
    };
    GPU_TRY(vkCreateImage(g->device, &info, NULL, image));
    VkMemoryRequirements need;
    vkGetImageMemoryRequirements(g->device, *image, &need);
    GPU_DO(allocate(g, &need, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, memory));
    GPU_TRY(vkBindImageMemory(g->device, *image, *memory, 0));
error:
    return status;
}

tsr_status gpu_make_view(gpu *g, VkImage image, VkFormat format, VkImageView *out) {
    tsr_status status;
    VkImageViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
        .image = image,
        .viewType = VK_IMAGE_VIEW_TYPE_2D,
        .format = format,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    GPU_TRY(vkCreateImageView(g->device, &info, NULL, out));
error:
    return status;
}

/* Everything before is done before everything after: for what happens once. */
void gpu_move_image(VkCommandBuffer c, VkImage image, VkImageLayout from, VkImageLayout to) {
    VkImageMemoryBarrier change = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT,
        .oldLayout = from,
        .newLayout = to,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    vkCmdPipelineBarrier(
        c, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, NULL, 0, NULL, 1, &change);
}

tsr_status gpu_run(gpu *g, void (*record)(gpu *g, VkCommandBuffer c, void *user), void *user) {
    tsr_status status;
    VkCommandBuffer c = VK_NULL_HANDLE;
    VkCommandBufferAllocateInfo allocation = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = g->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    GPU_TRY(vkAllocateCommandBuffers(g->device, &allocation, &c));
    GPU_TRY(vkBeginCommandBuffer(c, &begin));
    record(g, c, user);
    GPU_TRY(vkEndCommandBuffer(c));
    VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &c};
    GPU_TRY(vkQueueSubmit(g->queue, 1, &submit, VK_NULL_HANDLE));
    GPU_TRY(vkQueueWaitIdle(g->queue));
error:
    if (c)
        vkFreeCommandBuffers(g->device, g->pool, 1, &c);
    return status;
}

/* ---------------------------------------------------------------- pass, pipeline, frames */

tsr_status gpu_make_pass(gpu *g) {
    tsr_status status;
    VkAttachmentDescription target = {
        .format = g->format.format,
        .samples = VK_SAMPLE_COUNT_1_BIT,
        .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
        .storeOp = VK_ATTACHMENT_STORE_OP_STORE,
        .stencilLoadOp = VK_ATTACHMENT_LOAD_OP_DONT_CARE,
        .stencilStoreOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
        .finalLayout = g->surface ? VK_IMAGE_LAYOUT_PRESENT_SRC_KHR : VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
    };
    VkAttachmentReference reference = {0, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    VkSubpassDescription subpass = {.pipelineBindPoint = VK_PIPELINE_BIND_POINT_GRAPHICS,
        .colorAttachmentCount = 1,
        .pColorAttachments = &reference};
    VkSubpassDependency around[] = {
        {VK_SUBPASS_EXTERNAL, 0, VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT, VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT,
            VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT, 0},
        {0, VK_SUBPASS_EXTERNAL, VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT,
            VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT,
            VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT, VK_ACCESS_TRANSFER_READ_BIT, 0},
    };
    VkRenderPassCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO,
        .attachmentCount = 1,
        .pAttachments = &target,
        .subpassCount = 1,
        .pSubpasses = &subpass,
        .dependencyCount = 2,
        .pDependencies = around,
    };
    GPU_TRY(vkCreateRenderPass(g->device, &info, NULL, &g->pass));
error:
    return status;
}

static tsr_status make_layout(gpu *g) {
    tsr_status status;
    for (int i = 0; i < 2; i++) {
        VkSamplerCreateInfo sampler = {
            .sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO,
            .magFilter = i ? VK_FILTER_NEAREST : VK_FILTER_LINEAR,
            .minFilter = i ? VK_FILTER_NEAREST : VK_FILTER_LINEAR,
            .addressModeU = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
            .addressModeV = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
            .addressModeW = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
        };
        GPU_TRY(vkCreateSampler(g->device, &sampler, NULL, i ? &g->nearest : &g->smooth));
    }
    VkDescriptorSetLayoutBinding binding = {
        0, VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, 1, VK_SHADER_STAGE_FRAGMENT_BIT, NULL};
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = 1, .pBindings = &binding};
    GPU_TRY(vkCreateDescriptorSetLayout(g->device, &set, NULL, &g->set_layout));
    VkPushConstantRange push = {VK_SHADER_STAGE_VERTEX_BIT | VK_SHADER_STAGE_FRAGMENT_BIT, 0, 3 * sizeof(float)};
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &g->set_layout,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    GPU_TRY(vkCreatePipelineLayout(g->device, &layout, NULL, &g->layout));
error:
    return status;
}

static tsr_status make_module(gpu *g, const uint32_t *words, size_t bytes, VkShaderModule *out) {
    tsr_status status;
    VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = bytes, .pCode = words};
    GPU_TRY(vkCreateShaderModule(g->device, &info, NULL, out));
error:
    return status;
}

tsr_status gpu_make_pipeline(gpu *g) {
    tsr_status status;
    VkShaderModule module[2] = {VK_NULL_HANDLE, VK_NULL_HANDLE};
    GPU_DO(make_layout(g));
    GPU_DO(make_module(g, ui_vert, sizeof ui_vert, &module[0]));
    GPU_DO(make_module(g, ui_frag, sizeof ui_frag, &module[1]));
    VkPipelineShaderStageCreateInfo stages[2];
    for (int i = 0; i < 2; i++)
        stages[i] = (VkPipelineShaderStageCreateInfo){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
            .stage = i ? VK_SHADER_STAGE_FRAGMENT_BIT : VK_SHADER_STAGE_VERTEX_BIT,
            .module = module[i],
            .pName = "main",
        };
    VkVertexInputBindingDescription binding = {0, 20, VK_VERTEX_INPUT_RATE_VERTEX}; /* ui_vertex */
    VkVertexInputAttributeDescription attributes[] = {
        {0, 0, VK_FORMAT_R32G32_SFLOAT, 0}, {1, 0, VK_FORMAT_R32G32_SFLOAT, 8}, {2, 0, VK_FORMAT_R8G8B8A8_UNORM, 16}};
    VkPipelineVertexInputStateCreateInfo input = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_VERTEX_INPUT_STATE_CREATE_INFO,
        .vertexBindingDescriptionCount = 1,
        .pVertexBindingDescriptions = &binding,
        .vertexAttributeDescriptionCount = 3,
        .pVertexAttributeDescriptions = attributes,
    };
    VkPipelineInputAssemblyStateCreateInfo assembly = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_INPUT_ASSEMBLY_STATE_CREATE_INFO,
        .topology = VK_PRIMITIVE_TOPOLOGY_TRIANGLE_LIST};
    VkPipelineViewportStateCreateInfo viewport = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO, .viewportCount = 1, .scissorCount = 1};
    VkPipelineRasterizationStateCreateInfo raster = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO,
        .cullMode = VK_CULL_MODE_NONE,
        .lineWidth = 1};
    VkPipelineMultisampleStateCreateInfo samples = {.sType = VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO,
        .rasterizationSamples = VK_SAMPLE_COUNT_1_BIT};
    VkPipelineColorBlendAttachmentState blend = {
        .blendEnable = VK_TRUE,
        .srcColorBlendFactor = VK_BLEND_FACTOR_SRC_ALPHA,
        .dstColorBlendFactor = VK_BLEND_FACTOR_ONE_MINUS_SRC_ALPHA,
        .srcAlphaBlendFactor = VK_BLEND_FACTOR_ONE,
        .dstAlphaBlendFactor = VK_BLEND_FACTOR_ONE_MINUS_SRC_ALPHA,
        .colorWriteMask = 0xf,
    };
    VkPipelineColorBlendStateCreateInfo blends = {.sType = VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO,
        .attachmentCount = 1,
        .pAttachments = &blend};
    VkDynamicState dynamic[] = {VK_DYNAMIC_STATE_VIEWPORT, VK_DYNAMIC_STATE_SCISSOR};
    VkPipelineDynamicStateCreateInfo dynamics = {.sType = VK_STRUCTURE_TYPE_PIPELINE_DYNAMIC_STATE_CREATE_INFO,
        .dynamicStateCount = 2,
        .pDynamicStates = dynamic};
    VkGraphicsPipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO,
        .stageCount = 2,
        .pStages = stages,
        .pVertexInputState = &input,
        .pInputAssemblyState = &assembly,
        .pViewportState = &viewport,
        .pRasterizationState = &raster,
        .pMultisampleState = &samples,
        .pColorBlendState = &blends,
        .pDynamicState = &dynamics,
        .layout = g->layout,
        .renderPass = g->pass,
    };
    GPU_TRY(vkCreateGraphicsPipelines(g->device, VK_NULL_HANDLE, 1, &info, NULL, &g->pipeline));
error:
    vkDestroyShaderModule(g->device, module[0], NULL);
    vkDestroyShaderModule(g->device, module[1], NULL);
    return status;
}

tsr_status gpu_make_frames(gpu *g) {
    tsr_status status;
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = g->family,
    };
    GPU_TRY(vkCreateCommandPool(g->device, &pool, NULL, &g->pool));
    for (int i = 0; i < GPU_IN_FLIGHT; i++) {
        gpu_frame *f = &g->frame[i];
        VkCommandBufferAllocateInfo commands = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = g->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1,
        };
        VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .flags = VK_FENCE_CREATE_SIGNALED_BIT};
        VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO};
        VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, GPU_TEXTURES};
        VkDescriptorPoolCreateInfo sets = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
            .maxSets = GPU_TEXTURES,
            .poolSizeCount = 1,
            .pPoolSizes = &size};
        GPU_TRY(vkAllocateCommandBuffers(g->device, &commands, &f->commands));
        GPU_TRY(vkCreateFence(g->device, &fence, NULL, &f->done));
        GPU_TRY(vkCreateSemaphore(g->device, &semaphore, NULL, &f->acquired));
        GPU_TRY(vkCreateDescriptorPool(g->device, &sets, NULL, &f->sets));
    }
error:
    return status;
}

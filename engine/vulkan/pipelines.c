/* The shaders, built in, and the pipelines made of them at first use. */
#include "vulkan/internal.h"

static const uint32_t blend_f32_f32[] = {
#include "blend_f32_f32.inc"
};
static const uint32_t blend_f32_f16[] = {
#include "blend_f32_f16.inc"
};
static const uint32_t blend_f16_f32[] = {
#include "blend_f16_f32.inc"
};
static const uint32_t blend_f16_f16[] = {
#include "blend_f16_f16.inc"
};
static const uint32_t resolve_f32[] = {
#include "resolve_f32.inc"
};
static const uint32_t resolve_f16[] = {
#include "resolve_f16.inc"
};

static const uint32_t show_8[] = {
#include "show_8.inc"
};
static const uint32_t show_deep[] = {
#include "show_deep.inc"
};
static const uint32_t flatten_f32[] = {
#include "flatten_f32.inc"
};
static const uint32_t flatten_f16[] = {
#include "flatten_f16.inc"
};
static const uint32_t error_f32[] = {
#include "error_f32.inc"
};

typedef struct shader {
    const char *name;
    const uint32_t *words;
    size_t bytes;
    int constant; /* its specialization constant 0 */
} shader;
#define SHADER(s, constant)                                                                                            \
    { #s, s, sizeof s, constant }
static const shader shaders[VK_PIPES] = {
    [VK_PIPE_BLEND] = SHADER(blend_f32_f32, 3),
    SHADER(blend_f32_f16, 3),
    SHADER(blend_f16_f32, 3),
    SHADER(blend_f16_f16, 3),
    SHADER(blend_f32_f32, 1),
    SHADER(blend_f32_f16, 1),
    SHADER(blend_f16_f32, 1),
    SHADER(blend_f16_f16, 1),
    [VK_PIPE_RESOLVE] = SHADER(resolve_f32, 0),
    SHADER(resolve_f32, 1),
    SHADER(resolve_f32, 2),
    SHADER(resolve_f32, 3),
    SHADER(resolve_f16, 0),
    SHADER(resolve_f16, 1),
    SHADER(resolve_f16, 2),
    SHADER(resolve_f16, 3),
    [VK_PIPE_SHOW] = SHADER(show_8, 0),
    SHADER(show_deep, 0),
    [VK_PIPE_FLATTEN] = SHADER(flatten_f32, 0),
    SHADER(flatten_f16, 0),
    [VK_PIPE_ERROR] = SHADER(error_f32, 0),
};

static tsr_status make(tsr_vk *vk, int which, int constant, VkPipeline *out) {
    tsr_status status = TSR_OK;
    const shader *s = &shaders[which];
    VkShaderModule module = VK_NULL_HANDLE;
    VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = s->bytes, .pCode = s->words};
    VK(vk->d.vkCreateShaderModule(vk->device, &code, NULL, &module));
    VkSpecializationMapEntry entry = {.constantID = 0, .offset = 0, .size = sizeof constant};
    VkSpecializationInfo special = {
        .mapEntryCount = 1, .pMapEntries = &entry, .dataSize = sizeof constant, .pData = &constant};
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = module,
                .pName = "main",
                .pSpecializationInfo = &special,
            },
        .layout = which < VK_PIPE_SHOW ? vk->layout : vk->show_layout,
    };
    VK(vk->d.vkCreateComputePipelines(vk->device, VK_NULL_HANDLE, 1, &info, NULL, out));
    tsr_vk_name(vk, VK_OBJECT_TYPE_PIPELINE, (uint64_t)*out, s->name);
error:
    vk->d.vkDestroyShaderModule(vk->device, module, NULL);
    return status;
}

tsr_status tsr_vk_pipe(tsr_vk *vk, int which, VkPipeline *out) {
    tsr_status status = TSR_OK;
    if (!vk->pipe[which])
        status = make(vk, which, shaders[which].constant, &vk->pipe[which]);
    *out = vk->pipe[which];
    return status;
}

void tsr_vk_drop_show_pipes(tsr_vk *vk) {
    for (int i = 0; i < vk->show_pipes; i++)
        vk->d.vkDestroyPipeline(vk->device, vk->show_pipe[i].pipe, NULL);
    vk->show_pipes = 0;
}

tsr_status tsr_vk_show_pipe(tsr_vk *vk, int which, int kind, VkPipeline *out) {
    tsr_status status;
    for (int i = 0; i < vk->show_pipes; i++)
        if (vk->show_pipe[i].which == which && vk->show_pipe[i].kind == kind) {
            *out = vk->show_pipe[i].pipe;
            return TSR_OK;
        }
    if (vk->show_pipes == VK_SHOW_PIPES) { /* rare: somebody has tried everything */
        tsr_vk_drain(vk);
        tsr_vk_drop_show_pipes(vk);
    }
    *out = VK_NULL_HANDLE;
    TSR_TRY(make(vk, which, kind, out));
    vk->show_pipe[vk->show_pipes++] = (vk_show_pipe){which, kind, *out};
error:
    return status;
}

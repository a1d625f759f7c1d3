// What is seen of a frame becomes one layer, so that the next decode may begin above it.
#version 460
#extension GL_GOOGLE_include_directive : require
#ifdef FRAME_F16
#extension GL_EXT_shader_16bit_storage : require
#define FRAME float16_t
#else
#define FRAME float
#endif
#include "layers.glsl"
layout(local_size_x = 64) in;
layout(std430, binding = 7) writeonly buffer Out { FRAME out_px[]; }; // [3][height][width]

void main() {
    ivec2 p = ivec2(gl_GlobalInvocationID.x, gl_WorkGroupID.y);
    if (p.x >= size.x)
        return;
    vec3 v = current(p);
    int at = p.y * size.x + p.x, plane = size.x * size.y;
    out_px[at] = FRAME(v.r);
    out_px[at + plane] = FRAME(v.g);
    out_px[at + 2 * plane] = FRAME(v.b);
}

// Squared differences between what is seen and the reference over a rectangle, summed row by row. A workgroup is a row.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "layers.glsl"
layout(local_size_x = 64) in;
layout(std430, binding = 7) writeonly buffer Out { float row_sum[]; }; // [rows]
shared float part[64];

void main() {
    int lane = int(gl_LocalInvocationID.x), row = int(gl_WorkGroupID.y);
    float sum = 0.0;
    for (int x = lane; x < area.z; x += 64) {
        ivec2 p = area.xy + ivec2(x, row);
        vec3 d = unit(current(p)) - unit(layer_at(reference_px, p));
        sum += dot(d, d);
    }
    part[lane] = sum;
    barrier();
    for (int n = 32; n > 0; n >>= 1) {
        if (lane < n)
            part[lane] += part[lane + n];
        barrier();
    }
    if (lane == 0)
        row_sum[row] = part[0];
}

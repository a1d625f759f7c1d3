// A frame onto a canvas: zoomed, compared, quantised as resolve.comp does it, so that a frame at whole multiples of
// its size is the file's picture to the bit.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "layers.glsl"
layout(local_size_x = 16, local_size_y = 4) in;
layout(binding = 5) uniform samplerBuffer threshold; // [64][64]
#ifdef DEEP
layout(binding = 6, rgba16f) uniform writeonly image2D canvas;
#else
layout(binding = 6, rgba8) uniform writeonly image2D canvas;
#endif
const int SMOOTH = 1, WEIGHTS = 2, WIPE = 4, DIFFERENCE = 8, DITHER_SCREEN = 16, DITHER_NONE = 32, SHRUNK = 64;

vec3 pixel(ivec2 p, bool reference) {
    p = clamp(p, ivec2(0), size - 1);
    if ((rest & DIFFERENCE) != 0)
        return abs(unit(current(p)) - unit(layer_at(reference_px, p))) * (2.0 * look.x) - 1.0;
    return reference ? layer_at(reference_px, p) : current(p);
}

vec3 bilinear(vec2 f, bool reference) {
    f -= 0.5;
    ivec2 i = ivec2(floor(f));
    vec2 t = f - vec2(i);
    vec3 top = mix(pixel(i, reference), pixel(i + ivec2(1, 0), reference), t.x);
    vec3 below = mix(pixel(i + ivec2(0, 1), reference), pixel(i + ivec2(1, 1), reference), t.x);
    return mix(top, below, t.y);
}

// The frame shrunk: the mean over the canvas pixel's footprint.
vec3 mean(vec2 f, bool reference) {
    int n = int(look.y);
    vec3 sum = vec3(0.0);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < n; i++)
            sum += pixel(ivec2(floor(f + map.z * ((vec2(i, j) + 0.5) / float(n) - 0.5))), reference);
    return sum / float(n * n);
}

// Where two tiles meet, brightest where they weigh the same.
vec3 show_weights(vec3 v, ivec2 p) {
    float wx = table[2 * p.x + 1], wy = table[2 * (size.x + p.y) + 1];
    float both = max(1.0 - abs(2.0 * wx - 1.0), 1.0 - abs(2.0 * wy - 1.0));
    return mix(v, vec3(1.0, 0.45, -0.75), 0.75 * both);
}

float eight(float x, int dx, int dy) {
    precise float v = unit(x) * 255.0;
    if ((rest & DITHER_NONE) != 0)
        return roundEven(v) / 255.0;
    v = v + texelFetch(threshold, (dy & 63) * 64 + (dx & 63)).r;
    return floor(v) / 255.0;
}

void main() {
    ivec2 c = ivec2(gl_GlobalInvocationID.xy);
    if (c.x >= area.x || c.y >= area.y)
        return;
    vec2 f = map.xy + (vec2(c) + 0.5) * map.z;
    ivec2 p = ivec2(floor(f));
    if (p.x < 0 || p.y < 0 || p.x >= size.x || p.y >= size.y) {
        imageStore(canvas, c, vec4(0.0));
        return;
    }
    bool reference = (rest & WIPE) != 0 && float(c.x) < map.w;
    vec3 v = (rest & SHRUNK) != 0 ? mean(f, reference) : (rest & SMOOTH) != 0 ? bilinear(f, reference) : pixel(p, reference);
    if ((rest & WEIGHTS) != 0)
        v = show_weights(v, p);
#ifdef DEEP
    imageStore(canvas, c, vec4(unit(v), 1.0));
#else
    ivec2 d = area.zw + ((rest & DITHER_SCREEN) != 0 ? c : p);
    imageStore(canvas, c, vec4(eight(v.r, d.x, d.y), eight(v.g, d.x + 23, d.y + 41), eight(v.b, d.x + 47, d.y + 17), 1.0));
#endif
}

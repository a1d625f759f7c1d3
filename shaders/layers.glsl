// A frame as the preview knows it: what the decode in hand has blended so far (fresh), under it what was there before
// (old), under that a rough picture made straight from the latents. Beside it a frame to compare with (reference).
// The three are texels, [3][height][width] of f32 or f16: lavapipe loads those for many pixels at once, storage buffers
// pixel by pixel.
layout(binding = 0) uniform samplerBuffer fresh_px;
layout(binding = 1) uniform samplerBuffer old_px;
layout(binding = 2) uniform samplerBuffer reference_px;
layout(std430, binding = 3) readonly buffer Tables { float table[]; };      // see tsr_vk_view
layout(std430, binding = 4) readonly buffer Rough { uint rough_px[]; };     // RGBA8 [rough_h][rough_w] from rough_at
layout(push_constant) uniform Push {
    ivec2 size;       // of the frame
    int columns;      // of tiles
    int rough_at;
    ivec2 rough_size;
    ivec2 unused;
    ivec4 area;       // show: canvas width, height, dither x, y. error: x, y, width, 0
    vec4 map;         // show: frame position of the canvas' corner, frame pixels a canvas pixel, wipe (canvas pixels)
    vec4 look;        // show: gain of the difference, taps, 0, 0
};
// What there is and how it is shown is constant, a pipeline for each: lavapipe computes both sides of every branch.
layout(constant_id = 0) const int KIND = 0;
const int layers = KIND & 255, rest = KIND >> 8; // bits below; of the shader in hand
const int FRESH = 1, FRESH_WHOLE = 2, OLD = 4, ROUGH = 8;

bool has(int bit) {
    return (layers & bit) != 0;
}

vec3 layer_at(samplerBuffer px, ivec2 p) {
    int at = p.y * size.x + p.x, plane = size.x * size.y;
    return vec3(texelFetch(px, at).r, texelFetch(px, at + plane).r, texelFetch(px, at + 2 * plane).r);
}

vec3 rough_texel(ivec2 p) {
    p = clamp(p, ivec2(0), rough_size - 1);
    return unpackUnorm4x8(rough_px[rough_at + p.y * rough_size.x + p.x]).rgb;
}

vec3 rough_picture(ivec2 p) {
    vec2 f = (vec2(p) + 0.5) * vec2(rough_size) / vec2(size) - 0.5;
    ivec2 i = ivec2(floor(f));
    vec2 t = f - vec2(i);
    vec3 top = mix(rough_texel(i), rough_texel(i + ivec2(1, 0)), t.x);
    vec3 below = mix(rough_texel(i + ivec2(0, 1)), rough_texel(i + ivec2(1, 1)), t.x);
    return mix(top, below, t.y) * 2.0 - 1.0;
}

vec3 checkerboard(ivec2 p) {
    return vec3(((p.x >> 4 ^ p.y >> 4) & 1) == 0 ? -0.80 : -0.72);
}

vec3 base(ivec2 p) {
    if (has(OLD))
        return layer_at(old_px, p);
    return has(ROUGH) ? rough_picture(p) : checkerboard(p);
}

// Tables: for each column the tile that has most to say there or the one before it, and its weight (the next one has
// the rest); for each row likewise; for each tile how far it has faded in, 0 where it has not come.
// x: the weights of the tiles that have come, summed. y: the same, each by how far it has faded in.
vec2 coverage(ivec2 p) {
    int ty = int(table[2 * (size.x + p.y)]), tx = int(table[2 * p.x]), tiles = 2 * (size.x + size.y);
    float wy = table[2 * (size.x + p.y) + 1], wx = table[2 * p.x + 1];
    vec2 sum = vec2(0.0);
    for (int j = 0; j < (wy < 1.0 ? 2 : 1); j++)
        for (int i = 0; i < (wx < 1.0 ? 2 : 1); i++) {
            float come = table[tiles + (ty + j) * columns + tx + i];
            float w = (j == 0 ? wy : 1.0 - wy) * (i == 0 ? wx : 1.0 - wx);
            sum += come > 0.0 ? vec2(w, w * come) : vec2(0.0);
        }
    return sum;
}

vec3 current(ivec2 p) {
    if (!has(FRESH))
        return base(p);
    vec3 f = layer_at(fresh_px, p);
    if (has(FRESH_WHOLE))
        return f;
    vec2 c = coverage(p);
    vec3 b = base(p);
    return c.x > 0.0 ? mix(b, f + (1.0 - min(c.x, 1.0)) * b, c.y / c.x) : b;
}

// NaN compares false and becomes 0.
float unit(float x) {
    float v = x * 0.5 + 0.5;
    return v > 0.0 ? min(v, 1.0) : 0.0;
}

vec3 unit(vec3 v) {
    return vec3(unit(v.r), unit(v.g), unit(v.b));
}

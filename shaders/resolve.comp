// Accumulators to pixels. One invocation makes four pixels in a row, whole words: 12, 24 or, of one plane, 16 bytes.
// Pixels are numbered through the rows, so that rows of any width pack tightly.
#version 460
#ifdef FRAME_F16
#extension GL_EXT_shader_16bit_storage : require
#define FRAME float16_t
#else
#define FRAME float
#endif
layout(constant_id = 0) const int MODE = 0; // 0 RGB8, 1 RGB8 dithered, 2 RGB16, 3 one plane of RGB_F32 (in R)
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer R { FRAME r[]; };
layout(std430, binding = 1) readonly buffer G { FRAME g[]; };
layout(std430, binding = 2) readonly buffer B { FRAME b[]; };
layout(std430, binding = 3) writeonly buffer Out { uint words[]; };
layout(std430, binding = 4) readonly buffer Dither { float threshold[]; }; // [64][64]
layout(push_constant) uniform Push {
    int pixels, width; // of this band
    int r_at, g_at, b_at, out_at;
    int dither_x, dither_y; // of the band's first pixel
};

// NaN compares false and becomes 0.
float unit(float x) {
    float v = x * 0.5 + 0.5;
    return v > 0.0 ? min(v, 1.0) : 0.0;
}

uint eight(float x, int dx, int dy) {
    precise float v = unit(x) * 255.0;
    if (MODE == 1) {
        v = v + threshold[(dy & 63) * 64 + (dx & 63)];
        return uint(floor(v));
    }
    return uint(roundEven(v));
}

uint sixteen(float x) {
    precise float v = unit(x) * 65535.0;
    return uint(roundEven(v));
}

void main() {
    int p = 4 * int(gl_GlobalInvocationID.x);
    if (p >= pixels)
        return;
    if (MODE == 3) {
        for (int i = 0; i < 4; i++)
            if (p + i < pixels)
                words[out_at + p + i] = floatBitsToUint(float(r[r_at + p + i]));
        return;
    }
    uint v[12];
    int y = p / width, x = p - y * width;
    for (int i = 0; i < 4; i++) {
        int q = min(p + i, pixels - 1);
        float cr = float(r[r_at + q]), cg = float(g[g_at + q]), cb = float(b[b_at + q]);
        if (MODE == 2) {
            v[3 * i] = sixteen(cr);
            v[3 * i + 1] = sixteen(cg);
            v[3 * i + 2] = sixteen(cb);
        } else { // the channels see the pattern at places far apart: less of it shows than if they rose together
            int dx = dither_x + x, dy = dither_y + y;
            v[3 * i] = eight(cr, dx, dy);
            v[3 * i + 1] = eight(cg, dx + 23, dy + 41);
            v[3 * i + 2] = eight(cb, dx + 47, dy + 17);
        }
        if (++x == width) {
            x = 0;
            y++;
        }
    }
    if (MODE == 2) {
        int at = out_at + p / 4 * 6;
        for (int i = 0; i < 6; i++)
            words[at + i] = v[2 * i] | v[2 * i + 1] << 16;
    } else {
        int at = out_at + p / 4 * 3;
        for (int i = 0; i < 3; i++)
            words[at + i] = v[4 * i] | v[4 * i + 1] << 8 | v[4 * i + 2] << 16 | v[4 * i + 3] << 24;
    }
}

// frame += weight_y * weight_x * tile, for one or three planes. One invocation is one pixel of one row; the row is
// uniform over a workgroup, so its weight and bases are read once. With `first` the region is the whole frame and
// pixels outside the tile become zero, which saves a pass that clears.
#version 460
#if defined(SLOT_F16) || defined(FRAME_F16)
#extension GL_EXT_shader_16bit_storage : require
#endif
#ifdef SLOT_F16
#define SLOT float16_t
#else
#define SLOT float
#endif
#ifdef FRAME_F16
#define FRAME float16_t
#else
#define FRAME float
#endif
layout(constant_id = 0) const int PLANES = 3; // constant, so that loops over them unroll: 1.4 times as fast on lavapipe
layout(local_size_x = 64) in;
layout(std430, binding = 0) readonly buffer Slot { SLOT slot_px[]; };     // [planes][rows][tile_width]
layout(std430, binding = 1) buffer Frame { FRAME frame_px[]; };           // [planes][rows][frame_width]
layout(std430, binding = 2) readonly buffer Weights { float weight[]; };  // [tile_width] of x, then [] of y
layout(push_constant) uniform Push {
    int left, columns;               // the region, in frame columns
    int frame_at, frame_plane, frame_width; // elements
    int slot_at, slot_plane;
    int tile_x, tile_width;
    int tile_row, tile_rows;         // of the region's first row in what is bound of the tile; rows bound
    int weight_y;                    // index of the first bound row's
    int first;
};

void main() {
    int column = int(gl_GlobalInvocationID.x), y = int(gl_WorkGroupID.y);
    if (column >= columns)
        return;
    int x = left + column, tx = x - tile_x, ty = tile_row + y;
    int at = frame_at + y * frame_width + x;
    bool inside = uint(tx) < uint(tile_width) && uint(ty) < uint(tile_rows);
    if (!inside) {
        if (first != 0)
            for (int c = 0; c < PLANES; c++)
                frame_px[at + c * frame_plane] = FRAME(0.0);
        return;
    }
    float w = weight[weight_y + ty] * weight[tx];
    int from = slot_at + ty * tile_width + tx;
    for (int c = 0; c < PLANES; c++) {
        float v = w * float(slot_px[from + c * slot_plane]);
        if (first == 0)
            v += float(frame_px[at + c * frame_plane]);
        frame_px[at + c * frame_plane] = FRAME(v);
    }
}

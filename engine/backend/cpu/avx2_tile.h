/* How convolutions of ours cut a picture into tiles, whose input stays in the second-level cache,
 * and pick up the work: for avx2_conv.c and avx2_conv8.c. */
#ifndef TSR_AVX2_TILE_H
#define TSR_AVX2_TILE_H

#include "backend/cpu/ref.h"

enum {
    TILE_BLOCK = 16,        /* output channels at a time: two vectors of sums */
    TILE_PIXELS = 6,        /* pixels at a time: 12 vectors of sums, 2 of weights, 1 of inputs, 1 of products */
    TILE_PATCH = 256 << 10, /* bytes of a tile's input */
    TILE_MOST_PIXELS = 512, /* of a tile's output */
};

typedef struct tile_cut {
    int h, w;          /* of a tile's output */
    int rows, columns; /* tiles */
    int splits;        /* of the output channels' blocks */
} tile_cut;

typedef struct tile { /* of one frame, blocks [b0, b1) of output channels */
    int frame, y, x, h, w;
    int rows, columns; /* of its input, halo included */
    int b0, b1;
} tile;

static inline int tile_pieces(int n, int size) {
    return (n + size - 1) / size;
}

/* The largest tiles of an [h][w] output whose input has at most `room` pixels, all of about the
 * same size; halo: input rows and columns more than output's. w 0: none fits. */
static inline tile_cut tile_cut_of(int h, int w, int halo, int room, int frames, int blocks) {
    enum { MOST_SIDE = 16, FEW = 32 /* items, below which output channels are divided, too */ };
    tile_cut c = {0};
    for (int y = 1; y <= h && y <= MOST_SIDE; y++) {
        int x = room / (y + halo) - halo;
        x = x > w ? w : x;
        x = x > (TILE_MOST_PIXELS - TILE_PIXELS) / y ? (TILE_MOST_PIXELS - TILE_PIXELS) / y : x;
        if (x > 0 && x * y > c.w * c.h) {
            c.w = x;
            c.h = y;
        }
    }
    if (!c.w)
        return c;
    c.rows = tile_pieces(h, c.h);
    c.columns = tile_pieces(w, c.w);
    c.h = tile_pieces(h, c.rows);
    c.w = tile_pieces(w, c.columns);
    int items = frames * c.rows * c.columns, most = tile_pieces(blocks, 4);
    c.splits = items < FEW ? tile_pieces(FEW, items) : 1;
    c.splits = c.splits > most ? most : c.splits;
    return c;
}

static inline int tile_count(const tile_cut *c, int frames) {
    return frames * c->rows * c->columns * c->splits;
}

/* Pieces of the work, each with its own scratch, that take tiles in turn. */
static inline int tile_parts(const tile_cut *c, int frames) {
    enum { MOST = 16 };
    int tiles = tile_count(c, frames);
    return tiles < MOST ? tiles : MOST;
}

/* h or w is not positive where tiles of equal size were done before the last. */
static inline tile tile_at(const tile_cut *c, int i, int h, int w, int halo, int blocks) {
    int split = i % c->splits, column = i / c->splits % c->columns, row = i / c->splits / c->columns % c->rows;
    tile u = {.frame = i / c->splits / c->columns / c->rows,
        .y = row * c->h,
        .x = column * c->w,
        .b0 = blocks * split / c->splits,
        .b1 = blocks * (split + 1) / c->splits};
    u.h = h - u.y < c->h ? h - u.y : c->h;
    u.w = w - u.x < c->w ? w - u.x : c->w;
    u.rows = u.h + halo;
    u.columns = u.w + halo;
    return u;
}

/* Where the tile's output pixels find their first input, in pixels of the patch; the rest of the
 * last six repeat the last one, for sums that nobody reads. */
static inline void tile_pixels(const tile *u, int32_t at[TILE_MOST_PIXELS]) {
    int n = 0;
    for (int y = 0; y < u->h; y++)
        for (int x = 0; x < u->w; x++)
            at[n++] = y * u->columns + x;
    for (int last = at[n - 1]; n % TILE_PIXELS; n++)
        at[n] = last;
}

#endif

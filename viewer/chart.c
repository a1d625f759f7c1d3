#include "chart.h"

#include <stb/stb_easy_font.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TEXT = 2, /* pixels of a pixel of the font, whose lines are 12 high */
    MARGIN = 24,
    ROW = 34,
    BAR = 20,
    HEAD = 96,
    LABELS = 300,  /* width of the column of tile sizes */
    COLUMN = 400,  /* of a column of bars, */
    NUMBERS = 150, /* of which the numbers take so much */
    MOST_GLYPHS = 128,
    QUAD = 4 * 16, /* bytes of a rectangle of the font: four corners of x, y, z and colour */
    QUADS = 40,    /* rectangles a glyph has at most */
};
static const unsigned BACK = 0x14161a, RULE = 0x2a2e36, INK = 0xd8dce2, PALE = 0x8a919e;
static const unsigned TIME = 0x4c8dff, MEMORY = 0x3aa394, BEST = 0xffb03a;

typedef struct canvas {
    unsigned char *rgb;
    int width, height;
} canvas;

static void fill(const canvas *c, int x0, int y0, int x1, int y1, unsigned colour) {
    for (int y = y0 < 0 ? 0 : y0; y < y1 && y < c->height; y++)
        for (int x = x0 < 0 ? 0 : x0; x < x1 && x < c->width; x++)
            for (int k = 0; k < 3; k++)
                c->rgb[3 * ((size_t)y * (size_t)c->width + (size_t)x) + (size_t)k] =
                    (unsigned char)(colour >> (16 - 8 * k));
}

static void text(const canvas *c, int x, int y, unsigned colour, const char *words) {
    static float vertex[MOST_GLYPHS * QUADS * QUAD / sizeof(float)];
    char line[MOST_GLYPHS + 1];
    snprintf(line, sizeof line, "%s", words); /* not const for the font */
    int quads = stb_easy_font_print(0, 0, line, NULL, vertex, sizeof vertex);
    for (int i = 0; i < quads; i++) {
        const float *corner = &vertex[(size_t)i * QUAD / sizeof(float)], *opposite = corner + 8;
        fill(c, x + TEXT * (int)corner[0], y + TEXT * (int)corner[1], x + TEXT * (int)opposite[0],
            y + TEXT * (int)opposite[1], colour);
    }
}

/* A bar of `share` of its column, and its number behind it. */
static void bar(const canvas *c, int x, int y, double share, unsigned colour, const char *number) {
    int length = (int)(share * (COLUMN - NUMBERS) + 0.5);
    fill(c, x, y, x + (length > 1 ? length : 1), y + BAR, colour);
    text(c, x + length + 10, y + 3, INK, number);
}

static void row(const canvas *c, int y, const tsr_tune_point *p, bool best, double slowest, int64_t largest) {
    char words[64];
    int n = snprintf(words, sizeof words, "%dx%d", p->tile_width, p->tile_height);
    snprintf(words + n, sizeof words - (size_t)n, p->columns * p->rows > 1 ? "  %d tiles" : "  untiled",
        p->columns * p->rows);
    text(c, MARGIN, y + 3, best ? BEST : INK, words);
    snprintf(words, sizeof words, p->runs ? "%.1f" : "about %.0f", p->ms_per_mpx);
    bar(c, MARGIN + LABELS, y, p->ms_per_mpx / slowest, best ? BEST : p->runs ? TIME : PALE, words);
    snprintf(words, sizeof words, "%.0f MiB", (double)p->peak_bytes / (1 << 20));
    bar(c, MARGIN + LABELS + COLUMN, y, (double)p->peak_bytes / (double)largest, MEMORY, words);
}

unsigned char *chart_draw(const tsr_tune_table *t, const char *title, int *width, int *height) {
    int rows = 0, y = HEAD;
    double slowest = 0;
    int64_t largest = 1;
    for (int i = 0; i < t->points; i++) {
        const tsr_tune_point *p = &t->point[i];
        rows += p->ms_per_mpx > 0;
        slowest = p->ms_per_mpx > slowest ? p->ms_per_mpx : slowest;
        largest = p->peak_bytes > largest ? p->peak_bytes : largest;
    }
    canvas c = {.width = 2 * MARGIN + LABELS + 2 * COLUMN, .height = HEAD + rows * ROW + MARGIN};
    c.rgb = malloc((size_t)c.width * (size_t)c.height * 3);
    if (!c.rgb)
        return NULL;
    fill(&c, 0, 0, c.width, c.height, BACK);
    text(&c, MARGIN, MARGIN - 4, INK, title);
    text(&c, MARGIN, HEAD - 36, PALE, "tile");
    text(&c, MARGIN + LABELS, HEAD - 36, PALE, "ms for a million pixels");
    text(&c, MARGIN + LABELS + COLUMN, HEAD - 36, PALE, "peak memory");
    fill(&c, MARGIN, HEAD - 10, c.width - MARGIN, HEAD - 9, RULE);
    for (int i = 0; i < t->points; i++)
        if (t->point[i].ms_per_mpx > 0) {
            row(&c, y, &t->point[i], i == t->best, slowest, largest);
            y += ROW;
        }
    *width = c.width;
    *height = c.height;
    return c.rgb;
}

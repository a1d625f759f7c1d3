#include "plan/recipe.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NUMBERS = 25 }; /* in a line, but for its sum */

/* FNV-1a: a digit that changed is noticed, nobody is kept from changing one. */
static uint64_t sum_of(const char *text) {
    uint64_t sum = 0xcbf29ce484222325;
    for (; *text; text++)
        sum = (sum ^ (unsigned char)*text) * 0x100000001b3;
    return sum;
}

/* Both ways in one place. Reals go by their bits: no locale has another way to write these. */
#define LINE(INT, HEX, LONG)                                                                                           \
    "precision " INT " wide " HEX " holds " HEX " expects " HEX " latents " INT "x" INT "x" INT " frames " INT "-" INT \
    " caches " INT " mode " INT " rows " INT "/" INT " columns " INT "/" INT " slices " INT " bands " INT "/" INT      \
    " room " LONG "/" LONG " segment " INT " sets " INT "/" INT " budget " LONG " arena " LONG

static uint64_t bits_of(double real) {
    uint64_t bits;
    memcpy(&bits, &real, sizeof bits);
    return bits;
}

static double real_of(uint64_t bits) {
    double real;
    memcpy(&real, &bits, sizeof real);
    return real;
}

void tsr_recipe_print(char text[TSR_RECIPE_TEXT], const tsr_recipe *r) {
    int n = snprintf(text, TSR_RECIPE_TEXT, LINE("%d", "%" PRIx64, "%" PRId64), (int)r->precision, r->wide,
        bits_of(r->quality), bits_of(r->expected), r->extent.width, r->extent.height, r->extent.frames, r->first_frame,
        r->end_frame, (int)r->caches, (int)r->mode, r->tile_h, r->overlap_h, r->tile_w, r->overlap_w, r->slice_level,
        r->band, r->page_level, r->room, r->reserve, r->segment, r->cache_sets, r->parked_sets, r->budget, r->arena);
    snprintf(text + n, (size_t)(TSR_RECIPE_TEXT - n), " sum %016" PRIx64, sum_of(text));
}

tsr_status tsr_recipe_parse(const char *text, tsr_recipe *r) {
    int precision, caches, mode;
    uint64_t quality, expected;
    char again[TSR_RECIPE_TEXT] = "";
    *r = (tsr_recipe){0};
    int n = sscanf(text, LINE("%d", "%" SCNx64, "%" SCNd64), &precision, &r->wide, &quality, &expected,
        &r->extent.width, &r->extent.height, &r->extent.frames, &r->first_frame, &r->end_frame, &caches, &mode,
        &r->tile_h, &r->overlap_h, &r->tile_w, &r->overlap_w, &r->slice_level, &r->band, &r->page_level, &r->room,
        &r->reserve, &r->segment, &r->cache_sets, &r->parked_sets, &r->budget, &r->arena);
    if (n == NUMBERS) {
        r->precision = (tsr_precision)precision;
        r->quality = real_of(quality);
        r->expected = real_of(expected);
        r->caches = (tsr_cache_home)caches;
        r->mode = (tsr_mode)mode;
        tsr_recipe_print(again, r);
    }
    return *again && strcmp(text, again) == 0 ? TSR_OK : tsr_fail(TSR_ERR_FORMAT, "plan: a damaged recipe");
}

/* A plan in one line: all that was chosen, so that the same plan can be made again whatever rates, free memory and
 * tuned tiles are by then. */
#ifndef TSR_RECIPE_H
#define TSR_RECIPE_H

#include "plan/plan.h"

typedef struct tsr_recipe {
    tsr_precision precision;
    uint64_t wide; /* the mix's */
    double quality, expected;
    tsr_extent extent;
    int first_frame, end_frame;
    tsr_cache_home caches;
    tsr_mode mode;
    int tile_h, overlap_h, tile_w, overlap_w; /* latents, as the axes were cut by */
    int slice_level, band, page_level;
    int64_t room, reserve;
    int segment, cache_sets, parked_sets;
    int64_t budget, arena; /* bytes; the arena's show whether it is the same plan indeed */
} tsr_recipe;

void tsr_recipe_print(char text[TSR_RECIPE_TEXT], const tsr_recipe *r);
/* TSR_ERR_FORMAT where the line is none, or not as it was printed. */
tsr_status tsr_recipe_parse(const char *text, tsr_recipe *out);

#endif

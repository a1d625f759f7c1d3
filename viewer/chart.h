/* The picture of what tune measured: a row a tile size, a bar for time and one for memory. */
#ifndef TSR_CHART_H
#define TSR_CHART_H

#include <tessera/tune.h>

/* RGB [*height][*width][3], malloc'd; NULL: no memory. Points that were not measured are left out. */
unsigned char *chart_draw(const tsr_tune_table *t, const char *title, int *width, int *height);

#endif

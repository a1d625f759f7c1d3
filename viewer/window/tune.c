/* The panel's section on tuning: a chart of what was measured, tile size by tile size. */
#include "widgets.h"

#include <math.h>
#include <stdio.h>

static const ui_color MEMORY = UI_RGB(0x9d78e6);

/* Bars: ms for a million pixels. Dots: peak memory. Both from 0, the largest as high as the chart.
 */
static void draw_chart(app *a) {
    const tuned *t = &a->tuned;
    ui_rect r = {ui_left(), ui_top(), ui_width(), app_px(a, 88)};
    ui_item item = ui_add("tune-chart", r.w, r.h);
    double slowest = 0, largest = 0;
    for (int i = 0; i < t->points; i++) {
        slowest = fmax(slowest, t->point[i].ms_per_mpx);
        largest = fmax(largest, (double)t->point[i].peak_bytes);
    }
    ui_fill(r, COLOR_RAISED, app_px(a, 4));
    float step = r.w / (float)t->points, gap = step > app_px(a, 6) ? app_px(a, 2) : 0;
    float room = r.h - app_px(a, 8);
    int at = item.hovered ? (int)((item.mouse_x - r.x) / step) : -1;
    for (int i = 0; i < t->points; i++) {
        const tsr_tune_point *p = &t->point[i];
        float h = room * (float)(p->ms_per_mpx / slowest), x = r.x + step * (float)i;
        ui_color c = i == t->best ? COLOR_ACCENT : i == at ? COLOR_DIM : p->runs ? COLOR_FAINT : COLOR_TRACK;
        ui_fill((ui_rect){x + gap / 2, r.y + r.h - h, step - gap, h}, c, app_px(a, 2));
        float y = r.y + r.h - room * (float)((double)p->peak_bytes / largest);
        ui_disc(x + step / 2, y, app_px(a, 4), COLOR_RAISED); /* so that it is seen on a bar, too */
        ui_disc(x + step / 2, y, app_px(a, 2.5f), MEMORY);
    }
    if (at >= 0 && at < t->points) {
        char text[128], bytes[32];
        const tsr_tune_point *p = &t->point[at];
        snprintf(text, sizeof text, "%d \xc3\x97 %d: %.0f ms/Mpx, %s, %.1f s for the video%s", p->tile_width,
            p->tile_height, p->ms_per_mpx, bytes_text(bytes, p->peak_bytes), p->runs ? p->seconds : p->expected,
            p->runs ? "" : ", by its first step");
        ui_tooltip(text);
    }
    ui_space(app_px(a, 6));
}

static void draw_best(app *a) {
    char text[96], bytes[32];
    const tsr_tune_point *best = &a->tuned.point[a->tuned.best];
    snprintf(text, sizeof text, "%d \xc3\x97 %d \xc2\xb7 %.0f ms/Mpx \xc2\xb7 %s", best->tile_width, best->tile_height,
        best->ms_per_mpx, bytes_text(bytes, best->peak_bytes));
    widget_fact(a, "Best", text);
    ui_space(app_px(a, 2));
}

void tune_draw(app *a) {
    bool runs = jobs_running(a) == JOB_TUNE;
    float half = floorf((ui_width() - app_px(a, 6)) / 2);
    widget_heading(a, "TUNE");
    if (a->tuned.points)
        draw_chart(a);
    if (a->tuned.best >= 0)
        draw_best(a);
    if (widget_button(a, "tune", runs ? "Stop" : "Tune", "t", half, runs, runs || jobs_running(a) == JOB_NONE,
            "Measures tile sizes under this budget and precision: bars are ms for a million pixels, dark ones by the "
            "first step alone, dots peak memory. The best is kept for this machine. The preview waits meanwhile."))
        action_tune(a);
    ui_same_line(app_px(a, 6));
    if (widget_button(a, "use-best", "Use best", NULL, half, false, a->tuned.best >= 0,
            "Sets the tile size to the fastest that was measured."))
        action_use_best(a);
    ui_space(app_px(a, 2));
}

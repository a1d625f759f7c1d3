/* The bar below the picture: play, where we are, which frames there are. */
#include "widgets.h"

#include <math.h>
#include <stdio.h>

static ui_color frame_color(tsr_preview_frame s) {
    switch (s) {
    case TSR_FRAME_WHOLE:
        return UI_RGB(0x2f7d74);
    case TSR_FRAME_PARTIAL:
        return UI_RGB(0x8a6a35);
    case TSR_FRAME_OLD:
        return UI_RGB(0x434954);
    case TSR_FRAME_MISSING:
        break;
    }
    return UI_RGB(0x20232a);
}

static void draw_play(app *a, ui_rect area) {
    float size = app_px(a, 34), mid_y = area.y + area.h / 2;
    ui_move_to(area.x + app_px(a, 14), mid_y - size / 2);
    ui_item i = ui_add("play", size, size);
    ui_tooltip(a->playing ? "Pause. Space." : "Play. Space.");
    if (i.clicked)
        action_play(a);
    float x = i.r.x + size / 2, s = app_px(a, 7);
    ui_disc(x, mid_y, size / 2, i.hovered ? COLOR_HOVER : COLOR_RAISED);
    if (a->playing) {
        float bar = app_px(a, 4), gap = app_px(a, 2);
        ui_fill((ui_rect){x - gap - bar, mid_y - s, bar, 2 * s}, COLOR_TEXT, app_px(a, 1));
        ui_fill((ui_rect){x + gap, mid_y - s, bar, 2 * s}, COLOR_TEXT, app_px(a, 1));
    } else {
        ui_triangle(x - s * 0.6f, mid_y - s, x - s * 0.6f, mid_y + s, x + s, mid_y, COLOR_TEXT);
    }
}

/* Cells of frames, each as wide as a pixel at least. */
static void draw_cells(app *a, ui_rect strip, int frames) {
    int columns = (int)fminf((float)frames, strip.w);
    float gap = strip.w / (float)columns > app_px(a, 4) ? app_px(a, 1) : 0;
    for (int c = 0; c < columns;) {
        tsr_preview_frame s = tsr_preview_frame_state(a->preview, (int64_t)c * frames / columns);
        int from = c++;
        while (gap == 0 && c < columns && tsr_preview_frame_state(a->preview, (int64_t)c * frames / columns) == s)
            c++;
        float x0 = strip.x + strip.w * (float)from / (float)columns, x1 = strip.x + strip.w * (float)c / (float)columns;
        ui_fill((ui_rect){x0, strip.y, x1 - x0 - gap, strip.h}, frame_color(s), gap > 0 ? app_px(a, 1.5f) : 0);
    }
}

static void draw_strip(app *a, ui_rect area, int frames) {
    float left = area.x + app_px(a, 176), right = area.x + area.w - app_px(a, 76), h = app_px(a, 14);
    if (right - left < app_px(a, 40))
        return;
    ui_rect strip = {left, floorf(area.y + area.h / 2 - h / 2), right - left, h};
    ui_move_to(strip.x, area.y + app_px(a, 6));
    ui_item i = ui_add("timeline", strip.w, area.h - app_px(a, 12));
    if (i.active) {
        int64_t f = (int64_t)floorf((i.mouse_x - strip.x) / strip.w * (float)frames);
        f = f < 0 ? 0 : f >= frames ? frames - 1 : f;
        if (f != a->frame || i.pressed)
            action_go(a, f);
        a->playing = a->playing && !i.pressed;
    }
    draw_cells(a, strip, frames);
    float cell = strip.w / (float)frames, x = strip.x + cell * ((float)a->frame + 0.5f), s = app_px(a, 5);
    ui_line(x, strip.y - app_px(a, 4), x, strip.y + h + app_px(a, 4), UI_RGB(0xffffff), app_px(a, 2));
    ui_triangle(
        x - s, strip.y - app_px(a, 9), x + s, strip.y - app_px(a, 9), x, strip.y - app_px(a, 2), UI_RGB(0xffffff));
    if (i.hovered && !i.active) {
        char text[64];
        int64_t f = (int64_t)((i.mouse_x - strip.x) / strip.w * (float)frames);
        snprintf(text, sizeof text, "%lld", (long long)f);
        ui_text(UI_SMALL, i.mouse_x - ui_text_width(UI_SMALL, text) / 2, strip.y + h + app_px(a, 6), COLOR_DIM, text);
    }
}

void timeline_draw(app *a, ui_rect r) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    char text[64];
    ui_area_begin("timeline", r, 0, ui_alpha(COLOR_BAR, 0), false);
    ui_draw_on(UI_HERE);
    if (i->frames) {
        draw_play(a, r);
        float x = r.x + app_px(a, 60), y = r.y + r.h / 2, line = ui_line_height(UI_NORMAL);
        snprintf(text, sizeof text, "%lld / %d", (long long)a->frame, i->frames - 1);
        ui_text(UI_NORMAL, x, y - line - app_px(a, 1), COLOR_TEXT, text);
        snprintf(text, sizeof text, "%.2f s \xc2\xb7 %.0f%%", (double)a->frame / a->fps, 100 * a->zoom);
        ui_text(UI_SMALL, x, y + app_px(a, 3), COLOR_DIM, text);
        draw_strip(a, r, i->frames);
        ui_move_to(r.x + r.w - app_px(a, 62), y - app_px(a, 13));
        if (widget_button(
                a, "loop", "Loop", NULL, app_px(a, 48), a->look.loop, true, "Begins again at the end. Key l."))
            action_character(a, 'l');
    }
    ui_area_end();
}

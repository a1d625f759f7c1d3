#include "widgets.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void widget_heading(app *a, const char *text) {
    ui_space(app_px(a, 16));
    float x = ui_left(), y = ui_top(), w = ui_width(), text_w = ui_text_width(UI_SMALL, text),
          mid = y + floorf(ui_line_height(UI_SMALL) / 2);
    ui_text(UI_SMALL, x, y, COLOR_DIM, text);
    ui_line(x + text_w + app_px(a, 10), mid, x + w, mid, COLOR_LINE, app_px(a, 1));
    ui_space(ui_line_height(UI_SMALL) + app_px(a, 8));
}

void widget_text_clipped(ui_font font, ui_rect r, ui_color c, const char *text, bool right) {
    char cut[512];
    float w = ui_text_width(font, text);
    if (w > r.w) {
        size_t n = strlen(text);
        n = n < sizeof cut - 4 ? n : sizeof cut - 4;
        do {
            while (n && (text[n - 1] & 0xc0) == 0x80) /* whole characters */
                n--;
            n -= n > 0;
            memcpy(cut, text, n);
            strcpy(cut + n, "...");
        } while (n && ui_text_width(font, cut) > r.w);
        text = cut;
        w = ui_text_width(font, text);
    }
    ui_text(font, right ? r.x + r.w - w : r.x, r.y, c, text);
}

void widget_fact(app *a, const char *name, const char *value) {
    float x = ui_left(), y = ui_top(), w = ui_width(), name_w = ui_text_width(UI_NORMAL, name);
    ui_text(UI_NORMAL, x, y, COLOR_DIM, name);
    float from = name_w + app_px(a, 12);
    widget_text_clipped(UI_NORMAL, (ui_rect){x + from, y, w - from, 0}, COLOR_TEXT, value, true);
    ui_space(ui_line_height(UI_NORMAL) + app_px(a, 6));
}

/* ---------------------------------------------------------------- slider */

static void draw_track(
    app *a, ui_rect track, int count, fit (*fits)(app *a, const void *user, int position), const void *user) {
    ui_fill(track, COLOR_TRACK, track.h / 2);
    if (!fits || count < 2)
        return;
    float step = track.w / (float)(count - 1);
    for (int i = 0; i < count;) {
        int from = i;
        while (i < count && fits(a, user, i) == FIT_NO)
            i++;
        if (i > from) {
            float x0 = fmaxf(track.x, track.x + ((float)from - 0.5f) * step),
                  x1 = fminf(track.x + track.w, track.x + ((float)i - 0.5f) * step);
            ui_fill((ui_rect){x0, track.y, x1 - x0, track.h}, COLOR_BAD_DARK, track.h / 2);
        } else {
            i++;
        }
    }
}

bool widget_slider(app *a, const char *id, const char *label, const char *value, int count, int *position,
    bool *resting, fit (*fits)(app *a, const void *user, int position), const void *user, const char *tooltip) {
    float line = ui_line_height(UI_NORMAL), radius = app_px(a, 7), w = ui_width();
    ui_item i = ui_add(id, w, line + app_px(a, 24));
    ui_tooltip(tooltip);
    ui_rect track = {i.r.x + radius, i.r.y + line + app_px(a, 12), w - 2 * radius, app_px(a, 4)};
    int before = *position;
    bool moved = false;
    *resting = i.released;
    if (i.active && count > 1) {
        float t = (i.mouse_x - track.x) / track.w;
        int to = (int)floorf(t * (float)(count - 1) + 0.5f);
        to = to < 0 ? 0 : to >= count ? count - 1 : to;
        if (!i.pressed || i.mouse_y > i.r.y + line) {
            *position = to;
            moved = to != before;
        }
    }
    bool bad = fits && fits(a, user, *position) == FIT_NO, lit = i.hovered || i.active;
    ui_text(UI_NORMAL, i.r.x, i.r.y, COLOR_DIM, label);
    widget_text_clipped(
        UI_NORMAL, (ui_rect){i.r.x + w / 3, i.r.y, w - w / 3, 0}, bad ? COLOR_BAD : COLOR_TEXT, value, true);
    draw_track(a, track, count, fits, user);
    float knob = track.x + (count > 1 ? track.w * (float)*position / (float)(count - 1) : 0),
          mid = track.y + track.h / 2;
    if (!bad)
        ui_fill((ui_rect){track.x, track.y, knob - track.x, track.h}, ui_alpha(COLOR_ACCENT, lit ? 1.0f : 0.75f),
            track.h / 2);
    ui_disc(knob, mid, radius, bad ? COLOR_BAD : lit ? UI_RGB(0xffffff) : COLOR_TEXT);
    if (i.active)
        ui_ring(knob, mid, radius + app_px(a, 3), ui_alpha(bad ? COLOR_BAD : COLOR_ACCENT, 0.5f), app_px(a, 3));
    return moved || i.released;
}

/* ---------------------------------------------------------------- choices, buttons */

int widget_choices(app *a, const char *id, const char *const *names, int count, int chosen, const bool *disabled,
    const char *tooltip) {
    float w = ui_width(), h = app_px(a, 26), x = ui_left(), y = ui_top(), cell = floorf(w / (float)count);
    int clicked = -1;
    ui_fill((ui_rect){x, y, w, h}, COLOR_RAISED, app_px(a, 5));
    for (int i = 0; i < count; i++) {
        char cell_id[96];
        bool off = disabled && disabled[i];
        snprintf(cell_id, sizeof cell_id, "%s-%d", id, i);
        ui_move_to(x + cell * (float)i, y);
        ui_item it = ui_add(cell_id, i == count - 1 ? w - cell * (float)i : cell, h);
        ui_tooltip(tooltip);
        if (it.clicked && !off)
            clicked = i;
        ui_rect r = {it.r.x + app_px(a, 2), it.r.y + app_px(a, 2), it.r.w - app_px(a, 4), it.r.h - app_px(a, 4)};
        if (i == chosen)
            ui_fill(r, COLOR_ACCENT_DARK, app_px(a, 4));
        else if (it.hovered && !off)
            ui_fill(r, COLOR_HOVER, app_px(a, 4));
        float tw = ui_text_width(UI_SMALL, names[i]);
        ui_text(UI_SMALL, floorf(r.x + (r.w - tw) / 2),
            floorf(r.y + (r.h - ui_line_height(UI_SMALL)) / 2) - app_px(a, 0.5f),
            off           ? COLOR_FAINT
            : i == chosen ? COLOR_ACCENT
                          : COLOR_TEXT,
            names[i]);
        if (off)
            ui_line(floorf(r.x + (r.w - tw) / 2), floorf(r.y + r.h / 2), floorf(r.x + (r.w + tw) / 2),
                floorf(r.y + r.h / 2), COLOR_FAINT, app_px(a, 1));
    }
    return clicked;
}

bool widget_button(app *a, const char *id, const char *label, const char *letter, float w, bool on, bool enabled,
    const char *tooltip) {
    float h = app_px(a, 26), text = ui_text_width(UI_SMALL, label), gap = letter ? app_px(a, 7) : 0,
          letter_w = letter ? ui_text_width(UI_SMALL, letter) : 0;
    ui_item i = ui_add(id, w > 0 ? w : text + gap + letter_w + app_px(a, 20), h);
    if (tooltip)
        ui_tooltip(tooltip);
    ui_color back = on                     ? COLOR_ACCENT_DARK
                    : i.active && enabled  ? COLOR_TRACK
                    : i.hovered && enabled ? COLOR_HOVER
                                           : COLOR_RAISED;
    ui_fill(i.r, back, app_px(a, 5));
    float x = floorf(i.r.x + (i.r.w - text - gap - letter_w) / 2),
          y = floorf(i.r.y + (h - ui_line_height(UI_SMALL)) / 2) - app_px(a, 0.5f);
    ui_text(UI_SMALL, x, y, !enabled ? COLOR_FAINT : on ? COLOR_ACCENT : COLOR_TEXT, label);
    if (letter)
        ui_text(UI_SMALL, x + text + gap, y, on ? ui_alpha(COLOR_ACCENT, 0.6f) : COLOR_FAINT, letter);
    return i.clicked && enabled;
}

void widget_progress(app *a, float w, double share, ui_color c) {
    float h = app_px(a, 3);
    ui_rect r = {ui_left(), ui_top(), w, h};
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    ui_fill(r, COLOR_TRACK, h / 2);
    if (share > 0) {
        r.w *= (float)share;
        ui_fill(r, c, h / 2);
    }
    ui_space(h);
}

/* The picture: where it lies, what is drawn over it, what the mouse does to it. */
#include "widgets.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double COMPARE_EVERY = 0.2, WHEEL_FACTOR = 1.2, DOUBLE_CLICK = 0.3;

/* ---------------------------------------------------------------- where it lies */

static void place(app *a, const tsr_preview_info *i) {
    double w = (double)a->stage.w, h = (double)a->stage.h, margin = 2 * (double)app_px(a, 14);
    if (a->fit) {
        double zx = (w - margin) / i->width, zy = (h - margin) / i->height;
        a->zoom = fmax(zx < zy ? zx : zy, 0.02);
        a->at_x = i->width / 2.0;
        a->at_y = i->height / 2.0;
    }
    a->left = round((a->at_x - w / 2 / a->zoom) * a->zoom) / a->zoom; /* pixels fall on pixels */
    a->top = round((a->at_y - h / 2 / a->zoom) * a->zoom) / a->zoom;
}

static float to_x(const app *a, double frame_x) {
    return a->stage.x + (float)((frame_x - a->left) * a->zoom);
}

static float to_y(const app *a, double frame_y) {
    return a->stage.y + (float)((frame_y - a->top) * a->zoom);
}

/* What of the frame is in the stage, in whole pixels of the stage. */
static bool visible(const app *a, const tsr_preview_info *i, int *x0, int *y0, int *x1, int *y1) {
    *x0 = (int)fmax(0, floor(-a->left * a->zoom));
    *y0 = (int)fmax(0, floor(-a->top * a->zoom));
    *x1 = (int)fmin((double)a->stage.w, ceil((i->width - a->left) * a->zoom));
    *y1 = (int)fmin((double)a->stage.h, ceil((i->height - a->top) * a->zoom));
    return *x1 > *x0 && *y1 > *y0;
}

static void compare(app *a, const tsr_preview_info *i) {
    if (!(a->look.wipe || a->look.difference) || !i->has_reference || a->now - a->compared_at < COMPARE_EVERY)
        return;
    int x0 = (int)fmax(0, floor(a->left)), y0 = (int)fmax(0, floor(a->top));
    int x1 = (int)fmin(i->width, ceil(a->left + (double)a->stage.w / a->zoom)),
        y1 = (int)fmin(i->height, ceil(a->top + (double)a->stage.h / a->zoom));
    a->compared_at = a->now;
    if (x1 > x0 && y1 > y0 && tsr_preview_compare(a->preview, a->frame, x0, y0, x1 - x0, y1 - y0) == TSR_ERR_DEVICE)
        a->lost = true;
}

static void draw_picture(app *a, const tsr_preview_info *i) {
    int x0, y0, x1, y1;
    if (!visible(a, i, &x0, &y0, &x1, &y1))
        return;
    bool whole_pixels = a->zoom >= 1 && fabs(a->zoom - round(a->zoom)) < 1e-9 && (a->look.nearest || a->zoom == 1);
    if (a->image_stale || !a->image.view || i->animating) {
        tsr_preview_view v = TSR_PREVIEW_VIEW_DEFAULT;
        v.frame = a->frame;
        v.width = x1 - x0;
        v.height = y1 - y0;
        v.left = a->left + x0 / a->zoom;
        v.top = a->top + y0 / a->zoom;
        v.zoom = a->zoom;
        v.smooth = !whole_pixels && !a->look.nearest;
        v.deep = a->gpu.deep;
        v.weights = a->look.weights;
        v.wipe = a->look.wipe;
        v.wipe_at = a->wipe * (double)a->stage.w - x0;
        v.difference = a->look.difference;
        v.gain = a->look.gain;
        tsr_status status = tsr_preview_show(a->preview, &v, &a->image);
        if (status == TSR_ERR_DEVICE)
            a->lost = true;
        if (status != TSR_OK) {
            a->image = (tsr_preview_image){0};
            app_say(a, true, "%s", tsr_last_error());
            return;
        }
        a->image_stale = false;
        a->pictures_drawn++;
        compare(a, i);
    }
    float w = (float)(x1 - x0), h = (float)(y1 - y0);
    ui_image(a->image.view, (ui_rect){a->stage.x + (float)x0, a->stage.y + (float)y0, w, h}, w / (float)a->image.width,
        h / (float)a->image.height);
}

/* ---------------------------------------------------------------- over it */

/* A tile without what it shares with its neighbours: from the middle of one overlap to the middle
 * of the next. */
static ui_rect core_of(const app *a, const tsr_plan_info *p, int tile, const tsr_preview_tile *t) {
    int column = tile % p->columns, row = tile / p->columns;
    double x0 = t->x, y0 = t->y, x1 = t->x + t->width, y1 = t->y + t->height;
    tsr_preview_tile n;
    if (column > 0 && tsr_preview_get_tile(a->preview, tile - 1, &n))
        x0 = (x0 + n.x + n.width) / 2;
    if (column + 1 < p->columns && tsr_preview_get_tile(a->preview, tile + 1, &n))
        x1 = (x1 + n.x) / 2;
    if (row > 0 && tsr_preview_get_tile(a->preview, tile - p->columns, &n))
        y0 = (y0 + n.y + n.height) / 2;
    if (row + 1 < p->rows && tsr_preview_get_tile(a->preview, tile + p->columns, &n))
        y1 = (y1 + n.y) / 2;
    ui_rect r = {to_x(a, x0), to_y(a, y0), 0, 0};
    r.w = to_x(a, x1) - r.x;
    r.h = to_y(a, y1) - r.y;
    return r;
}

/* From blue over green and yellow to red. */
static ui_color heat_color(double t) {
    static const double stop[][3] = {{60, 90, 220}, {60, 190, 170}, {235, 205, 80}, {230, 80, 60}};
    t = 3 * (t < 0 ? 0 : t > 1 ? 1 : t);
    int k = t >= 3 ? 2 : (int)t;
    unsigned c = 0;
    for (int i = 0; i < 3; i++)
        c = c << 8 | (unsigned)(stop[k][i] + (t - k) * (stop[k + 1][i] - stop[k][i]));
    return UI_RGB(c);
}

static void draw_heat(app *a, const tsr_plan_info *p) {
    tsr_preview_tile t;
    double least = INFINITY, most = 0;
    char text[32];
    for (int k = 0; tsr_preview_get_tile(a->preview, k, &t); k++)
        if (t.seconds > 0) {
            least = fmin(least, t.seconds);
            most = fmax(most, t.seconds);
        }
    for (int k = 0; tsr_preview_get_tile(a->preview, k, &t); k++) {
        if (!(t.seconds > 0))
            continue;
        ui_rect r = core_of(a, p, k, &t);
        double share = most > least * 1.001 ? (t.seconds - least) / (most - least) : 0.5;
        ui_fill(r, ui_alpha(heat_color(share), 0.38f), 0);
        snprintf(text, sizeof text, t.seconds < 1 ? "%.0f ms" : "%.2f s", t.seconds < 1 ? 1e3 * t.seconds : t.seconds);
        float tw = ui_text_width(UI_SMALL, text), pad = app_px(a, 5), h = ui_line_height(UI_SMALL);
        if (tw + 4 * pad > r.w || h + 4 * pad > r.h)
            continue;
        ui_rect back = {
            floorf(r.x + (r.w - tw) / 2) - pad, floorf(r.y + (r.h - h) / 2) - pad, tw + 2 * pad, h + 2 * pad};
        ui_fill(back, ui_alpha(COLOR_STAGE, 0.65f), app_px(a, 4));
        ui_text(UI_SMALL, back.x + pad, back.y + pad, COLOR_TEXT, text);
    }
}

static void draw_seams(app *a, const tsr_plan_info *p) {
    tsr_preview_tile t, n;
    float top = to_y(a, 0), left = to_x(a, 0), bottom = to_y(a, p->height), right = to_x(a, p->width);
    ui_color c = ui_alpha(COLOR_WARN, 0.28f);
    for (int k = 0; k + 1 < p->columns; k++)
        if (tsr_preview_get_tile(a->preview, k, &t) && tsr_preview_get_tile(a->preview, k + 1, &n))
            ui_fill((ui_rect){to_x(a, n.x), top, to_x(a, t.x + t.width) - to_x(a, n.x), bottom - top}, c, 0);
    for (int k = 0; k + 1 < p->rows; k++)
        if (tsr_preview_get_tile(a->preview, k * p->columns, &t) &&
            tsr_preview_get_tile(a->preview, (k + 1) * p->columns, &n))
            ui_fill((ui_rect){left, to_y(a, n.y), right - left, to_y(a, t.y + t.height) - to_y(a, n.y)}, c, 0);
}

static void draw_grid(app *a, const tsr_plan_info *p, bool lines) {
    tsr_preview_tile t;
    float thin = app_px(a, 1);
    for (int k = 0; tsr_preview_get_tile(a->preview, k, &t); k++) {
        ui_rect r = core_of(a, p, k, &t);
        r = (ui_rect){floorf(r.x), floorf(r.y), floorf(r.x + r.w) - floorf(r.x), floorf(r.y + r.h) - floorf(r.y)};
        if (lines) {
            ui_stroke((ui_rect){r.x, r.y, r.w + thin, r.h + thin}, ui_alpha(UI_RGB(0x000000), 0.5f), 0, 3 * thin);
            ui_stroke((ui_rect){r.x, r.y, r.w + thin, r.h + thin}, ui_alpha(UI_RGB(0xffffff), 0.8f), 0, thin);
        }
    }
    for (int k = 0; lines && tsr_preview_get_tile(a->preview, k, &t); k++)
        if (t.in_hand)
            ui_stroke(core_of(a, p, k, &t), COLOR_ACCENT, 0, app_px(a, 3));
}

static void draw_wipe(app *a) {
    float x = floorf(a->stage.x + (float)a->wipe * a->stage.w), y = a->stage.y + a->stage.h / 2, s = app_px(a, 6),
          pad = app_px(a, 7);
    ui_line(x, a->stage.y, x, a->stage.y + a->stage.h, ui_alpha(UI_RGB(0x000000), 0.6f), app_px(a, 4));
    ui_line(x, a->stage.y, x, a->stage.y + a->stage.h, UI_RGB(0xffffff), app_px(a, 2));
    ui_disc(x, y, app_px(a, 15), UI_RGB(0xffffff));
    ui_triangle(x - app_px(a, 3), y - s, x - app_px(a, 3), y + s, x - app_px(a, 3) - s, y, COLOR_STAGE);
    ui_triangle(x + app_px(a, 3), y - s, x + app_px(a, 3), y + s, x + app_px(a, 3) + s, y, COLOR_STAGE);
    for (int k = 0; k < 2; k++) {
        const char *text = k ? "B  now" : "A  kept";
        float w = ui_text_width(UI_SMALL, text) + 2 * pad, tx = k ? x + app_px(a, 12) : x - app_px(a, 12) - w;
        ui_fill((ui_rect){tx, a->stage.y + app_px(a, 12), w, ui_line_height(UI_SMALL) + 2 * app_px(a, 5)},
            ui_alpha(COLOR_STAGE, 0.75f), app_px(a, 4));
        ui_text(UI_SMALL, tx + pad, a->stage.y + app_px(a, 17), COLOR_TEXT, text);
    }
}

static void draw_overlays(app *a, const tsr_preview_info *i) {
    const tsr_plan_info *p = i->plan;
    if (p) {
        float x = fmaxf(to_x(a, 0), a->stage.x), y = fmaxf(to_y(a, 0), a->stage.y);
        ui_clip((ui_rect){x - app_px(a, 2), y - app_px(a, 2), to_x(a, i->width) - x + app_px(a, 4),
            to_y(a, i->height) - y + app_px(a, 4)});
        if (a->look.heat)
            draw_heat(a, p);
        if (a->look.seams)
            draw_seams(a, p);
        if (a->look.grid)
            draw_grid(a, p, true);
        ui_unclip();
    }
    if (a->look.wipe && i->has_reference)
        draw_wipe(a);
}

/* ---------------------------------------------------------------- nothing open */

static void draw_welcome(app *a) {
    char text[PATH_MOST + 64];
    if (*a->folder)
        snprintf(text, sizeof text, "The newest one written to %s appears by itself.", a->folder);
    else
        snprintf(text, sizeof text,
            "A .latent, .safetensors or .npy file, a VAE to decode with, or a folder whose newest "
            "latent is to be followed.");
    float w = fminf(a->stage.w - app_px(a, 40), app_px(a, 420)), pad = app_px(a, 28);
    float h = 2 * pad + ui_line_height(UI_LARGE) + app_px(a, 14) + ceilf(ui_text_height(UI_NORMAL, text, w - 2 * pad)) +
              app_px(a, 22 + 26 + 16) + ui_line_height(UI_SMALL);
    ui_rect r = {floorf(a->stage.x + (a->stage.w - w) / 2), floorf(a->stage.y + (a->stage.h - h) / 2), w, h};
    ui_draw_on(UI_BEHIND); /* an area clips what is drawn in its padding */
    ui_stroke(r, COLOR_LINE, app_px(a, 10), app_px(a, 1.5f));
    ui_area_begin("welcome", r, pad, ui_alpha(COLOR_STAGE, 0), false);
    ui_draw_on(UI_HERE);
    ui_text(UI_LARGE, ui_left(), ui_top(), COLOR_TEXT, *a->folder ? "Waiting for a latent" : "Drop a latent here");
    ui_space(ui_line_height(UI_LARGE) + app_px(a, 14));
    ui_paragraph(UI_NORMAL, COLOR_DIM, text);
    ui_space(app_px(a, 22));
    float half = floorf((ui_width() - app_px(a, 10)) / 2);
    if (widget_button(a, "welcome-demo", "Try the demo", NULL, half, true, true,
            "A short clip and a small model that come with Tessera."))
        app_open_demo(a);
    ui_same_line(app_px(a, 10));
    if (widget_button(a, "welcome-open", "Open a file", "o", half, false, true, NULL))
        action_dialog(a, DIALOG_OPEN);
    ui_space(app_px(a, 16));
    ui_text(UI_SMALL, ui_left(), ui_top(), COLOR_FAINT, "? shows the keys");
    ui_area_end();
}

void stage_draw(app *a) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    if (!i->frames) {
        draw_welcome(a);
        return;
    }
    place(a, i);
    ui_draw_on(UI_BEHIND);
    ui_clip(a->stage);
    draw_picture(a, i);
    draw_overlays(a, i);
    ui_unclip();
}

/* ---------------------------------------------------------------- the mouse */

static bool in_stage(const app *a) {
    double x = a->mouse_x - (double)a->stage.x, y = a->mouse_y - (double)a->stage.y;
    return a->latent && a->dialog == DIALOG_NONE && x >= 0 && y >= 0 && x < (double)a->stage.w &&
           y < (double)a->stage.h;
}

static void press(app *a) {
    double at = a->wipe * (double)a->stage.w;
    a->moving_wipe = a->look.wipe && fabs(a->mouse_x - at) < (double)app_px(a, 16);
    a->dragging = !a->moving_wipe;
    bool twice = a->now - a->pressed_at < DOUBLE_CLICK &&
                 hypot(a->mouse_x - a->drag_x, a->mouse_y - a->drag_y) < (double)app_px(a, 4);
    if (twice && a->dragging)
        a->fit ? action_actual(a, 1) : action_fit(a);
    a->pressed_at = twice ? 0 : a->now;
    a->drag_x = a->mouse_x;
    a->drag_y = a->mouse_y;
}

static void move(app *a) {
    if (a->moving_wipe) {
        double t = a->mouse_x / (double)a->stage.w;
        a->wipe = t < 0 ? 0 : t > 1 ? 1 : t;
        a->image_stale = true;
    } else if (a->dragging) {
        double dx = a->mouse_x - a->drag_x, dy = a->mouse_y - a->drag_y;
        if (a->fit && hypot(dx, dy) < (double)app_px(a, 3))
            return;
        a->fit = false;
        a->at_x -= dx / a->zoom;
        a->at_y -= dy / a->zoom;
        a->drag_x = a->mouse_x;
        a->drag_y = a->mouse_y;
        a->image_stale = true;
    }
}

void stage_event(app *a, const event *e) {
    if (e->kind == EVENT_PRESS && e->button == 0 && in_stage(a))
        press(a);
    else if (e->kind == EVENT_RELEASE && e->button == 0)
        a->dragging = a->moving_wipe = false;
    else if (e->kind == EVENT_MOVE)
        move(a);
    else if (e->kind == EVENT_WHEEL && in_stage(a) && a->zoom > 0)
        action_zoom(
            a, a->zoom * pow(WHEEL_FACTOR, e->y), a->mouse_x - (double)a->stage.x, a->mouse_y - (double)a->stage.y);
}

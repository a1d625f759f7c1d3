/* The panel: what is open, the dials, the plan against the machine, what is shown, what can be
 * written. */
#include "widgets.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const ui_color part_color[] = {UI_RGB(0x5b8def), UI_RGB(0x9d78e6), COLOR_ACCENT, COLOR_WARN, UI_RGB(0xdd7596)};
static const char *const part_name[] = {"weights", "arena", "caches", "slots", "frames"};
enum { PARTS = 5 };

/* ---------------------------------------------------------------- what is open, what goes on */

static void state_text(app *a, const tsr_preview_info *i, char *out, size_t size) {
    char first[48] = "";
    if (a->first_frame_seconds > 0)
        snprintf(first, sizeof first, " \xc2\xb7 first frame %.2f s", a->first_frame_seconds);
    switch (i->state) {
    case TSR_PREVIEW_IDLE:
        snprintf(out, size, "%s",
            jobs_running(a) == JOB_MEASURE ? "Measuring 8 bits"
            : a->plan_error[0]             ? "Does not fit"
                                           : "Stopped");
        break;
    case TSR_PREVIEW_PREPARING:
        snprintf(out, size, "Preparing");
        break;
    case TSR_PREVIEW_DECODING:
        snprintf(out, size, "Decoding %.0f%%%s", 100 * i->share, first);
        break;
    case TSR_PREVIEW_PAUSED:
        snprintf(out, size, "Waiting: memory for frames is full");
        break;
    case TSR_PREVIEW_DONE:
        snprintf(out, size, "Decoded in %.1f s%s", i->seconds, first);
        break;
    case TSR_PREVIEW_FAILED:
        snprintf(out, size, "Failed");
        break;
    }
}

static void draw_head(app *a, const tsr_preview_info *i) {
    char text[600];
    float w = ui_width(), line = ui_line_height(UI_BOLD);
    widget_text_clipped(UI_BOLD, (ui_rect){ui_left(), ui_top(), w, 0}, COLOR_TEXT, a->name, false);
    ui_space(line + app_px(a, 5));
    const tsr_plan_info *p = decode_in_force(a);
    snprintf(text, sizeof text, "%d \xc3\x97 %d \xc2\xb7 %d frame%s \xc2\xb7 %s on %s", i->width, i->height, i->frames,
        plural(i->frames), tsr_precision_name(p->precision), p->device ? p->device : "?");
    widget_text_clipped(UI_SMALL, (ui_rect){ui_left(), ui_top(), w, 0}, COLOR_DIM, text, false);
    ui_space(ui_line_height(UI_SMALL) + app_px(a, 12));
    bool busy = i->state == TSR_PREVIEW_DECODING || i->state == TSR_PREVIEW_PREPARING;
    widget_progress(a, w, i->state == TSR_PREVIEW_DONE ? 1 : i->share,
        i->state == TSR_PREVIEW_FAILED ? COLOR_BAD
        : busy                         ? COLOR_ACCENT
                                       : COLOR_ACCENT_DARK);
    ui_space(app_px(a, 7));
    state_text(a, i, text, sizeof text);
    ui_text(UI_SMALL, ui_left(), ui_top(), i->state == TSR_PREVIEW_FAILED ? COLOR_BAD : COLOR_DIM, text);
    ui_space(ui_line_height(UI_SMALL));
    if (i->error && *i->error) {
        ui_space(app_px(a, 6));
        ui_paragraph(UI_SMALL, COLOR_BAD, i->error);
    }
    if (i->shrunk && *i->shrunk) {
        ui_space(app_px(a, 6));
        ui_paragraph(UI_SMALL, COLOR_WARN, i->shrunk);
    }
}

/* ---------------------------------------------------------------- dials */

static fit fit_of(app *a, const void *user, int position) {
    return planner_fit(a->planner, *(const dial *)user, position);
}

/* What the plan made of "auto". */
static const char *auto_text(const app *a, dial d, char buf[64]) {
    const tsr_plan_info *p = decode_in_force(a);
    char bytes[32];
    if (a->plan_error[0])
        return "auto";
    if (d == DIAL_VRAM && p->budget > 0 && p->budget < 1ll << 50)
        snprintf(buf, 64, "auto: %s", bytes_text(bytes, p->budget));
    else if (d == DIAL_TILE_WIDTH && a->set.linked)
        snprintf(buf, 64, "auto: %d \xc3\x97 %d", p->tile_width, p->tile_height);
    else if (d == DIAL_TILE_WIDTH || d == DIAL_TILE_HEIGHT)
        snprintf(buf, 64, "auto: %d px", d == DIAL_TILE_WIDTH ? p->tile_width : p->tile_height);
    else if (d == DIAL_OVERLAP && p->columns * p->rows > 1)
        snprintf(buf, 64, "auto: %d \xc3\x97 %d", p->overlap_width, p->overlap_height);
    else
        return "auto";
    return buf;
}

static void draw_dial(app *a, dial d, const char *id, const char *label, const char *tooltip) {
    char text[64];
    int position = decode_position(a, d);
    bool resting;
    const char *value = decode_text(a, d, a->positions_of[d].count ? a->positions_of[d].value[position] : 0, text);
    if (position == 0)
        value = auto_text(a, d, text);
    if (widget_slider(a, id, label, value, a->positions_of[d].count, &position, &resting, fit_of, &d, tooltip))
        decode_set(a, d, position, resting);
    ui_space(app_px(a, 4));
}

static void draw_tiles(app *a) {
    const tsr_plan_info *p = decode_in_force(a);
    char text[128];
    widget_heading(a, "TILES");
    draw_dial(a, DIAL_TILE_WIDTH, "tile-width", a->set.linked ? "Tile size" : "Tile width",
        "Larger tiles show fewer seams and repeat less work, but take more memory. Auto takes the "
        "largest that fit. Keys [ and ].");
    if (!a->set.linked)
        draw_dial(a, DIAL_TILE_HEIGHT, "tile-height", "Tile height",
            "Larger tiles show fewer seams and repeat less work, but take more memory. Auto takes "
            "the largest that fit.");
    if (a->set.blend)
        draw_dial(a, DIAL_OVERLAP, "overlap", "Overlap",
            "Tiles overlap by this much and fade into each other: more hides seams better and "
            "costs time. Keys , and .");
    if (widget_button(
            a, "linked", "Square", NULL, 0, a->set.linked, true, "Tiles as high as wide; off: two sliders.")) {
        a->set.linked = !a->set.linked;
        a->set.value[DIAL_TILE_HEIGHT] = a->set.value[DIAL_TILE_WIDTH];
        decode_scales(a);
        decode_changed(a, true);
    }
    ui_same_line(app_px(a, 6));
    if (widget_button(a, "blend", "Blend", "b", 0, a->set.blend, true,
            "Off: tiles abut without overlap. Faster, and every seam shows."))
        action_character(a, 'b');
    ui_space(app_px(a, 10));
    if (a->plan_error[0]) {
        ui_paragraph(UI_SMALL, COLOR_BAD, a->plan_error);
        ui_space(app_px(a, 6));
        return;
    }
    if (p->columns * p->rows > 1)
        snprintf(
            text, sizeof text, "%d \xc3\x97 %d of %d \xc3\x97 %d", p->columns, p->rows, p->tile_width, p->tile_height);
    else
        snprintf(text, sizeof text, "untiled, no seams");
    widget_fact(a, "Plan", text);
    if (p->columns * p->rows > 1) {
        snprintf(text, sizeof text, "%d \xc3\x97 %d px", p->overlap_width, p->overlap_height);
        widget_fact(a, "Overlap", text);
    }
    snprintf(text, sizeof text, "%.2f TFLOP \xc2\xb7 %.0f ms to plan", p->flops * 1e-12, 1e3 * a->plan_seconds);
    widget_fact(a, "Work", text);
}

static void draw_compute(app *a) {
    static const char *const precision_names[] = {"auto", "f32", "fp16", "bf16", "fp8", "int8"},
                             *const cache_names[] = {"auto", "device", "host"};
    bool disabled[6];
    widget_heading(a, "COMPUTE");
    for (int k = 0; k < 6; k++)
        disabled[k] = planner_fit(a->planner, DIAL_PRECISION, k) == FIT_NO;
    ui_text(UI_NORMAL, ui_left(), ui_top(), COLOR_DIM, "Precision");
    ui_space(ui_line_height(UI_NORMAL) + app_px(a, 6));
    int clicked = widget_choices(a, "precision", precision_names, 6, decode_position(a, DIAL_PRECISION), disabled,
        "f32 is the reference; 16 bits halve the memory and are as good to the eye; 8 bits are "
        "fastest where the device has them and cost a "
        "little quality. Key p.");
    if (clicked >= 0)
        decode_set(a, DIAL_PRECISION, clicked, true);
    ui_space(app_px(a, 10));
    for (int k = 0; k < 3; k++)
        disabled[k] = planner_fit(a->planner, DIAL_CACHES, k) == FIT_NO;
    ui_text(UI_NORMAL, ui_left(), ui_top(), COLOR_DIM, "Caches");
    ui_space(ui_line_height(UI_NORMAL) + app_px(a, 6));
    clicked = widget_choices(a, "caches", cache_names, 3, decode_position(a, DIAL_CACHES), disabled,
        "What the decoder remembers between frames. On the device it is fast; on the host it frees "
        "device memory and costs transfers. "
        "The picture is the same. Key c.");
    if (clicked >= 0)
        decode_set(a, DIAL_CACHES, clicked, true);
    ui_space(app_px(a, 4));
}

/* ---------------------------------------------------------------- memory */

static void part_bytes(const tsr_plan_bytes *b, double out[PARTS]) {
    const int64_t v[] = {b->weights, b->arena, b->caches, b->slots, b->frames};
    for (int i = 0; i < PARTS; i++)
        out[i] = (double)v[i];
}

static void draw_bar(app *a, const tsr_preview_info *i, const tsr_plan_info *p) {
    double part[PARTS], used = (double)(i->backend_bytes + i->slot_bytes + i->frame_bytes);
    part_bytes(&p->bytes, part);
    double most = fmax(fmax((double)p->bytes.total, used), p->budget < 1ll << 50 ? (double)p->budget : 0);
    /* A small plan in a large budget would be a line: the bar shows at most four times what is
     * planned. */
    double shown = fmin(most, 4 * fmax((double)p->bytes.total, used));
    float w = ui_width(), h = app_px(a, 16), x = ui_left(), y = ui_top(), at = x, gap = app_px(a, 1);
    ui_item item = ui_add("plan-bar", w, h + app_px(a, 9));
    (void)item;
    ui_tooltip("What the plan takes of device memory, part by part; the thin bar is what is really "
               "allocated, kept frames included. The mark "
               "is the budget, where it is near.");
    ui_fill((ui_rect){x, y, w, h}, COLOR_TRACK, app_px(a, 3));
    for (int k = 0; k < PARTS; k++) {
        float pw = (float)(part[k] / shown) * w;
        if (pw > gap)
            ui_fill((ui_rect){at, y, pw - gap, h}, part_color[k], app_px(a, 2));
        at += pw;
    }
    ui_rect thin = {x, y + h + app_px(a, 3), w, app_px(a, 3)};
    ui_fill(thin, COLOR_TRACK, thin.h / 2);
    thin.w = (float)(used / shown) * w;
    ui_fill(thin, COLOR_TEXT, thin.h / 2);
    float mark = x + (float)((double)p->budget / shown) * w;
    if (mark <= x + w)
        ui_fill((ui_rect){fminf(mark, x + w - app_px(a, 2)), y - app_px(a, 3), app_px(a, 2), h + app_px(a, 6)},
            UI_RGB(0xffffff), 0);
}

static void draw_legend(app *a, const tsr_plan_info *p) {
    double part[PARTS];
    char text[32];
    part_bytes(&p->bytes, part);
    float x = ui_left(), y = ui_top(), w = ui_width() / 2 - app_px(a, 8),
          line = ui_line_height(UI_SMALL) + app_px(a, 5), dot = app_px(a, 8);
    for (int k = 0; k < PARTS; k++) {
        float lx = x + (k % 2 ? w + app_px(a, 16) : 0), ly = y + (float)(k / 2) * line;
        ui_fill((ui_rect){lx, ly + app_px(a, 3), dot, dot}, part_color[k], app_px(a, 2));
        ui_text(UI_SMALL, lx + dot + app_px(a, 6), ly, COLOR_DIM, part_name[k]);
        widget_text_clipped(
            UI_SMALL, (ui_rect){lx + w / 2, ly, w / 2, 0}, COLOR_TEXT, bytes_text(text, (int64_t)part[k]), true);
    }
    ui_space(line * 3 + app_px(a, 4));
}

static void draw_memory(app *a, const tsr_preview_info *i) {
    char total[32], budget[32], used[32], text[128];
    const tsr_plan_info *p = decode_in_force(a);
    widget_heading(a, "MEMORY");
    draw_dial(a, DIAL_VRAM, "vram", "VRAM target",
        "The plan stays below this much device memory: less means smaller tiles, more seams and "
        "more repeated work. Keys - and =.");
    draw_bar(a, i, p);
    ui_space(app_px(a, 6));
    draw_legend(a, p);
    bool bounded = p->budget > 0 && p->budget < 1ll << 50;
    snprintf(text, sizeof text, "%s%s%s", bytes_text(total, p->bytes.total), bounded ? " of " : "",
        bounded ? bytes_text(budget, p->budget) : "");
    widget_fact(a, "Planned", text);
    widget_fact(a, "Used", bytes_text(used, i->backend_bytes + i->slot_bytes + i->frame_bytes));
    if (i->total_bytes > 0) {
        snprintf(text, sizeof text, "%s of %s", bytes_text(total, i->free_bytes), bytes_text(budget, i->total_bytes));
        widget_fact(a, "Free on the machine", text);
    }
}

/* ---------------------------------------------------------------- what is shown */

struct toggle {
    const char *id, *label, *key;
    bool *on;
    const char *tooltip;
};

static void draw_toggles(app *a, const struct toggle *t, int n) {
    float left = ui_left(), right = left + ui_width(), gap = app_px(a, 6);
    for (int k = 0; k < n; k++) {
        float w =
            ui_text_width(UI_SMALL, t[k].label) + app_px(a, 7) + ui_text_width(UI_SMALL, t[k].key) + app_px(a, 20);
        if (k) {
            ui_same_line(gap);
            if (ui_left() + w > right) {
                ui_move_to(left, ui_top() + app_px(a, 26) + gap);
            }
        }
        if (widget_button(a, t[k].id, t[k].label, t[k].key, w, *t[k].on, true, t[k].tooltip))
            action_character(a, (unsigned char)t[k].key[0]);
    }
}

static void draw_compare(app *a, const tsr_preview_info *i) {
    char text[64];
    const struct toggle compare[] = {
        {"wipe", "Wipe", "w", &a->look.wipe, "The kept frames left of the line, the new ones right; drag the line."},
        {"difference", "Difference", "d", &a->look.difference,
            "How far the new frames are from the kept ones, magnified."},
    };
    if (widget_button(a, "keep", "Keep as A", "a", 0, i->has_reference, true,
            "The frames as they are become A, by which other settings are compared."))
        action_keep(a);
    ui_same_line(app_px(a, 6));
    draw_toggles(a, compare, 2);
    if (a->look.difference) {
        int position = 0;
        bool resting;
        while (1 << position < a->look.gain && position < 6)
            position++;
        snprintf(text, sizeof text, "\xc3\x97 %d", 1 << position);
        ui_space(app_px(a, 10));
        if (widget_slider(a, "gain", "Magnified", text, 7, &position, &resting, NULL, NULL,
                "Differences are this many times as bright as they are.")) {
            a->look.gain = 1 << position;
            a->image_stale = true;
        }
    }
    if (!i->has_reference || !(a->look.wipe || a->look.difference))
        return;
    ui_space(app_px(a, 10));
    if (isnan(i->psnr))
        snprintf(text, sizeof text, "...");
    else if (isinf(i->psnr))
        snprintf(text, sizeof text, "equal");
    else
        snprintf(text, sizeof text, "%.2f dB", i->psnr);
    widget_fact(a, "PSNR of what is seen", text);
}

static void draw_show(app *a, const tsr_preview_info *i) {
    const struct toggle overlays[] = {
        {"grid", "Grid", "g", &a->look.grid, "Where tiles hand over to each other; the one in hand is outlined."},
        {"seams", "Seams", "e", &a->look.seams, "Where tiles overlap."},
        {"weights", "Fade", "u", &a->look.weights,
            "Where tiles fade into each other, brightest where both weigh the same."},
        {"heat", "Heat", "h", &a->look.heat, "How long each tile takes."},
        {"nearest", "Pixels", "n", &a->look.nearest, "Every pixel a square; off: smooth between them."},
    };
    widget_heading(a, "SHOW");
    draw_toggles(a, overlays, 5);
    ui_space(app_px(a, 10));
    draw_compare(a, i);
}

/* ---------------------------------------------------------------- what can be written */

static void draw_write(app *a) {
    double share;
    float half = floorf((ui_width() - app_px(a, 6)) / 2);
    widget_heading(a, "FILE");
    if (widget_button(a, "open", "Open", "o", half, false, true,
            "A latent, a model, or a folder whose newest latent is shown. Or drop it here."))
        action_dialog(a, DIALOG_OPEN);
    ui_same_line(app_px(a, 6));
    if (widget_button(a, "screenshot", "Screenshot", "s", half, false, a->latent != NULL,
            "The frame's true pixels as a PNG in the current folder."))
        action_screenshot(a, NULL);
    ui_space(app_px(a, 6));
    if (widget_button(a, "render", "Render", "r", half, false, a->latent && jobs_running(a) == JOB_NONE,
            "Decodes the whole video to a file by these settings."))
        action_dialog(a, DIALOG_RENDER);
    ui_same_line(app_px(a, 6));
    if (widget_button(a, "copy", "Copy command", "y", half, false, a->latent != NULL,
            "The tessera render command of these settings, to the clipboard."))
        action_copy_command(a);
    if (jobs_running(a) == JOB_RENDER) {
        ui_space(app_px(a, 12));
        const char *what = jobs_what(a, &share);
        widget_fact(a, "Rendering", what);
        widget_progress(a, ui_width(), share, COLOR_ACCENT);
        ui_space(app_px(a, 8));
        if (widget_button(a, "stop", "Stop", NULL, half, false, true, "Gives up the render; nothing is left of it.")) {
            jobs_stop(a);
            decode_resume(a);
        }
    }
}

void panel_draw(app *a, ui_rect r) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    float padding = app_px(a, 16);
    ui_area_begin("panel", r, padding, ui_alpha(COLOR_PANEL, 0), false);
    ui_draw_on(UI_HERE);
    if (!a->latent) {
        widget_text_clipped(UI_BOLD, (ui_rect){ui_left(), ui_top(), ui_width(), 0}, COLOR_TEXT, "Tessera", false);
        ui_space(ui_line_height(UI_BOLD) + app_px(a, 6));
        ui_paragraph(UI_SMALL, COLOR_DIM, "Nothing is open.");
        draw_write(a);
    } else {
        draw_head(a, i);
        draw_tiles(a);
        draw_memory(a, i);
        draw_compute(a);
        draw_show(a, i);
        tune_draw(a);
        draw_write(a);
    }
    ui_space(padding);
    ui_area_end();
}

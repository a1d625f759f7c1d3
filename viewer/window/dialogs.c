/* What lies over everything: help, the dialogs with a text field, short messages. */
#include "widgets.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static ui_rect middle(const app *a, float w, float h) {
    float most_w = (float)a->width - app_px(a, 24), most_h = (float)a->height - app_px(a, 24);
    w = fminf(w, most_w);
    h = fminf(h, most_h);
    return (ui_rect){floorf(((float)a->width - w) / 2), floorf(((float)a->height - h) / 2), w, h};
}

static void begin(app *a, const char *id, ui_rect r) {
    ui_area_begin(
        "veil", (ui_rect){0, 0, (float)a->width, (float)a->height}, 0, ui_alpha(UI_RGB(0x000000), 0.6f), true);
    ui_area_end();
    ui_area_begin(id, r, app_px(a, 24), UI_RGB(0x1b1e23), true);
    ui_draw_on(UI_HERE);
}

/* ---------------------------------------------------------------- help */

struct row {
    const char *keys, *what;
};

static float draw_keys(app *a, float x, float y, const char *title, const struct row *rows, int n) {
    float line = ui_line_height(UI_SMALL) + app_px(a, 7), column = app_px(a, 96);
    ui_text(UI_BOLD, x, y, COLOR_TEXT, title);
    y += ui_line_height(UI_BOLD) + app_px(a, 9);
    for (int i = 0; i < n; i++, y += line) {
        ui_text(UI_SMALL, x, y, COLOR_ACCENT, rows[i].keys);
        ui_text(UI_SMALL, x + column, y, COLOR_DIM, rows[i].what);
    }
    return y + app_px(a, 12);
}

#define ROWS(r) r, (int)(sizeof r / sizeof *r)

static void draw_help(app *a) {
    static const struct row time[] = {{"Space", "play, pause"}, {"Left Right", "one frame"},
        {"Shift + these", "one second"}, {"Home End", "first, last frame"}, {"l", "loop"}};
    static const struct row see[] = {{"1 2 0", "100%, 200%, fit"}, {"Wheel", "zoom to the pointer"},
        {"Drag", "move the picture"}, {"n", "pixels or smooth"}, {"f  Tab", "fullscreen, panel"}};
    static const struct row dials[] = {{"[  ]", "tile size"}, {"-  =", "VRAM target"}, {",  .", "overlap"},
        {"b", "blend or abut"}, {"p  c", "precision, caches"}};
    static const struct row tune[] = {{"g  e  u", "grid, seams, fade"}, {"h", "heat of tile times"}, {"a", "keep as A"},
        {"w  d", "wipe, difference"}, {"t", "tune tile sizes"}};
    static const struct row files[] = {{"o", "open"}, {"s", "screenshot"}, {"r", "render to a file"},
        {"y", "copy the command"}, {"q  Escape", "quit"}};
    ui_rect r = middle(a, app_px(a, 620), app_px(a, 352));
    begin(a, "help", r);
    float x = ui_left(), y = ui_top(), half = floorf((r.w - app_px(a, 48)) / 2);
    ui_text(UI_LARGE, x, y, COLOR_TEXT, "Keys");
    y += ui_line_height(UI_LARGE) + app_px(a, 18);
    float l = draw_keys(a, x, y, "Time", ROWS(time));
    l = draw_keys(a, x, l, "Picture", ROWS(see));
    float k = draw_keys(a, x + half, y, "Decode", ROWS(dials));
    k = draw_keys(a, x + half, k, "Compare and tune", ROWS(tune));
    k = fmaxf(l, k);
    float line = x;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        ui_text(UI_SMALL, line, k, COLOR_ACCENT, files[i].keys);
        line += ui_text_width(UI_SMALL, files[i].keys) + app_px(a, 7);
        ui_text(UI_SMALL, line, k, COLOR_DIM, files[i].what);
        line += ui_text_width(UI_SMALL, files[i].what) + app_px(a, 20);
    }
    ui_area_end();
}

/* ---------------------------------------------------------------- a path */

static void draw_recent(app *a) {
    int shown = 0;
    for (int i = 0; i < RECENTS; i++) {
        char id[16];
        if (!*a->recent[i])
            continue;
        if (!shown++) {
            ui_space(app_px(a, 16));
            ui_text(UI_SMALL, ui_left(), ui_top(), COLOR_DIM, "Recent");
            ui_space(ui_line_height(UI_SMALL) + app_px(a, 4));
        }
        snprintf(id, sizeof id, "recent-%d", i);
        ui_item it = ui_add(id, ui_width(), app_px(a, 24));
        if (it.hovered)
            ui_fill(it.r, COLOR_HOVER, app_px(a, 4));
        const char *path = a->recent[i];
        while (ui_text_width(UI_SMALL, path) > it.r.w - app_px(a, 30) && *path)
            path++; /* the end of a path says more than its beginning */
        ui_text(UI_SMALL, it.r.x + app_px(a, 8), it.r.y + app_px(a, 6), COLOR_TEXT, path);
        if (it.clicked) {
            a->dialog = DIALOG_NONE;
            app_open_path(a, a->recent[i]);
            break;
        }
    }
}

static int recents(const app *a) {
    int n = 0;
    for (int i = 0; i < RECENTS; i++)
        n += *a->recent[i] != 0;
    return n;
}

static void draw_path_dialog(app *a) {
    bool opens = a->dialog == DIALOG_OPEN;
    int n = opens ? recents(a) : 0;
    begin(a, "path", middle(a, app_px(a, 560), app_px(a, n ? 198 + 24 * (float)n : 162)));
    ui_text(UI_LARGE, ui_left(), ui_top(), COLOR_TEXT, opens ? "Open" : "Render to a file");
    ui_space(ui_line_height(UI_LARGE) + app_px(a, 6));
    ui_paragraph(UI_SMALL, COLOR_DIM,
        opens ? "The path of a latent, a VAE, or a folder to follow."
              : ".mp4, .mkv, .webm, .png with %05d in it, .y4m, .npy or .safetensors");
    ui_space(app_px(a, 10));
    bool entered = ui_text_field("##field", a->field, sizeof a->field, ui_width(), a->dialog_new);
    a->dialog_new = false;
    ui_space(app_px(a, 14));
    entered |= widget_button(a, "path-go", opens ? "Open" : "Render", "Enter", app_px(a, 130), true, true, NULL);
    ui_same_line(app_px(a, 8));
    if (widget_button(a, "path-no", "Cancel", "Escape", app_px(a, 130), false, true, NULL))
        a->dialog = DIALOG_NONE;
    if (opens)
        draw_recent(a);
    ui_area_end();
    if (!entered || !*a->field || a->dialog == DIALOG_NONE)
        return;
    if (opens) {
        a->dialog = DIALOG_NONE;
        app_open_path(a, a->field);
    } else {
        action_render(a, a->field);
    }
}

/* ---------------------------------------------------------------- messages */

/* At the lower left of the picture, wrapped. */
static void draw_toast(app *a) {
    float pad = app_px(a, 12), most = fminf(a->stage.w - app_px(a, 28), app_px(a, 560));
    float w = fminf(ceilf(ui_text_width(UI_NORMAL, a->toast)) + 2 * pad + app_px(a, 2), most);
    float h = ceilf(ui_text_height(UI_NORMAL, a->toast, w - 2 * pad)) + 2 * pad;
    ui_rect r = {a->stage.x + app_px(a, 14), a->stage.y + a->stage.h - h - app_px(a, 14), w, h};
    ui_area_begin("toast", r, pad, ui_alpha(a->toast_bad ? UI_RGB(0x4a2127) : UI_RGB(0x1f2227), 0.96f), true);
    ui_draw_on(UI_HERE);
    ui_paragraph(UI_NORMAL, a->toast_bad ? UI_RGB(0xffd9d9) : COLOR_TEXT, a->toast);
    ui_area_end();
}

void dialogs_draw(app *a) {
    if (a->dialog == DIALOG_HELP)
        draw_help(a);
    else if (a->dialog != DIALOG_NONE)
        draw_path_dialog(a);
    if (a->toast_until > 0 && a->stage.w > app_px(a, 80))
        draw_toast(a);
}

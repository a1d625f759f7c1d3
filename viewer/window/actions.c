/* What keys, buttons and scripts do. */
#include "app.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double ZOOM_LEAST = 0.02, ZOOM_MOST = 64;

static int frames_of(const app *a) {
    return tsr_preview_get_info(a->preview)->frames;
}

static void changed(app *a) {
    a->image_stale = true;
    app_touch(a);
}

/* ---------------------------------------------------------------- time */

void action_play(app *a) {
    if (!frames_of(a))
        return;
    a->playing = !a->playing;
    if (a->playing && a->frame == frames_of(a) - 1 && !a->look.loop)
        a->frame = 0;
    a->play_began = a->now;
    a->play_first = a->frame;
    if (!a->playing)
        decode_seek(a);
    changed(a);
}

void action_go(app *a, int64_t frame) {
    int n = frames_of(a);
    if (!n)
        return;
    a->frame = frame < 0 ? 0 : frame >= n ? n - 1 : frame;
    a->play_began = a->now;
    a->play_first = a->frame;
    decode_seek(a);
}

/* ---------------------------------------------------------------- zoom */

void action_zoom(app *a, double zoom, double x, double y) {
    if (!frames_of(a))
        return;
    zoom = zoom < ZOOM_LEAST ? ZOOM_LEAST : zoom > ZOOM_MOST ? ZOOM_MOST : zoom;
    double fx = a->left + x / a->zoom, fy = a->top + y / a->zoom;
    a->fit = false;
    a->zoom = zoom;
    a->at_x = fx - (x - (double)a->stage.w / 2) / zoom;
    a->at_y = fy - (y - (double)a->stage.h / 2) / zoom;
    changed(a);
}

void action_fit(app *a) {
    a->fit = true;
    changed(a);
}

void action_actual(app *a, double zoom) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    if (!i->frames)
        return;
    if (a->fit) {
        a->at_x = i->width / 2.0;
        a->at_y = i->height / 2.0;
    }
    a->fit = false;
    a->zoom = zoom;
    changed(a);
}

/* ---------------------------------------------------------------- comparing */

void action_keep(app *a) {
    if (!frames_of(a))
        return;
    tsr_preview_keep(a->preview);
    app_say(a, false, "Kept as A. Change a setting, then compare with the wipe (w) or the difference (d)");
    changed(a);
}

static void need_reference(app *a) {
    if (!tsr_preview_get_info(a->preview)->has_reference)
        action_keep(a);
}

void action_wipe(app *a) {
    a->look.wipe = !a->look.wipe;
    if (a->look.wipe)
        need_reference(a);
    a->look.difference &= !a->look.wipe;
    changed(a);
}

void action_difference(app *a) {
    a->look.difference = !a->look.difference;
    if (a->look.difference)
        need_reference(a);
    a->look.wipe &= !a->look.difference;
    changed(a);
}

/* ---------------------------------------------------------------- files */

/* The name without folders and suffix, for files made of it. */
static void stem(const app *a, char *out, size_t size) {
    snprintf(out, size, "%s", *a->name ? a->name : "tessera");
    char *dot = strrchr(out, '.');
    if (dot && dot != out)
        *dot = 0;
}

tsr_status action_write_png(const char *path, const tsr_frame *frame) {
    tsr_writer *w = NULL;
    tsr_writer_params params = TSR_WRITER_PARAMS_DEFAULT;
    params.path = path;
    params.format = TSR_FORMAT_PNG;
    params.width = frame->width;
    params.height = frame->height;
    params.frames = 1;
    params.overwrite = true;
    tsr_frame first = *frame; /* of the file */
    first.index = 0;
    tsr_status status = tsr_writer_open(&w, &params);
    if (status == TSR_OK)
        status = tsr_writer_frame(w, &first);
    if (status == TSR_OK)
        status = tsr_writer_finish(w);
    tsr_writer_close(&w);
    return status;
}

void action_screenshot(app *a, const char *path) {
    tsr_frame frame;
    char own[320], base[256];
    if (!frames_of(a))
        return;
    stem(a, base, sizeof base);
    snprintf(own, sizeof own, "%.200s-%05lld.png", base, (long long)a->frame);
    path = path ? path : own;
    tsr_status status = tsr_preview_pixels(a->preview, a->frame, TSR_PIXELS_RGB8, true, &frame);
    if (status == TSR_OK)
        status = action_write_png(path, &frame);
    if (status != TSR_OK)
        app_say(a, true, "%s", tsr_last_error());
    else
        app_say(a, false, "Frame %lld written to %s", (long long)a->frame, path);
}

void action_copy_command(app *a) {
    if (!frames_of(a))
        return;
    decode_command(a, a->clipboard, sizeof a->clipboard);
    if (a->desktop)
        desktop_clipboard(a->desktop, a->clipboard);
    app_say(a, false, "Copied: %s", a->clipboard);
}

void action_dialog(app *a, dialog d) {
    a->dialog = a->dialog == d ? DIALOG_NONE : d;
    a->dialog_new = true;
    if (d == DIALOG_OPEN)
        a->field[0] = 0;
    if (d == DIALOG_RENDER) {
        char base[256];
        stem(a, base, sizeof base);
        snprintf(a->field, sizeof a->field, "%s.mp4", base);
    }
    app_touch(a);
}

void action_render(app *a, const char *path) {
    if (!a->latent || jobs_running(a) != JOB_NONE)
        return;
    if (access(path, F_OK) == 0)
        app_say(a, true, "%s exists; choose another name", path);
    else if (jobs_start(a, JOB_RENDER, path))
        a->dialog = DIALOG_NONE;
}

/* ---------------------------------------------------------------- tuning */

void action_tune(app *a) {
    if (jobs_running(a) == JOB_TUNE) {
        jobs_stop(a);
        decode_resume(a);
    } else if (a->latent && jobs_running(a) == JOB_NONE) {
        jobs_start(a, JOB_TUNE, NULL);
    }
}

void action_use_best(app *a) {
    if (a->tuned.best < 0)
        return;
    const tsr_tune_point *best = &a->tuned.point[a->tuned.best];
    a->set.value[DIAL_TILE_WIDTH] = best->tile_width;
    a->set.value[DIAL_TILE_HEIGHT] = best->tile_height;
    a->set.linked = best->tile_width == best->tile_height;
    decode_scales(a);
    decode_changed(a, true);
}

/* ---------------------------------------------------------------- keys */

static void toggle(app *a, bool *what) {
    *what = !*what;
    changed(a);
}

static void next_choice(app *a, dial d) {
    int n = a->positions_of[d].count, at = decode_position(a, d);
    for (int i = 1; i < n; i++) {
        int k = (at + i) % n;
        if (planner_fit(a->planner, d, k) != FIT_NO) {
            decode_set(a, d, k, false);
            break;
        }
    }
    app_touch(a);
}

static void fullscreen(app *a) {
    a->look.fullscreen = !a->look.fullscreen;
    if (a->desktop)
        desktop_fullscreen(a->desktop, a->look.fullscreen);
    changed(a);
}

bool action_character(app *a, unsigned code) {
    switch (code) {
    case ' ':
        action_play(a);
        return true;
    case '[':
    case ']':
        decode_step(a, DIAL_TILE_WIDTH, code == ']' ? 1 : -1);
        if (!a->set.linked)
            decode_step(a, DIAL_TILE_HEIGHT, code == ']' ? 1 : -1);
        return true;
    case '-':
    case '=':
        decode_step(a, DIAL_VRAM, code == '=' ? 1 : -1);
        return true;
    case ',':
    case '.':
        decode_step(a, DIAL_OVERLAP, code == '.' ? 1 : -1);
        return true;
    case 'p':
        next_choice(a, DIAL_PRECISION);
        return true;
    case 'c':
        next_choice(a, DIAL_CACHES);
        return true;
    case 'b':
        a->set.blend = !a->set.blend;
        decode_changed(a, true);
        return true;
    case 'l':
        toggle(a, &a->look.loop);
        return true;
    case '1':
        action_actual(a, 1);
        return true;
    case '2':
        action_actual(a, 2);
        return true;
    case '0':
        action_fit(a);
        return true;
    case 'n':
        toggle(a, &a->look.nearest);
        return true;
    case 'g':
        toggle(a, &a->look.grid);
        return true;
    case 'e':
        toggle(a, &a->look.seams);
        return true;
    case 'u':
        toggle(a, &a->look.weights);
        return true;
    case 'h':
        toggle(a, &a->look.heat);
        return true;
    case 'd':
        action_difference(a);
        return true;
    case 'w':
        action_wipe(a);
        return true;
    case 'a':
        action_keep(a);
        return true;
    case 's':
        action_screenshot(a, NULL);
        return true;
    case 't':
        action_tune(a);
        return true;
    case 'o':
        action_dialog(a, DIALOG_OPEN);
        return true;
    case 'r':
        if (frames_of(a))
            action_dialog(a, DIALOG_RENDER);
        return true;
    case 'y':
        action_copy_command(a);
        return true;
    case 'f':
        fullscreen(a);
        return true;
    case '?':
        action_dialog(a, DIALOG_HELP);
        return true;
    case 'q':
        a->quit = true;
        return true;
    default:
        return false;
    }
}

bool action_key(app *a, key k, bool shift) {
    int second = (int)(a->fps + 0.5);
    switch (k) {
    case KEY_LEFT:
        action_go(a, a->frame - (shift ? second : 1));
        return true;
    case KEY_RIGHT:
        action_go(a, a->frame + (shift ? second : 1));
        return true;
    case KEY_HOME:
        action_go(a, 0);
        return true;
    case KEY_END:
        action_go(a, frames_of(a) - 1);
        return true;
    case KEY_TAB:
        toggle(a, &a->look.panel);
        return true;
    case KEY_ESCAPE:
        if (a->dialog != DIALOG_NONE)
            a->dialog = DIALOG_NONE;
        else
            a->quit = true;
        app_touch(a);
        return true;
    case KEY_ENTER:
    case KEY_BACKSPACE:
    case KEY_DELETE:
    case KEY_LETTER:
    case KEY_NONE:
        break;
    }
    return false;
}

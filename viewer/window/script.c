/* Scripts: the window without a window system, driven line by line. docs/view.md has the lines. */
#include "app.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = 8 };
static const double PATIENCE = 600; /* seconds that a wait may take */

/* ---------------------------------------------------------------- time */

/* One turn of the window. */
static void turn(app *a, bool must) {
    app_update(a);
    app_draw(a, must);
}

static void nap(double seconds) {
    if (seconds > 0)
        nanosleep(
            &(struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - floor(seconds)))}, NULL);
}

static void settle(app *a) {
    a->image_stale |= a->image_due;
    a->image_due = false;
    for (int i = 0; i < 4 && !a->quit; i++)
        turn(a, true);
}

/* Tiles that have been decoded at least once. */
static int tiles_done(const app *a) {
    tsr_preview_tile t;
    int n = 0;
    for (int k = 0; tsr_preview_get_tile(a->preview, k, &t); k++)
        n += t.seconds > 0;
    return n;
}

static bool over(app *a, const char *what, double number, double began) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    bool still = a->start_at == 0 && a->seek_at == 0 && !i->blending && !i->animating;
    if (strcmp(what, "idle") == 0)
        return still &&
               (i->state == TSR_PREVIEW_DONE || i->state == TSR_PREVIEW_FAILED || i->state == TSR_PREVIEW_IDLE) &&
               (i->whole == i->frames || i->state != TSR_PREVIEW_DONE) && jobs_running(a) == JOB_NONE;
    if (strcmp(what, "rough") == 0)
        return i->rough;
    if (strcmp(what, "first") == 0)
        return a->start_at == 0 && i->first_seconds > 0;
    if (strcmp(what, "frame") == 0)
        return a->start_at == 0 && tsr_preview_frame_state(a->preview, (int64_t)number) == TSR_FRAME_WHOLE &&
               !i->animating;
    if (strcmp(what, "tiles") == 0)
        return a->start_at == 0 && tiles_done(a) >= number && !i->blending && !i->animating;
    if (strcmp(what, "render") == 0 || strcmp(what, "tune") == 0)
        return jobs_running(a) == JOB_NONE;
    return app_time() - began >= number; /* seconds */
}

/* What is waited for is part of a decode that failed, and nothing is about to begin another. */
static bool never_comes(app *a, const char *what) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    return a->start_at == 0 && i->state == TSR_PREVIEW_FAILED &&
           (strcmp(what, "first") == 0 || strcmp(what, "frame") == 0 || strcmp(what, "tiles") == 0);
}

/* EXIT_OK, what failed, or -1: no such thing to wait for. */
static int wait_for(app *a, const char *what, double number) {
    static const char *const known[] = {
        "idle", "rough", "first", "frame", "tiles", "render", "tune", "seconds", "draws", NULL};
    double began = app_time();
    int drawn = a->frames_drawn, i = 0;
    while (known[i] && strcmp(known[i], what) != 0)
        i++;
    if (!known[i])
        return -1;
    while (!a->quit) {
        turn(a, false);
        if (app_time() - began > PATIENCE)
            return failure(TSR_ERR_UNSUPPORTED, "script: waited %g s for %s; the machine is too busy", PATIENCE, what);
        if (never_comes(a, what))
            return failure(
                TSR_ERR_UNSUPPORTED, "script: waited for %s: %s", what, tsr_preview_get_info(a->preview)->error);
        if (strcmp(what, "draws") == 0 ? a->frames_drawn - drawn >= (int)number : over(a, what, number, began))
            break;
        if (strcmp(what, "draws") == 0)
            app_touch(a);
        nap(fmin(app_patience(a), 0.02));
    }
    settle(a);
    return EXIT_OK;
}

/* ---------------------------------------------------------------- input */

static void send(app *a, event e) {
    app_event(a, &e);
    turn(a, true);
}

static bool press_key(app *a, const char *name) {
    static const struct {
        const char *name;
        key key;
    } keys[] = {{"Left", KEY_LEFT}, {"Right", KEY_RIGHT}, {"Home", KEY_HOME}, {"End", KEY_END}, {"Tab", KEY_TAB},
        {"Escape", KEY_ESCAPE}, {"Enter", KEY_ENTER}, {"Backspace", KEY_BACKSPACE}, {"Delete", KEY_DELETE}};
    event e = {.kind = EVENT_KEY};
    if (strncmp(name, "shift+", 6) == 0) {
        e.shift = true;
        name += 6;
    }
    if (strcmp(name, "space") == 0)
        name = " ";
    if (strlen(name) == 1) {
        send(a, (event){.kind = EVENT_CHARACTER, .code = (unsigned char)*name});
        return true;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i].name, name) == 0)
            e.key = keys[i].key;
    if (e.key == KEY_NONE)
        return false;
    send(a, e);
    e.kind = EVENT_KEY_UP;
    if (!a->quit)
        send(a, e);
    return true;
}

static void move(app *a, double x, double y) {
    send(a, (event){.kind = EVENT_MOVE, .x = x, .y = y});
}

static void button(app *a, bool down) {
    send(a, (event){.kind = down ? EVENT_PRESS : EVENT_RELEASE});
}

static void drag(app *a, double x0, double y0, double x1, double y1) {
    enum { STEPS = 12 };
    move(a, x0, y0);
    button(a, true);
    for (int i = 1; i <= STEPS; i++)
        move(a, x0 + (x1 - x0) * i / STEPS, y0 + (y1 - y0) * i / STEPS);
    button(a, false);
}

/* ---------------------------------------------------------------- settings */

static double bounded(const char *text, double least, double most) {
    return fmin(fmax(atof(text), least), most);
}

static bool set_switch(app *a, const char *name, const char *value) {
    const struct {
        const char *name;
        bool *on;
    } switches[] = {{"square", &a->set.linked}, {"blend", &a->set.blend}, {"loop", &a->look.loop},
        {"panel", &a->look.panel}, {"pixels", &a->look.nearest}, {"grid", &a->look.grid}, {"seams", &a->look.seams},
        {"fade", &a->look.weights}, {"heat", &a->look.heat}, {"wipe", &a->look.wipe},
        {"difference", &a->look.difference}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (strcmp(switches[i].name, name) == 0) {
            *switches[i].on = strcmp(value, "on") == 0;
            if (i < 2)
                decode_changed(a, true);
            a->image_stale = true;
            app_touch(a);
            return true;
        }
    return false;
}

static bool set_dial(app *a, const char *name, const char *value) {
    static const struct {
        const char *name;
        dial dial;
    } dials[] = {
        {"tile", DIAL_TILE_WIDTH}, {"tile-height", DIAL_TILE_HEIGHT}, {"overlap", DIAL_OVERLAP}, {"vram", DIAL_VRAM}};
    static const char *const precisions[] = {"auto", "f32", "fp16", "bf16", "fp8", "int8"}, *const caches[] = {"auto",
                                                                                                "device", "host"};
    char *end;
    double v = strtod(value, &end);
    int64_t number = strcmp(value, "auto") == 0 ? (strcmp(name, "overlap") == 0 ? -1 : 0)
                                                : (int64_t)(v * (*end == 'G'      ? 1 << 30
                                                                    : *end == 'M' ? 1 << 20
                                                                                  : 1));
    for (size_t i = 0; i < sizeof dials / sizeof *dials; i++)
        if (strcmp(dials[i].name, name) == 0) {
            a->set.value[dials[i].dial] = number;
            decode_changed(a, true);
            return true;
        }
    bool precision = strcmp(name, "precision") == 0;
    if (!precision && strcmp(name, "caches") != 0)
        return false;
    for (int i = 0; i < (precision ? 6 : 3); i++)
        if (strcmp(precision ? precisions[i] : caches[i], value) == 0) {
            a->set.value[precision ? DIAL_PRECISION : DIAL_CACHES] = i;
            decode_changed(a, true);
            return true;
        }
    return false;
}

static bool set(app *a, const char *name, const char *value) {
    if (strcmp(name, "frame") == 0)
        action_go(a, atoll(value));
    else if (strcmp(name, "zoom") == 0)
        strcmp(value, "fit") == 0 ? action_fit(a) : action_actual(a, bounded(value, 0.02, 64));
    else if (strcmp(name, "gain") == 0)
        a->look.gain = (int)bounded(value, 1, 64);
    else if (strcmp(name, "wipe-at") == 0)
        a->wipe = bounded(value, 0, 1);
    else if (!set_switch(a, name, value) && !set_dial(a, name, value))
        return false;
    a->image_stale = true;
    settle(a);
    return true;
}

/* ---------------------------------------------------------------- output */

static int screenshot(app *a, const char *path) {
    int w = (int)a->gpu.width, h = (int)a->gpu.height;
    size_t bytes = (size_t)w * (size_t)h * 3;
    uint8_t *rgb = malloc(bytes);
    if (!rgb)
        return failure(TSR_ERR_MEMORY, "out of memory: a picture of %dx%d", w, h);
    tsr_frame frame = {.width = w, .height = h, .pixels = TSR_PIXELS_RGB8, .data = rgb, .bytes = bytes};
    tsr_status status = gpu_read(&a->gpu, rgb);
    int failed_by = status != TSR_OK ? failure(status, "%s", gpu_last_error()) : failed(action_write_png(path, &frame));
    free(rgb);
    return failed_by;
}

/* All that a test or a benchmark may ask. */
static void print(app *a) {
    static const char *const states[] = {"idle", "preparing", "decoding", "paused", "done", "failed"};
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    const tsr_plan_info *p = decode_in_force(a);
    json j;
    json_begin(&j, "view");
    json_text(&j, "name", a->name);
    json_text(&j, "state", states[i->state]);
    json_integer(&j, "frame", a->frame);
    json_integer(&j, "frames", i->frames);
    json_integer(&j, "whole", i->whole);
    json_bool(&j, "playing", a->playing);
    json_bool(&j, "rough", i->rough);
    json_number(&j, "zoom", a->zoom);
    json_number(&j, "left", a->left);
    json_number(&j, "top", a->top);
    json_pair(&j, "grid", p->columns, p->rows);
    json_pair(&j, "tile", p->tile_width, p->tile_height);
    json_pair(&j, "overlap", p->overlap_width, p->overlap_height);
    json_integer(&j, "planned_bytes", p->bytes.total);
    json_integer(&j, "vram", a->set.value[DIAL_VRAM]);
    json_text(&j, "precision", tsr_precision_name(p->precision));
    json_text(&j, "plan_error", a->plan_error);
    json_text(&j, "shrunk", i->shrunk ? i->shrunk : "");
    json_number(&j, "plan_seconds", a->plan_seconds);
    json_number(&j, "first_seconds", a->first_frame_seconds);
    json_number(&j, "psnr", i->psnr);
    json_bool(&j, "equal", isinf(i->psnr));
    json_integer(&j, "gain", a->look.gain);
    json_integer(&j, "tuned", a->tuned.points);
    json_bool(&j, "tuning", jobs_running(a) == JOB_TUNE);
    json_pair(&j, "best", a->tuned.best < 0 ? 0 : a->tuned.point[a->tuned.best].tile_width,
        a->tuned.best < 0 ? 0 : a->tuned.point[a->tuned.best].tile_height);
    json_bool(&j, "panel", a->look.panel);
    json_bool(&j, "fullscreen", a->look.fullscreen);
    json_integer(&j, "dialog", a->dialog);
    json_integer(&j, "losses", a->losses);
    json_integer(&j, "drawn", a->frames_drawn);
    json_integer(&j, "pictures", a->pictures_drawn);
    json_number(&j, "time", app_time());
    json_text(&j, "message", a->toast_until > 0 ? a->toast : "");
    json_text(&j, "clipboard", a->clipboard);
    json_end(&j);
    fflush(stdout);
}

/* ---------------------------------------------------------------- lines */

static bool mouse_command(app *a, char **w, int n) {
    double v[4] = {0};
    for (int i = 1; i < n && i <= 4; i++)
        v[i - 1] = atof(w[i]);
    if (strcmp(w[0], "move") == 0 && n == 3) {
        move(a, v[0], v[1]);
    } else if (strcmp(w[0], "press") == 0 && n == 1) {
        button(a, true);
    } else if (strcmp(w[0], "release") == 0 && n == 1) {
        button(a, false);
    } else if (strcmp(w[0], "click") == 0 && n == 3) {
        move(a, v[0], v[1]);
        button(a, true);
        button(a, false);
    } else if (strcmp(w[0], "drag") == 0 && n == 5) {
        drag(a, v[0], v[1], v[2], v[3]);
    } else if (strcmp(w[0], "wheel") == 0 && n == 4) {
        move(a, v[0], v[1]);
        send(a, (event){.kind = EVENT_WHEEL, .y = v[2]});
    } else {
        return false;
    }
    return true;
}

static bool item_command(app *a, char **w, int n) {
    ui_rect r;
    if (n < 2 || !ui_find(w[1], &r))
        return false;
    double x = (double)r.x, y = (double)(r.y + r.h / 2), middle = x + (double)r.w / 2;
    if (strcmp(w[0], "hover") == 0 && n == 2) {
        move(a, middle, y);
    } else if (strcmp(w[0], "click") == 0 && n == 2) {
        move(a, middle, y);
        button(a, true);
        button(a, false);
    } else if (strcmp(w[0], "slide") == 0 && n == 4) {
        y = (double)(r.y + 0.8f * r.h); /* where a slider has its knob */
        double last = (double)r.w - 1;  /* the right edge is no longer on it */
        drag(a, x + atof(w[2]) * last, y, x + atof(w[3]) * last, y);
    } else {
        return false;
    }
    return true;
}

/* EXIT_OK, what failed, or -1: no such command. */
static int run_command(app *a, char **w, int n, const char *rest) {
    if (strcmp(w[0], "size") == 0 && n == 3 && strcmp(w[1], "0") == 0)
        send(a, (event){.kind = EVENT_RESIZE}); /* minimised */
    else if (strcmp(w[0], "size") == 0 && n == 3)
        send(a, (event){.kind = EVENT_RESIZE, .x = bounded(w[1], 100, 16384), .y = bounded(w[2], 100, 16384)});
    else if (strcmp(w[0], "scale") == 0 && n == 2)
        send(a, (event){.kind = EVENT_SCALE, .x = bounded(w[1], 0.5, 4)});
    else if (strcmp(w[0], "key") == 0 && n == 2)
        return press_key(a, w[1]) ? EXIT_OK : -1;
    else if (strcmp(w[0], "text") == 0 && n > 1)
        for (; *rest; rest++)
            send(a, (event){.kind = EVENT_CHARACTER, .code = (unsigned char)*rest});
    else if (strcmp(w[0], "set") == 0 && n == 3)
        return set(a, w[1], w[2]) ? EXIT_OK : -1;
    else if ((strcmp(w[0], "drop") == 0 || strcmp(w[0], "open") == 0) && n > 1)
        send(a, (event){.kind = EVENT_DROP, .path = rest});
    else if (strcmp(w[0], "demo") == 0 && n == 1)
        app_open_demo(a);
    else if (strcmp(w[0], "wait") == 0 && (n == 2 || n == 3))
        return wait_for(a, w[1], n == 3 ? atof(w[2]) : 0);
    else if (strcmp(w[0], "screenshot") == 0 && n > 1) {
        settle(a);
        return screenshot(a, rest);
    } else if (strcmp(w[0], "save") == 0 && n > 1)
        action_screenshot(a, rest);
    else if (strcmp(w[0], "render") == 0 && n > 1)
        action_render(a, rest);
    else if (strcmp(w[0], "print") == 0 && n == 1)
        print(a);
    else if (strcmp(w[0], "lose") == 0 && n == 2) {
        strcmp(w[1], "device") == 0 ? tsr_preview_lose_device(a->preview) : gpu_fail_next();
        a->image_stale = true;
    } else if (strcmp(w[0], "quit") == 0 && n == 1)
        a->quit = true;
    else if (!mouse_command(a, w, n) && !item_command(a, w, n))
        return -1;
    return EXIT_OK;
}

static int run_line(app *a, char *line, const char *script, int number) {
    char *word[WORDS] = {NULL}, copy[PATH_MOST + 64];
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    if (line[strspn(line, " \t")] == '#' || !line[strspn(line, " \t")])
        return EXIT_OK;
    snprintf(copy, sizeof copy, "%s", line);
    char *rest = copy + strspn(copy, " \t");
    rest += strcspn(rest, " \t");
    rest += strspn(rest, " \t");
    for (char *p = line; n < WORDS;) {
        p += strspn(p, " \t");
        if (!*p)
            break;
        word[n++] = p;
        p += strcspn(p, " \t");
        if (*p)
            *p++ = 0;
    }
    int status = run_command(a, word, n, rest);
    return status < 0 ? usage_error("bad script: %s:%d: %s", script, number, copy) : status;
}

int script_run(app *a, const char *script, const char *picture) {
    char line[PATH_MOST + 64];
    int status = EXIT_OK;
    FILE *f = script ? strcmp(script, "-") == 0 ? stdin : fopen(script, "r") : NULL;
    if (script && !f)
        return failure(TSR_ERR_IO, "cannot read: %s", script);
    settle(a);
    for (int number = 1; f && status == EXIT_OK && !a->quit && fgets(line, sizeof line, f); number++)
        status = run_line(a, line, script, number);
    if (f && f != stdin)
        fclose(f);
    if (!script)
        status = wait_for(a, "idle", 0);
    if (status == EXIT_OK && picture && a->exit_status == EXIT_OK) {
        bool quit = a->quit;
        a->quit = false;
        settle(a);
        a->quit = quit;
        status = screenshot(a, picture);
    }
    return status != EXIT_OK ? status : a->exit_status;
}

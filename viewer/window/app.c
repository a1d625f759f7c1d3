/* The window's life: devices, files, events, one frame after another. */
#include "widgets.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REDRAWS = 3 /* after an event: what it changed is settled by then */ };
static const double FRAME_SECONDS = 1.0 / 60, LATE = 0.002 /* that is made up for */, FADE = 0.15, TOAST_SECONDS = 5;
/* Seconds between pictures of a frame in the making where cores draw: one takes them as long as a quarter of a tile. */
static const double PARTIAL_EVERY = 0.5;
static const int64_t KEEP_BYTES = (int64_t)2 << 30;

double app_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

float app_px(const app *a, float length) {
    return floorf(length * a->scale + 0.5f);
}

void app_touch(app *a) {
    a->redraw = REDRAWS;
}

void app_say(app *a, bool bad, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(a->toast, sizeof a->toast, format, args);
    va_end(args);
    a->toast_bad = bad;
    a->toast_until = app_time() + (bad ? 2 : 1) * TOAST_SECONDS;
    say(TSR_LOG_DEBUG, "window: %s", a->toast);
    app_touch(a);
}

/* ---------------------------------------------------------------- devices */

static void on_wake(void *user) {
    app *a = user;
    atomic_store(&a->woken, true);
    if (a->desktop)
        desktop_wake();
}

static void close_devices(app *a) {
    jobs_stop(a);
    a->measured = false;
    planner_ask(a->planner, NULL, NULL, a);
    gpu_close(&a->gpu);
    a->gpu_ready = false;
    tsr_plan_destroy(&a->plan);
    tsr_preview_destroy(&a->preview);
    tsr_engine_destroy(&a->engine);
    a->image = (tsr_preview_image){0};
}

static tsr_status open_fonts(app *a) {
    ui_atlas atlas = ui_fonts(a->scale);
    uint64_t texture = 0;
    tsr_status status = gpu_set_atlas(&a->gpu, atlas.alpha, atlas.width, atlas.height, &texture);
    ui_atlas_texture(texture);
    return status;
}

/* With this Vulkan device, *vk in the end; TSR_ERR_UNSUPPORTED: it does not draw on the display. *message says what
 * went wrong. */
static tsr_status try_devices(app *a, int vulkan_index, tsr_preview_vulkan *vk, char *message, size_t size) {
    tsr_engine_params params = a->o->engine;
    params.vulkan_index = vulkan_index;
    params.validation = getenv("TESSERA_VALIDATION") != NULL;
    tsr_preview_params preview = {
        .keep_bytes = KEEP_BYTES, .fade = FADE, .wake = on_wake, .user = a, .present = a->desktop != NULL};
    if (a->desktop)
        desktop_extensions(&preview.instance_extensions, &preview.instance_extension_count);
    tsr_status status = tsr_engine_create(&a->engine, &params);
    if (status == TSR_OK)
        status = tsr_preview_create(&a->preview, a->engine, &preview);
    if (status != TSR_OK) {
        snprintf(message, size, "%s", tsr_last_error());
        close_devices(a);
        return status;
    }
    *vk = tsr_preview_get_vulkan(a->preview);
    a->software = vk->software;
    if (volkInitialize() == VK_SUCCESS) /* the engine has just succeeded with it */
        volkLoadInstanceOnly(vk->instance);
    VkSurfaceKHR surface = a->desktop ? desktop_surface(a->desktop, vk->instance) : VK_NULL_HANDLE;
    status = a->desktop && !surface ? gpu_fail(TSR_ERR_DEVICE, "window: no Vulkan surface for this display")
                                    : gpu_open(&a->gpu, vk, surface, a->width, a->height);
    a->gpu_ready = status == TSR_OK;
    if (status == TSR_OK)
        status = open_fonts(a);
    if (status != TSR_OK) {
        snprintf(message, size, "%s", gpu_last_error());
        close_devices(a);
    }
    return status;
}

/* The device that blends also draws. Where the one of choice does not draw here, the next best one does. */
static tsr_status open_devices(app *a, char *message, size_t size) {
    tsr_preview_vulkan best = {0}, other;
    tsr_status status = try_devices(a, a->o->engine.vulkan_index, &best, message, size);
    for (int i = 1; status == TSR_ERR_UNSUPPORTED && a->o->engine.vulkan_index < 0 && i < best.devices; i++)
        status = try_devices(a, best.index[i], &other, message, size);
    return status;
}

/* ---------------------------------------------------------------- life */

static const char *clipboard_get(void *user) {
    return ((app *)user)->clipboard;
}

static void clipboard_set(void *user, const char *text) {
    app *a = user;
    snprintf(a->clipboard, sizeof a->clipboard, "%s", text);
    if (a->desktop)
        desktop_clipboard(a->desktop, text);
}

tsr_status app_open(app *a, const options *o, struct desktop *desktop) {
    char message[512] = "";
    a->o = o;
    a->desktop = desktop;
    a->now = app_time();
    a->fps = o->writer.fps;
    a->wipe = 0.5;
    a->fit = true;
    tsr_status status = planner_open(&a->planner);
    a->ui_ready = status == TSR_OK && ui_open();
    if (!a->ui_ready) {
        failure(TSR_ERR_MEMORY, "out of memory: the window");
        return TSR_ERR_MEMORY;
    }
    ui_clipboard(clipboard_get, clipboard_set, a);
    status = open_devices(a, message, sizeof message);
    if (status != TSR_OK)
        failure(status, "%s; tessera render needs no window", message);
    return status;
}

void app_close(app *a) {
    if (a->ui_ready)
        files_save(a);
    if (a->planner)
        close_devices(a);
    planner_close(&a->planner);
    tsr_latent_close(&a->latent);
    tsr_model_close(&a->model);
    if (a->ui_ready)
        ui_close();
    a->ui_ready = false;
}

/* After the device was lost: everything on it anew. Settings, files and the place in the video
 * stay. */
static void recover(app *a) {
    char message[512] = "";
    int64_t frame = a->frame;
    close_devices(a);
    a->lost = false;
    a->losses++;
    tsr_status status = open_devices(a, message, sizeof message);
    if (status == TSR_OK)
        status = app_show_video(a);
    if (status != TSR_OK) {
        a->exit_status = failure(status, "%s", *message ? message : tsr_last_error());
        a->quit = true;
        return;
    }
    a->frame = frame;
    app_say(a, true, "The graphics device was lost; everything was opened anew");
}

/* What a call on the device gave: a loss is made good at the next update. */
static void note(app *a, tsr_status status, const char *message) {
    if (status == TSR_OK)
        return;
    if (status == TSR_ERR_DEVICE && a->losses < 5)
        a->lost = true;
    else if (status == TSR_ERR_DEVICE) {
        a->exit_status = failure(status, "%s", message);
        a->quit = true;
    }
    app_say(a, true, "%s", message);
}

/* ---------------------------------------------------------------- events */

static void resize(app *a, int width, int height) {
    a->width = width;
    a->height = height;
    if (a->gpu_ready)
        note(a, gpu_resize(&a->gpu, width, height), gpu_last_error());
    a->image_stale = true;
}

static void pass_key(const event *e) {
    static const ui_key of_key[] = {[KEY_LEFT] = UI_KEY_LEFT,
        [KEY_RIGHT] = UI_KEY_RIGHT,
        [KEY_HOME] = UI_KEY_HOME,
        [KEY_END] = UI_KEY_END,
        [KEY_ENTER] = UI_KEY_ENTER,
        [KEY_ESCAPE] = UI_KEY_ESCAPE,
        [KEY_BACKSPACE] = UI_KEY_BACKSPACE,
        [KEY_DELETE] = UI_KEY_DELETE};
    static const struct {
        unsigned code;
        ui_key key;
    } letters[] = {{'a', UI_KEY_A}, {'c', UI_KEY_C}, {'v', UI_KEY_V}, {'x', UI_KEY_X}, {'z', UI_KEY_Z}};
    bool down = e->kind == EVENT_KEY;
    if (e->key == KEY_LETTER) {
        for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
            if (letters[i].code == e->code)
                ui_key_down(letters[i].key, down, e->ctrl, e->shift);
    } else if (e->key != KEY_NONE && e->key != KEY_TAB) {
        ui_key_down(of_key[e->key], down, e->ctrl, e->shift);
    }
}

void app_event(app *a, const event *e) {
    app_touch(a);
    switch (e->kind) {
    case EVENT_MOVE:
        a->mouse_x = e->x;
        a->mouse_y = e->y;
        ui_mouse((float)e->x, (float)e->y);
        stage_event(a, e);
        break;
    case EVENT_PRESS:
    case EVENT_RELEASE:
        ui_button_down(e->button, e->kind == EVENT_PRESS);
        stage_event(a, e);
        break;
    case EVENT_WHEEL:
        ui_wheel((float)e->y);
        stage_event(a, e);
        break;
    case EVENT_CHARACTER:
        if (ui_typing() || a->dialog == DIALOG_OPEN || a->dialog == DIALOG_RENDER)
            ui_character(e->code);
        else
            action_character(a, e->code);
        break;
    case EVENT_KEY:
        pass_key(e);
        if (!(ui_typing() && e->key != KEY_ESCAPE))
            action_key(a, e->key, e->shift);
        break;
    case EVENT_KEY_UP:
        pass_key(e);
        break;
    case EVENT_DROP:
        a->dialog = DIALOG_NONE;
        app_open_path(a, e->path);
        break;
    case EVENT_RESIZE:
        resize(a, (int)e->x, (int)e->y);
        break;
    case EVENT_SCALE:
        a->scale = (float)e->x;
        if (a->gpu_ready)
            note(a, open_fonts(a), gpu_last_error());
        break;
    case EVENT_CLOSE:
        a->quit = true;
        break;
    }
}

/* ---------------------------------------------------------------- time */

static void play(app *a) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    if (!a->playing || i->frames < 1)
        return;
    int64_t f = a->play_first + (int64_t)((a->now - a->play_began) * a->fps);
    if (f >= i->frames && a->look.loop) {
        a->play_began = a->now;
        a->play_first = f = 0;
    } else if (f >= i->frames) {
        a->playing = false;
        f = i->frames - 1;
        app_touch(a);
    }
    if (f != a->frame) {
        a->frame = f;
        a->image_stale = true;
        a->redraw = a->redraw > 1 ? a->redraw : 1;
    }
}

static bool waits_for_tiles(const app *a) {
    return a->software && tsr_preview_frame_state(a->preview, a->frame) == TSR_FRAME_PARTIAL;
}

/* After a poll. A frame that was whole and is looks the same, but for what it is compared with. */
static void follow_decode(app *a, bool woken, bool animated, bool was_whole) {
    bool whole = tsr_preview_frame_state(a->preview, a->frame) == TSR_FRAME_WHOLE;
    a->image_due |= animated || whole != was_whole || (woken && (!whole || a->look.wipe || a->look.difference));
    if (waits_for_tiles(a) && a->now < a->pictured_at + PARTIAL_EVERY)
        return;
    if (a->image_due) {
        a->image_due = false;
        a->image_stale = true;
        a->pictured_at = a->now;
    }
    if (woken || a->image_stale)
        a->redraw = a->redraw > 1 ? a->redraw : 1;
}

void app_update(app *a) {
    a->now = app_time();
    if (a->lost)
        recover(a);
    if (a->quit || !a->preview)
        return;
    bool woken = atomic_exchange(&a->woken, false);
    app_follow_folder(a);
    play(a);
    tsr_preview_look_at(a->preview, a->frame);
    bool was_animating = tsr_preview_get_info(a->preview)->animating,
         was_whole = tsr_preview_frame_state(a->preview, a->frame) == TSR_FRAME_WHOLE;
    note(a, tsr_preview_poll(a->preview), tsr_last_error());
    if (a->lost || a->quit)
        return;
    follow_decode(a, woken, was_animating, was_whole);
    decode_update(a);
    jobs_update(a);
    if (a->toast_until > 0 && a->now > a->toast_until) {
        a->toast_until = 0;
        app_touch(a);
    }
}

double app_patience(const app *a) {
    if (a->lost || a->quit || !a->preview)
        return 0;
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    double now = app_time(), wait = *a->folder ? APP_FOLDER_EVERY : 2, until_frame = a->drawn_at + FRAME_SECONDS - now;
    if (i->blending)
        wait = 0.004;
    if (i->state == TSR_PREVIEW_PREPARING || i->state == TSR_PREVIEW_DECODING || jobs_running(a) != JOB_NONE)
        wait = fmin(wait, 0.1);
    if (a->image_due)
        wait = fmin(wait, a->pictured_at + PARTIAL_EVERY - now);
    if (a->start_at > 0)
        wait = fmin(wait, a->start_at - now);
    if (a->seek_at > 0)
        wait = fmin(wait, a->seek_at - now);
    if (a->playing)
        wait = fmin(wait, a->play_began + ((double)(a->frame - a->play_first + 1)) / a->fps - now);
    if (a->toast_until > 0)
        wait = fmin(wait, a->toast_until - now);
    if (a->redraw || (i->animating && a->gpu.width))
        wait = fmin(wait, until_frame);
    return wait > 0 ? wait : 0;
}

/* ---------------------------------------------------------------- drawing */

static void lay_out(app *a, ui_rect *panel, ui_rect *timeline) {
    float w = (float)a->width, h = (float)a->height,
          side = a->look.panel ? fminf(app_px(a, 316), floorf(w * 0.55f)) : 0, bar = app_px(a, 64);
    if (a->look.fullscreen && !a->look.panel)
        bar = 0;
    *panel = (ui_rect){w - side, 0, side, h};
    *timeline = (ui_rect){0, h - bar, w - side, bar};
    ui_rect stage = {0, 0, w - side, h - bar};
    if (stage.w != a->stage.w || stage.h != a->stage.h)
        a->image_stale = true;
    a->stage = stage;
}

void app_draw(app *a, bool must) {
    double now = app_time();
    bool animating = a->preview && tsr_preview_get_info(a->preview)->animating;
    if (a->lost || a->quit || !a->gpu_ready)
        return;
    if (!must && ((!a->redraw && !animating) || now - a->drawn_at < FRAME_SECONDS))
        return;
    if (a->gpu.stale)
        resize(a, a->width, a->height);
    if (a->lost)
        return;
    if (!a->gpu.width || !a->gpu.height) { /* minimised: another size is an event */
        a->redraw = 0;
        return;
    }
    ui_rect panel, timeline;
    double since = a->drawn_at > 0 ? now - a->drawn_at : FRAME_SECONDS, due = a->drawn_at + FRAME_SECONDS;
    ui_begin((int)a->gpu.width, (int)a->gpu.height, since);
    a->width = (int)a->gpu.width;
    a->height = (int)a->gpu.height;
    lay_out(a, &panel, &timeline);
    stage_draw(a);
    if (timeline.h > 0)
        timeline_draw(a, timeline);
    if (a->look.panel)
        panel_draw(a, panel);
    dialogs_draw(a);
    int lists = ui_end();
    const gpu_fill back[] = {{COLOR_PANEL, panel}, {COLOR_BAR, timeline}};
    bool drawn = false;
    if (!a->lost)
        note(a, gpu_draw(&a->gpu, lists, COLOR_STAGE, back, 2, &drawn), gpu_last_error());
    a->frame_seconds[a->frames_drawn++ % 64] = since;
    a->drawn_at = now > due && now < due + LATE ? due : now; /* so that sleeping a little too long costs no rate */
    a->redraw -= a->redraw > 0;
}

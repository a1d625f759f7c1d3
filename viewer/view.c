/* tessera view */
#include "cli.h"

#include "window/app.h"

#include <stdlib.h>
#include <string.h>

/* What the options say goes before what was kept. */
static void take_options(app *a, const options *o) {
    const tsr_plan_params *p = &o->plan;
    if (p->untiled)
        a->set.value[DIAL_TILE_WIDTH] = a->set.value[DIAL_TILE_HEIGHT] = 1 << 20; /* as large as the picture */
    if (p->tile_width > 0) {
        a->set.value[DIAL_TILE_WIDTH] = p->tile_width;
        a->set.value[DIAL_TILE_HEIGHT] = p->tile_height;
        a->set.linked = p->tile_width == p->tile_height;
    }
    if (p->overlap_width >= 0)
        a->set.value[DIAL_OVERLAP] = p->overlap_width;
    if (p->budget > 0 || p->budget_share > 0)
        a->set.value[DIAL_VRAM] = p->budget;
    if (p->precision != TSR_PRECISION_AUTO)
        a->set.value[DIAL_PRECISION] = p->precision;
    if (p->caches != TSR_CACHES_AUTO)
        a->set.value[DIAL_CACHES] = p->caches;
}

static int run_window(app *a) {
    if (a->o->fullscreen)
        action_character(a, 'f');
    while (!a->quit && !interrupted()) {
        desktop_wait(a->desktop, app_patience(a));
        app_update(a);
        app_draw(a, false);
    }
    return a->exit_status;
}

static bool offscreen_size(const options *o, int *w, int *h) {
    int64_t size[2] = {1280, 800};
    char text[32] = "";
    if (o->geometry) {
        snprintf(text, sizeof text, "%.*s", (int)strcspn(o->geometry, "+"), o->geometry);
        if (!parse_sizes(text, 2, 100, size))
            return false;
    }
    *w = (int)size[0];
    *h = (int)size[1];
    return *w <= 16384 && *h <= 16384;
}

int cmd_view(const options *o) {
    struct desktop *desktop = NULL;
    app *a = calloc(1, sizeof *a);
    int status = EXIT_OK;
    if (!a)
        return failure(TSR_ERR_MEMORY, "out of memory: the window");
    bool offscreen = o->offscreen || o->script;
    if (!offscreen_size(o, &a->width, &a->height))
        status = usage_error("bad value: --geometry %s; give WxH or WxH+X+Y", o->geometry);
    if (status == EXIT_OK && !offscreen)
        status = desktop_open(&desktop, a, o);
    if (status == EXIT_OK) {
        a->scale = 1;
        if (desktop)
            desktop_size(desktop, &a->width, &a->height, &a->scale);
        if (o->scale > 0)
            a->scale = (float)o->scale;
        files_load(a);
        take_options(a, o);
        catch_interrupts();
        if (app_open(a, o, desktop) != TSR_OK)
            status = EXIT_NOT_DONE;
    }
    if (status == EXIT_OK) {
        say_library(o->verbose ? TSR_LOG_DEBUG : TSR_LOG_ERROR); /* dials make hundreds of plans */
        if (o->count)
            app_open_path(a, o->args[0]);
        status = offscreen ? script_run(a, o->script, o->offscreen) : run_window(a);
    }
    app_close(a);
    desktop_close(&desktop);
    free(a);
    return interrupted() ? EXIT_INTERRUPTED : status;
}

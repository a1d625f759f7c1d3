/* What is open: a model, a latent of it, a folder that is followed. */
#include "app.h"

#include <stdio.h>
#include <string.h>

static void set_name(app *a) {
    const char *base = strrchr(a->latent_path, '/');
    char title[320];
    snprintf(a->name, sizeof a->name, "%s", base ? base + 1 : a->latent_path);
    snprintf(title, sizeof title, "%s%sTessera", a->name, *a->name ? " - " : "");
    if (a->desktop)
        desktop_title(a->desktop, title);
}

tsr_status app_show_video(app *a) {
    tsr_status status = tsr_preview_open(a->preview, a->latent ? a->model : NULL, a->latent, 0);
    tsr_plan_destroy(&a->plan);
    a->plan_error[0] = 0;
    a->start_at = 0;
    a->frame = 0;
    a->playing = false;
    a->image_stale = true;
    a->tuned = (tuned){.best = -1};
    a->first_frame_seconds = 0;
    app_touch(a);
    set_name(a);
    if (status != TSR_OK || !a->latent)
        return status;
    a->fit = true;
    decode_begin(a);
    return TSR_OK;
}

/* The decode and what it knows must be gone before what it reads. */
static void drop_video(app *a) {
    planner_ask(a->planner, NULL, NULL, a);
    tsr_plan_destroy(&a->plan);
    if (a->preview && tsr_preview_open(a->preview, NULL, NULL, 0) != TSR_OK)
        a->lost = true;
}

static bool need_model(app *a) {
    if (a->model)
        return true;
    int status = open_model(&a->model, a->o); /* says itself what is wrong, on standard error */
    if (status != EXIT_OK)
        app_say(a, true, "No model: drop a VAE here, or start with -m");
    else
        snprintf(a->model_path, sizeof a->model_path, "%s", tsr_model_get_info(a->model)->path);
    return a->model != NULL;
}

/* False: it is no latent of this model; tsr_last_error() says why. */
static bool open_video(app *a, const char *path) {
    const tsr_model_info *m = tsr_model_get_info(a->model);
    tsr_latent_params params = a->o->latent;
    params.channels = m->latent_channels;
    params.model_scale = m->latent_scale;
    tsr_latent *z = NULL;
    if (tsr_latent_open(&z, path, &params) != TSR_OK)
        return false;
    drop_video(a);
    tsr_latent_close(&a->latent);
    a->latent = z;
    snprintf(a->latent_path, sizeof a->latent_path, "%s", path);
    tsr_status status = app_show_video(a);
    if (status != TSR_OK)
        app_say(a, true, "%s", tsr_last_error());
    return true;
}

static bool open_other_model(app *a, const char *path) {
    tsr_model *m = NULL;
    if (tsr_model_open(&m, path) != TSR_OK)
        return false;
    char latent[PATH_MOST];
    snprintf(latent, sizeof latent, "%s", a->latent_path);
    jobs_stop(a);
    drop_video(a);
    tsr_latent_close(&a->latent);
    tsr_model_close(&a->model);
    a->model = m;
    a->measured = false;
    snprintf(a->model_path, sizeof a->model_path, "%s", path);
    app_say(a, false, "Model: %s", path);
    if (*latent && !open_video(a, latent))
        app_say(a, true, "%s", tsr_last_error());
    return true;
}

void app_follow_folder(app *a) {
    char path[PATH_MOST];
    if (!*a->folder || a->now - a->folder_looked < APP_FOLDER_EVERY || !a->model)
        return;
    a->folder_looked = a->now;
    long long newest = a->folder_newest;
    if (files_newest(a, path, sizeof path, &newest) && open_video(a, path)) {
        a->folder_newest = newest;
        app_say(a, false, "New in %s: %s", a->folder, a->name);
    }
}

void app_open_path(app *a, const char *path) {
    char why[512];
    a->is_demo = false;
    if (files_is_folder(path)) {
        if (!need_model(a))
            return;
        snprintf(a->folder, sizeof a->folder, "%s", path);
        a->folder_newest = 0;
        a->folder_looked = 0;
        app_follow_folder(a);
        files_remember(a, path);
        if (!a->latent)
            app_say(a, false, "Waiting for a latent in %s", path);
        return;
    }
    if (!need_model(a)) {
        if (!open_other_model(a, path))
            app_say(a, true, "%s", tsr_last_error());
        return;
    }
    if (open_video(a, path)) {
        a->folder[0] = 0;
        files_remember(a, path);
        return;
    }
    snprintf(why, sizeof why, "%s", tsr_last_error());
    if (!open_other_model(a, path))
        app_say(a, true, "%s", why);
}

void app_open_demo(app *a) {
    char model[PATH_MOST], latent[PATH_MOST];
    if (!files_demo(model, sizeof model, "demo-vae.safetensors") ||
        !files_demo(latent, sizeof latent, "spheres.latent")) {
        app_say(a, true, "The demo is not installed");
        return;
    }
    if (open_other_model(a, model) && open_video(a, latent))
        a->is_demo = true;
    else
        app_say(a, true, "%s", tsr_last_error());
}

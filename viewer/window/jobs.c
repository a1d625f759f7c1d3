/* Work beside the preview, on a thread and with an engine of its own: rendering to a file, tuning, and measuring what
 * 8 bits lose. */
#include "app.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    pthread_t thread;
    job_kind kind;
    tsr_extent extent; /* of what is tuned for */
    char model[PATH_MOST], latent[PATH_MOST], path[PATH_MOST];
    const char *what; /* of path: without folders */
    tsr_latent_params latent_params;
    tsr_engine_params engine_params;
    tsr_plan_params plan_params;
    double fps;
    tsr_engine *asks;     /* measuring: the preview's engine, which keeps what was found for its plans */
    pthread_mutex_t lock; /* of all below */
    tsr_engine *engine;
    double share;
    tuned tuned;
    bool stop, done;
    tsr_status status;
    char error[512];
};

/* ---------------------------------------------------------------- on its thread */

typedef struct sink {
    job *j;
    tsr_writer *w;
} sink;

static tsr_status on_frame(void *user, const tsr_frame *f) {
    return tsr_writer_frame(((sink *)user)->w, f);
}

static void on_progress(void *user, const tsr_progress *p) {
    job *j = ((sink *)user)->j;
    pthread_mutex_lock(&j->lock);
    j->share = p->share;
    if (j->stop)
        tsr_cancel(j->engine);
    pthread_mutex_unlock(&j->lock);
}

static tsr_status decode(job *j, tsr_engine *e, tsr_model *m, tsr_latent *z, tsr_plan *plan) {
    const tsr_plan_info *i = tsr_plan_get_info(plan);
    sink s = {.j = j};
    tsr_writer_params params = TSR_WRITER_PARAMS_DEFAULT;
    params.path = j->path;
    params.width = i->width;
    params.height = i->height;
    params.frames = i->frames;
    params.fps = j->fps;
    tsr_status status = tsr_writer_open(&s.w, &params);
    if (status == TSR_OK) {
        tsr_decode_params d = TSR_DECODE_PARAMS_DEFAULT;
        d.pixels = tsr_writer_pixels(s.w);
        d.on_frame = on_frame;
        d.on_progress = on_progress;
        d.user = &s;
        status = tsr_decode(e, m, z, plan, &d, NULL);
    }
    if (status == TSR_OK)
        status = tsr_writer_finish(s.w);
    tsr_writer_close(&s.w);
    return status;
}

static tsr_status render(job *j, tsr_engine *e, tsr_model *m) {
    tsr_latent *z = NULL;
    tsr_plan *plan = NULL;
    tsr_status status = tsr_latent_open(&z, j->latent, &j->latent_params);
    if (status == TSR_OK)
        status = tsr_plan_create(&plan, e, m, &j->extent, &j->plan_params);
    if (status == TSR_OK)
        status = decode(j, e, m, z, plan);
    tsr_plan_destroy(&plan);
    tsr_latent_close(&z);
    return status;
}

/* Copies what the chart shows, smallest tiles first. */
static bool on_point(void *user, const tsr_tune_table *t, int i) {
    job *j = user;
    (void)i;
    pthread_mutex_lock(&j->lock);
    j->tuned = (tuned){.best = -1};
    for (int k = t->points - 1; k >= 0 && j->tuned.points < TUNED_MOST; k--) {
        if (!(t->point[k].ms_per_mpx > 0))
            continue;
        if (k == t->best)
            j->tuned.best = j->tuned.points;
        j->tuned.point[j->tuned.points++] = t->point[k];
    }
    bool on = !j->stop;
    pthread_mutex_unlock(&j->lock);
    return on;
}

static tsr_status tune(job *j, tsr_engine *e, tsr_model *m) {
    tsr_tune_table *table = NULL;
    tsr_tune_params params = TSR_TUNE_PARAMS_DEFAULT;
    params.extent = j->extent;
    params.plan = j->plan_params;
    params.on_point = on_point;
    params.user = j;
    tsr_status status = tsr_tune(&table, e, m, &params);
    if (table)
        on_point(j, table, -1);
    tsr_tune_free(&table);
    return status;
}

static tsr_status measure(job *j, tsr_model *m) {
    tsr_latent *z = NULL;
    tsr_status status = tsr_latent_open(&z, j->latent, &j->latent_params);
    if (status == TSR_OK)
        status = tsr_quality_measure(j->asks, m, z, j->plan_params.precision);
    tsr_latent_close(&z);
    return status;
}

static void *work(void *arg) {
    job *j = arg;
    tsr_model *m = NULL;
    tsr_engine *e = NULL;
    tsr_status status = tsr_model_open(&m, j->model);
    if (status == TSR_OK && !j->asks)
        status = tsr_engine_create(&e, &j->engine_params);
    pthread_mutex_lock(&j->lock);
    j->engine = j->asks ? j->asks : e;
    pthread_mutex_unlock(&j->lock);
    if (status == TSR_OK)
        status = j->kind == JOB_MEASURE ? measure(j, m) : j->kind == JOB_TUNE ? tune(j, e, m) : render(j, e, m);
    pthread_mutex_lock(&j->lock);
    snprintf(j->error, sizeof j->error, "%s", status == TSR_OK ? "" : tsr_last_error());
    j->engine = NULL;
    pthread_mutex_unlock(&j->lock);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    pthread_mutex_lock(&j->lock);
    j->status = status;
    j->done = true;
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* ---------------------------------------------------------------- on the window's */

bool jobs_start(app *a, job_kind kind, const char *path) {
    job *j = calloc(1, sizeof *j);
    if (!j)
        return false;
    j->kind = kind;
    j->asks = kind == JOB_MEASURE ? a->engine : NULL;
    j->tuned.best = -1;
    snprintf(j->model, sizeof j->model, "%s", a->model_path);
    snprintf(j->latent, sizeof j->latent, "%s", a->latent_path);
    snprintf(j->path, sizeof j->path, "%s", path ? path : "");
    j->what = strrchr(j->path, '/') ? strrchr(j->path, '/') + 1 : j->path;
    const tsr_model_info *m = tsr_model_get_info(a->model);
    j->latent_params = a->o->latent;
    j->latent_params.channels = m->latent_channels;
    j->latent_params.model_scale = m->latent_scale;
    j->engine_params = a->o->engine;
    j->plan_params = decode_params(a, &a->set);
    j->plan_params.live = false;
    const tsr_latent_info *z = tsr_latent_get_info(a->latent);
    j->extent = (tsr_extent){z->frames, z->height, z->width};
    j->fps = a->fps;
    pthread_mutex_init(&j->lock, NULL);
    if (pthread_create(&j->thread, NULL, work, j) != 0) {
        pthread_mutex_destroy(&j->lock);
        free(j);
        app_say(a, true, "No thread to be had; end other programs");
        return false;
    }
    a->job = j;
    a->start_at = a->seek_at = 0;
    tsr_preview_stop(a->preview); /* the machine is the job's */
    app_touch(a);
    return true;
}

static void tell(app *a, const job *j) {
    bool stopped = j->status == TSR_ERR_CANCELLED;
    if (j->status != TSR_OK && !stopped)
        app_say(a, true, "%s", j->error);
    else if (j->kind == JOB_TUNE)
        app_say(a, false,
            stopped ? "Tuning was stopped" : "Tuned; the best tile is kept for this device, model and precision");
    else if (j->kind == JOB_RENDER)
        app_say(a, false, stopped ? "Not rendered: %s was stopped" : "Rendered: %s", stopped ? j->what : j->path);
}

static void end(app *a) {
    job *j = a->job;
    pthread_join(j->thread, NULL);
    a->job = NULL;
    if (j->kind == JOB_TUNE)
        a->tuned = j->tuned;
    tell(a, j);
    if (j->kind == JOB_MEASURE && j->status != TSR_ERR_CANCELLED)
        decode_measured(a, j->status == TSR_OK);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

void jobs_stop(app *a) {
    job *j = a->job;
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    if (j->engine)
        tsr_cancel(j->engine);
    pthread_mutex_unlock(&j->lock);
    end(a);
}

void jobs_update(app *a) {
    if (!a->job)
        return;
    pthread_mutex_lock(&a->job->lock);
    bool done = a->job->done;
    if (a->job->kind == JOB_TUNE)
        a->tuned = a->job->tuned;
    pthread_mutex_unlock(&a->job->lock);
    a->redraw = a->redraw > 1 ? a->redraw : 1;
    if (!done)
        return;
    end(a);
    if (a->start_at == 0)
        decode_resume(a);
}

job_kind jobs_running(const app *a) {
    return a->job ? a->job->kind : JOB_NONE;
}

const char *jobs_what(const app *a, double *share) {
    pthread_mutex_lock(&a->job->lock);
    *share = a->job->share;
    pthread_mutex_unlock(&a->job->lock);
    return a->job->what;
}

/*
 * The preview window: its state, and what can be done with it. Everything the user does arrives as
 * events, from the window system or from a script; everything on screen is drawn by app_draw from
 * this state.
 *
 *     events -> app_event -> settings, view        app_update -> preview, jobs        app_draw ->
 * ui -> gpu
 */
#ifndef TSR_APP_H
#define TSR_APP_H

#include "viewer/cli.h"
#include "gpu.h"
#include "ui.h"

#include <tessera/preview.h>
#include <tessera/tune.h>

#include <pthread.h>
#include <stdatomic.h>

/* ---------------------------------------------------------------- events */

typedef enum event_kind {
    EVENT_MOVE,
    EVENT_PRESS,
    EVENT_RELEASE,
    EVENT_WHEEL,
    EVENT_CHARACTER, /* what a key types, in code */
    EVENT_KEY,       /* keys that type nothing, and letters with Ctrl held */
    EVENT_KEY_UP,
    EVENT_DROP,
    EVENT_RESIZE,
    EVENT_SCALE,
    EVENT_CLOSE,
} event_kind;

typedef enum key {
    KEY_NONE,
    KEY_LEFT,
    KEY_RIGHT,
    KEY_HOME,
    KEY_END,
    KEY_TAB,
    KEY_ESCAPE,
    KEY_ENTER,
    KEY_BACKSPACE,
    KEY_DELETE,
    KEY_LETTER, /* code says which, with Ctrl */
} key;

typedef struct event {
    event_kind kind;
    double x, y; /* pixels; WHEEL: y steps; RESIZE: size; SCALE: x */
    int button;
    key key;
    unsigned code;
    bool shift, ctrl;
    const char *path; /* DROP */
} event;

/* ---------------------------------------------------------------- settings */

/* What a slider can be set to. */
typedef struct positions {
    int count;
    int64_t value[96]; /* the first is auto: 0 or -1 */
} positions;

typedef enum dial {
    DIAL_TILE_WIDTH,
    DIAL_TILE_HEIGHT,
    DIAL_OVERLAP,
    DIAL_VRAM,
    DIAL_PRECISION,
    DIAL_CACHES,
    DIALS
} dial;

typedef struct settings {
    int64_t value[DIALS]; /* pixels, 0 auto; overlap -1 auto; bytes, 0 auto; tsr_precision;
                             tsr_cache_home */
    bool linked;          /* tiles as high as wide */
    bool blend;           /* tiles overlap and fade; off: they abut */
} settings;

typedef struct look {
    bool panel, fullscreen, loop, nearest;
    bool grid, seams, weights, heat, wipe, difference;
    int gain; /* of the difference: 1, 2, 4 ... 64 */
} look;

/* Which positions of a dial fit, as far as is known; found on a thread of its own. */
typedef enum fit { FIT_UNKNOWN, FIT_YES, FIT_NO } fit;
typedef struct planner planner;

/* ---------------------------------------------------------------- work beside the preview */

typedef enum job_kind { JOB_NONE, JOB_RENDER, JOB_TUNE, JOB_MEASURE } job_kind;
typedef struct job job;

/* What was measured, smallest tiles first. */
enum { TUNED_MOST = 64 };
typedef struct tuned {
    int points, best; /* best -1: none */
    tsr_tune_point point[TUNED_MOST];
} tuned;

/* ---------------------------------------------------------------- the window */

enum { RECENTS = 8, PATH_MOST = 4096, TOAST_MOST = 512 };

typedef enum dialog { DIALOG_NONE, DIALOG_HELP, DIALOG_OPEN, DIALOG_RENDER } dialog;

typedef struct app {
    const options *o;
    struct desktop *desktop; /* NULL: there is no window system */
    gpu gpu;
    bool gpu_ready, ui_ready;
    bool software;        /* the gpu is the cores that decode */
    float scale;          /* of all lengths */
    int width, height;    /* pixels */
    double now, drawn_at; /* seconds, monotonic; times of this update and the last frame drawn */
    atomic_bool woken;    /* by the decode */
    int redraw;           /* frames still to draw */
    bool quit;
    int exit_status;

    /* what is open */
    tsr_engine *engine;
    tsr_preview *preview;
    tsr_model *model;
    tsr_latent *latent;
    char model_path[PATH_MOST], latent_path[PATH_MOST], folder[PATH_MOST];
    bool is_demo;
    char name[256]; /* of the latent, for people */
    char recent[RECENTS][PATH_MOST];
    double folder_looked;
    long long folder_newest; /* time stamp of what is shown, ns */

    /* what is decoded, and how */
    settings set;
    positions positions_of[DIALS];
    tsr_plan *plan;        /* of the settings, not started yet; NULL: it was */
    tsr_plan_info planned; /* its numbers */
    char planned_device[128], planned_why[256];
    char plan_error[512];       /* no plan fits; else "" */
    double plan_seconds;        /* it took */
    double start_at;            /* when the decode begins anew; 0: not */
    bool measured;              /* what --quality asks for is known of this model */
    double rested_at;           /* when the last slider came to rest */
    double first_frame_seconds; /* from there to the first whole frame */
    planner *planner;
    bool lost; /* the device; all is opened anew */
    int losses;

    /* what is seen */
    look look;
    ui_rect stage; /* where the picture is */
    bool fit;
    double zoom, at_x, at_y; /* pixels a frame pixel; frame position in the stage's middle */
    double left, top;        /* frame position of the stage's corner, as drawn */
    double wipe;             /* 0..1 of the stage's width */
    tsr_preview_image image;
    bool image_stale; /* the picture has to be drawn anew */
    bool image_due;   /* and will be, when the last one is old enough */
    double pictured_at;
    double compared_at;
    bool dragging, moving_wipe, scrubbing;
    double drag_x, drag_y, pressed_at;

    /* time */
    int64_t frame;
    bool playing;
    double play_began; /* time at which frame play_first was due */
    int64_t play_first;
    double fps;
    double seek_at; /* when to see whether the decode must go elsewhere; 0: not */

    /* said */
    dialog dialog;
    bool dialog_new;
    char field[PATH_MOST]; /* the dialog's text */
    char toast[TOAST_MOST];
    double toast_until;
    bool toast_bad;
    char clipboard[2 * PATH_MOST];
    job *job;
    tuned tuned;

    /* measured */
    double frame_seconds[64];         /* between the last frames drawn */
    int frames_drawn, pictures_drawn; /* of the interface; of the video */
    double mouse_x, mouse_y;
} app;

/* ---------------------------------------------------------------- app.c: life, events, frames */

tsr_status app_open(app *a, const options *o, struct desktop *desktop);
void app_close(app *a);
void app_event(app *a, const event *e);
/* Takes what the decode and the jobs have done, lets time pass. */
void app_update(app *a);
/* Draws if there is anything new, at most 60 times a second unless `must`. */
void app_draw(app *a, bool must);
/* Seconds until the next update is due. */
double app_patience(const app *a);
void app_touch(app *a); /* something on screen has changed */
void app_say(app *a, bool bad, const char *format, ...) __attribute__((format(printf, 3, 4)));
double app_time(void);

/* ---------------------------------------------------------------- video.c: what is open */

/* Opens a latent, a model or a folder to follow. What goes wrong appears in the window. */
void app_open_path(app *a, const char *path);
void app_open_demo(app *a);
/* Shows what is in a->model and a->latent. */
tsr_status app_show_video(app *a);
/* Looks for a newer latent in the folder that is open, at most twice a second. */
void app_follow_folder(app *a);
#define APP_FOLDER_EVERY 0.5 /* seconds */

/* ---------------------------------------------------------------- decode.c: settings to plans to
 * decodes */

void decode_scales(app *a);                /* what the dials can be set to, for this video */
void decode_plan(app *a);                  /* plans by the settings, at once */
void decode_changed(app *a, bool resting); /* a setting has changed; the decode follows when it rests */
/* The plan by which frames come: that of the settings, or what became of it where memory ran short. */
const tsr_plan_info *decode_in_force(const app *a);
/* The first decode of what is open, once what --quality needs is measured. */
void decode_begin(app *a);
void decode_measured(app *a, bool found);
void decode_update(app *a);
void decode_resume(app *a); /* from the first frame that is missing */
void decode_seek(app *a);   /* another frame is looked at */
int decode_position(const app *a, dial d);
void decode_set(app *a, dial d, int position, bool resting);
void decode_step(app *a, dial d, int by);
const char *decode_text(const app *a, dial d, int64_t value, char buf[64]);
tsr_plan_params decode_params(const app *a, const settings *s);
void decode_command(const app *a, char *out, size_t size); /* the equivalent `tessera render ...` */

tsr_status planner_open(planner **out);
void planner_close(planner **p);
/* Finds out for all dials; what is under way is given up. Waits for the plan in hand where engine
 * is NULL. */
void planner_ask(planner *p, tsr_engine *e, const tsr_model *m, const app *a);
fit planner_fit(planner *p, dial d, int position);

/* ---------------------------------------------------------------- actions.c: what keys and buttons
 * do */

void action_play(app *a);
void action_go(app *a, int64_t frame);
void action_zoom(app *a, double zoom, double x, double y); /* keeps what is under that point of the stage */
void action_fit(app *a);
void action_actual(app *a, double zoom);
void action_wipe(app *a);
void action_difference(app *a);
void action_keep(app *a);
void action_screenshot(app *a, const char *path); /* NULL: a name of its own in the current folder */
tsr_status action_write_png(const char *path, const tsr_frame *frame);
void action_copy_command(app *a);
void action_dialog(app *a, dialog d);
void action_render(app *a, const char *path);
void action_tune(app *a); /* or stops it */
void action_use_best(app *a);
bool action_character(app *a, unsigned code);
bool action_key(app *a, key k, bool shift);

/* ---------------------------------------------------------------- what is drawn */

float app_px(const app *a, float length); /* scaled, whole pixels */
void stage_draw(app *a);
void stage_event(app *a, const event *e); /* of the mouse, where no item takes it */
void panel_draw(app *a, ui_rect r);
void tune_draw(app *a); /* its section of the panel */
void timeline_draw(app *a, ui_rect r);
void dialogs_draw(app *a);

/* ---------------------------------------------------------------- files.c: recents and settings,
 * folders */

void files_load(app *a);
void files_save(app *a);
void files_remember(app *a, const char *path);
bool files_is_folder(const char *path);
/* The newest latent in a folder that opens and is newer than *newest; false: none. */
bool files_newest(const app *a, char *path, size_t size, long long *newest);
bool files_demo(char *path, size_t size, const char *name); /* of the assets */

/* ---------------------------------------------------------------- jobs.c */

bool jobs_start(app *a, job_kind kind, const char *path); /* path: of a render */
void jobs_stop(app *a);
void jobs_update(app *a);
job_kind jobs_running(const app *a);
/* "clip.mp4", 0..1 */
const char *jobs_what(const app *a, double *share);

/* ---------------------------------------------------------------- desktop.c: GLFW */

/* NULL: no display; says so. */
int desktop_open(struct desktop **out, app *a, const options *o);
void desktop_close(struct desktop **s);
void desktop_extensions(const char *const **names, int *count);
VkSurfaceKHR desktop_surface(struct desktop *s, VkInstance instance);
void desktop_wait(struct desktop *s, double seconds);
void desktop_wake(void);
void desktop_fullscreen(struct desktop *s, bool on);
void desktop_title(struct desktop *s, const char *title);
void desktop_clipboard(struct desktop *s, const char *text);
void desktop_size(struct desktop *s, int *width, int *height, float *scale);

/* ---------------------------------------------------------------- script.c */

/* Plays a script (path, NULL: none) on a window that is not shown, then draws it to a picture. */
int script_run(app *a, const char *script, const char *picture);

#endif

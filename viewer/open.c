/* Which model, latent and devices a command works with, and what it says of them. */
#include "cli.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH = 3, MOST_LISTED = 8 }; /* folders in folders; names in a message */

static const char demo_name[] = "demo-vae.safetensors";

/* ---------------------------------------------------------------- a folder's VAEs */

struct found {
    char *path[MOST_LISTED];
    int count; /* may be more than were kept */
};

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *e) {
    return e->d_name[0] != '.';
}

/* Known by content: what opens as a VAE is one. */
static void find_models(const char *folder, int depth, struct found *f) {
    struct dirent **entry = NULL;
    int n = scandir(folder, &entry, not_hidden, by_name);
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct stat st;
        tsr_model *m = NULL;
        bool fits =
            snprintf(path, sizeof path, "%s/%s", folder, entry[i]->d_name) < (int)sizeof path && stat(path, &st) == 0;
        if (fits && S_ISDIR(st.st_mode) && depth > 1)
            find_models(path, depth - 1, f);
        else if (fits && S_ISREG(st.st_mode) && tsr_model_open(&m, path) == TSR_OK && f->count++ < MOST_LISTED)
            f->path[f->count - 1] = strdup(path);
        tsr_model_close(&m);
        free(entry[i]);
    }
    free(entry);
}

static void forget(struct found *f) {
    for (int i = 0; i < f->count && i < MOST_LISTED; i++)
        free(f->path[i]);
}

/* ---------------------------------------------------------------- the model */

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Beside the program where it is installed, and in the source folder where it was only built.
 * malloc'd, or NULL. */
static char *find_demo(void) {
    static const char *const places[] = {"../share/tessera", "../assets"};
    char program[4096], path[4200];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = 0;
    char *slash = strrchr(program, '/');
    for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
        *slash = 0;
        char *found = snprintf(path, sizeof path, "%s/%s/%s", program, places[i], demo_name) < (int)sizeof path
                          ? realpath(path, NULL)
                          : NULL;
        if (found)
            return found;
    }
    return NULL;
}

static void say_model(const tsr_model *m, const char *why) {
    const tsr_model_info *i = tsr_model_get_info(m);
    if (why)
        say(TSR_LOG_INFO, "model: %s (%s)", i->path, why);
    if (!json_wanted())
        return;
    json j;
    json_begin(&j, "model");
    json_text(&j, "path", i->path);
    json_text(&j, "container", i->container);
    json_integer(&j, "tensors", i->tensors);
    json_integer(&j, "parameters", i->parameters);
    json_integer(&j, "file_bytes", i->file_bytes);
    json_integer(&j, "latent_channels", i->latent_channels);
    json_number(&j, "latent_scale", i->latent_scale);
    json_end(&j);
}

static int open_this(tsr_model **out, const char *path, const char *why) {
    int status = failed(tsr_model_open(out, path));
    if (status == EXIT_OK)
        say_model(*out, why);
    return status;
}

/* *out stays NULL where the folder holds none. */
static int open_folder(tsr_model **out, const char *folder, const char *why) {
    struct found f = {.count = 0};
    int status = EXIT_OK;
    find_models(folder, DEPTH, &f);
    if (f.count == 1) {
        status = open_this(out, f.path[0], why);
    } else if (f.count > 1) {
        char list[1024] = "";
        for (int i = 0, n = 0; i < f.count && i < MOST_LISTED && n < (int)sizeof list; i++)
            n += snprintf(list + n, sizeof list - (size_t)n, "%s%s", i ? ", " : "", f.path[i]);
        status = failure(TSR_ERR_IO, "several VAEs: %s holds %d: %s%s; name one with -m", folder, f.count, list,
            f.count > MOST_LISTED ? ", ..." : "");
    }
    forget(&f);
    return status;
}

int open_model(tsr_model **out, const options *o) {
    const char *chosen = getenv("TESSERA_MODEL"), *why = "$TESSERA_MODEL";
    if (o->model || (chosen && *chosen)) {
        why = o->model ? NULL : why;
        chosen = o->model ? o->model : chosen;
        if (!is_folder(chosen))
            return open_this(out, chosen, why);
        int status = open_folder(out, chosen, why ? why : "the only VAE there");
        return status == EXIT_OK && !*out ? failure(TSR_ERR_IO, "no VAE: %s holds none; name a file with -m", chosen)
                                          : status;
    }
    if (is_folder("models")) {
        int status = open_folder(out, "models", "the only VAE in ./models");
        if (status != EXIT_OK || *out)
            return status;
    }
    char *demo = find_demo();
    int status = demo ? open_this(out, demo, "the demo model; -m names another")
                      : failure(TSR_ERR_IO, "no model: none in ./models, and the demo model is not "
                                            "installed; name one with -m");
    free(demo);
    return status;
}

/* ---------------------------------------------------------------- latent, engine, plan */

int open_latent(tsr_latent **out, const char *path, const options *o, const tsr_model *m) {
    tsr_latent_params p = o->latent;
    p.channels = tsr_model_get_info(m)->latent_channels;
    p.model_scale = tsr_model_get_info(m)->latent_scale;
    return failed(tsr_latent_open(out, path, &p));
}

int create_engine(tsr_engine **out, const options *o) {
    return failed(tsr_engine_create(out, &o->engine));
}

int parse_extent(tsr_extent *out, const char *text, const tsr_model *m) {
    int64_t size[3]; /* width, height, frames */
    if (!parse_sizes(text, 3, 1, size))
        return usage_error("bad size: %s; a size is WIDTHxHEIGHTxFRAMES", text);
    int space = tsr_model_get_info(m)->space_factor, time = tsr_model_get_info(m)->time_factor;
    *out = (tsr_extent){.frames = (int)((size[2] - 1 + time - 1) / time + 1),
        .height = (int)((size[1] + space - 1) / space),
        .width = (int)((size[0] + space - 1) / space)};
    int64_t real[3] = {
        (int64_t)out->width * space, (int64_t)out->height * space, (int64_t)(out->frames - 1) * time + 1};
    if (memcmp(size, real, sizeof size) != 0)
        say(TSR_LOG_INFO, "size: %s becomes %lldx%lldx%lld, whole latents", text, (long long)real[0],
            (long long)real[1], (long long)real[2]);
    return EXIT_OK;
}

int find_extent(tsr_extent *out, tsr_latent **z, const options *o, const tsr_model *m) {
    const char *what = o->args[0];
    if (what[strspn(what, "0123456789x")] == 0 && access(what, F_OK) != 0)
        return parse_extent(out, what, m);
    int status = open_latent(z, what, o, m);
    if (status == EXIT_OK) {
        const tsr_latent_info *i = tsr_latent_get_info(*z);
        *out = (tsr_extent){i->frames, i->height, i->width};
        if (i->videos > 1)
            say(TSR_LOG_INFO, "batch: %d videos, decoded one after the other", i->videos);
    }
    return status;
}

int64_t output_frames(const tsr_model *m, int latent_frames) {
    return (int64_t)(latent_frames - 1) * tsr_model_get_info(m)->time_factor + 1;
}

int clip_frames(const options *o, int64_t total, int64_t *first, int64_t *end) {
    *first = o->first;
    *end = o->end && o->end < total ? o->end : total;
    if (*first >= total)
        return usage_error(
            "no such frames: --frames starts at %lld, the video has %lld", (long long)o->first, (long long)total);
    if (o->end > total)
        say(TSR_LOG_INFO, "frames: the video ends at %lld", (long long)total);
    return EXIT_OK;
}

int measure_quality(tsr_engine *e, tsr_model *m, const tsr_latent *z, const options *o) {
    if (!(o->plan.quality > 0))
        return EXIT_OK;
    interrupt_cancels(e);
    int status = failed(tsr_quality_measure(e, m, z, o->plan.precision));
    interrupt_cancels(NULL);
    return status;
}

int create_plan(tsr_plan **out, tsr_engine *e, const tsr_model *m, const tsr_extent *extent, const options *o,
    int64_t first, int64_t end) {
    tsr_plan_params p = o->plan;
    p.first_frame = (int)first;
    p.end_frame = (int)end;
    return failed(tsr_plan_create(out, e, m, extent, &p));
}

int may_overwrite(const char *existing, bool *overwrite) {
    char answer[16] = "";
    if (!existing || *overwrite || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return EXIT_OK; /* who writes will refuse, where it has to be refused */
    fprintf(stderr, "%s exists. Overwrite? [y/N] ", existing);
    if (fgets(answer, sizeof answer, stdin))
        *overwrite = *answer == 'y' || *answer == 'Y';
    return *overwrite ? EXIT_OK : failure(TSR_ERR_IO, "not overwritten: %s", existing);
}

int may_write(const char *path, bool *overwrite) {
    struct stat st;
    return may_overwrite(stat(path, &st) == 0 && S_ISREG(st.st_mode) ? path : NULL, overwrite);
}

const char *mode_name(tsr_mode mode) {
    static const char *const name[] = {"auto", "untiled", "offloaded", "tiled", "exact"};
    return (unsigned)mode < sizeof name / sizeof *name ? name[mode] : "?";
}

static void plan_event(const tsr_plan_info *p) {
    json j;
    json_begin(&j, "plan");
    json_text(&j, "mode", mode_name(p->mode));
    json_pair(&j, "tile", p->tile_width, p->tile_height);
    json_pair(&j, "overlap", p->overlap_width, p->overlap_height);
    json_integer(&j, "tiles", (int64_t)p->columns * p->rows);
    json_integer(&j, "bands", p->bands);
    json_integer(&j, "band_height", p->band_height);
    json_integer(&j, "segment", p->segment);
    json_text(&j, "precision", tsr_precision_name(p->precision));
    json_text(&j, "numbers", p->numbers);
    json_text(&j, "device", p->device);
    json_pair(&j, "size", p->width, p->height);
    json_integer(&j, "frames", p->frames);
    json_open(&j, "bytes");
    json_integer(&j, "weights", p->bytes.weights);
    json_integer(&j, "arena", p->bytes.arena);
    json_integer(&j, "caches", p->bytes.caches);
    json_integer(&j, "slots", p->bytes.slots);
    json_integer(&j, "frames", p->bytes.frames);
    json_integer(&j, "total", p->bytes.total);
    json_integer(&j, "host", p->bytes.host);
    json_close(&j);
    json_integer(&j, "budget", p->budget);
    json_number(&j, "flops", p->flops);
    json_text(&j, "why", p->why);
    json_text(&j, "runner_up", p->runner_up);
    json_end(&j);
}

/* What was asked for in pixels and came out otherwise. */
static void say_bite(const char *what, int asked_w, int asked_h, int w, int h) {
    if (asked_w != w || asked_h != h)
        say(TSR_LOG_INFO, "%s: %dx%d asked for, %dx%d used", what, asked_w, asked_h, w, h);
}

void say_plan(const tsr_plan_info *p, const options *o) {
    if (json_wanted()) {
        plan_event(p);
    } else {
        char total[32], budget[32], tiles[96] = "";
        if (p->columns * p->rows > 1)
            snprintf(tiles, sizeof tiles, ", %dx%d tiles of %dx%d, overlap %dx%d", p->columns, p->rows, p->tile_width,
                p->tile_height, p->overlap_width, p->overlap_height);
        if (p->bands)
            snprintf(tiles, sizeof tiles, ", %d bands of %dx%d", p->bands, p->width, p->band_height);
        say(TSR_LOG_INFO, "plan: %s%s, %s on %s, %s of %s: %s", mode_name(p->mode), tiles,
            tsr_precision_name(p->precision), p->device, bytes_text(total, p->bytes.total),
            bytes_text(budget, p->budget), p->why);
    }
    if (o->plan.tile_width > 0 && !p->bands)
        say_bite("tile", o->plan.tile_width, o->plan.tile_height, p->tile_width, p->tile_height);
    if (o->plan.overlap_width >= 0 && p->columns * p->rows > 1)
        say_bite("overlap", o->plan.overlap_width, o->plan.overlap_height, p->overlap_width, p->overlap_height);
}

void say_replan(int64_t frame, const char *why) {
    if (!json_wanted())
        return;
    json j;
    json_begin(&j, "replan");
    json_integer(&j, "frame", frame);
    json_text(&j, "why", why);
    json_end(&j);
}

/* tessera render */
#include "cli.h"
#include "join.h"
#include "quality.h"
#include "resume.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One video of one latent: a stretch of the output. */
struct part {
    tsr_latent *z; /* shared by the parts of a batch */
    int video;
    tsr_plan *plan;     /* NULL: --frames leaves nothing of it */
    bool same_plan;     /* as the part before; what was made ready for that serves again */
    int64_t start;      /* place of its first frame in the output */
    int64_t frames;     /* that it has */
    int64_t first, end; /* its own frames that are wanted */
    int64_t from;       /* the first that is not there already; >= end: all are */
};

struct render {
    const options *o;
    tsr_model *model;
    tsr_engine *engine;
    tsr_latent **latent; /* [o->count] */
    struct part *part;   /* [parts] */
    int parts;
    int width, height;    /* of the picture, crop undone */
    int64_t total;        /* frames of all parts together */
    int64_t first, end;   /* of them wanted */
    int64_t done, before; /* written; written before the part in hand */
    resume resume;
    char misfit[512]; /* why a plan in the journal could not be made again; "": all could */
    tsr_writer_params target;
    tsr_writer *writer;
    tsr_pixels pixels;
    char *cropped;          /* one frame, as large as the picture */
    char *converted;        /* one frame in the writer's pixels, where parts fade into each other */
    const struct part *now; /* that is decoded */
    join join;
    quality quality;
    double started; /* seconds */
    tsr_result sum;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---------------------------------------------------------------- inputs */

/* The picture size and frames of a latent, what encode recorded undone. */
static void picture_of(const tsr_model *m, const tsr_latent_info *z, int *width, int *height, int64_t *frames) {
    const tsr_model_info *i = tsr_model_get_info(m);
    *width = z->width * i->space_factor;
    *height = z->height * i->space_factor;
    *frames = output_frames(m, z->frames);
    if (z->crop_width > 0 && z->crop_width <= *width && z->crop_height > 0 && z->crop_height <= *height) {
        *width = z->crop_width;
        *height = z->crop_height;
    }
    if (z->crop_frames > 0 && z->crop_frames <= *frames)
        *frames = z->crop_frames;
}

static int open_latents(struct render *r) {
    const options *o = r->o;
    for (int i = 0; i < o->count; i++) {
        int status = open_latent(&r->latent[i], o->args[i], o, r->model);
        if (status != EXIT_OK)
            return status;
        const tsr_latent_info *z = tsr_latent_get_info(r->latent[i]);
        int width, height;
        int64_t frames;
        picture_of(r->model, z, &width, &height, &frames);
        if (i && (width != r->width || height != r->height))
            return failure(TSR_ERR_FORMAT, "different sizes: %s is %dx%d, %s is %dx%d; render them one by one",
                o->args[0], r->width, r->height, o->args[i], width, height);
        r->width = width;
        r->height = height;
        struct part *grown = realloc(r->part, sizeof *r->part * (size_t)(r->parts + z->videos));
        if (!grown)
            return failure(TSR_ERR_MEMORY, "out of memory: %d videos", z->videos);
        r->part = grown;
        for (int v = 0; v < z->videos; v++)
            r->part[r->parts++] = (struct part){.z = r->latent[i], .video = v, .frames = frames};
    }
    return EXIT_OK;
}

/* Where each part stands in the output: behind the one before, or over its last frames. */
static int place_parts(struct render *r) {
    int m = r->o->batch_overlap;
    if (m && r->parts == 1)
        say(TSR_LOG_WARN, "--batch-overlap %d: there is one video, nothing to fade into", m);
    for (int i = 0; i < r->parts; i++) {
        struct part *p = &r->part[i];
        int neighbours = (i > 0) + (i + 1 < r->parts);
        if (p->frames < (int64_t)m * neighbours || (neighbours && p->frames <= m))
            return usage_error("too few frames: video %d has %lld, --batch-overlap %d takes %lld of them; give less",
                i + 1, (long long)p->frames, m, (long long)m * neighbours);
        p->start = r->total;
        r->total += p->frames - (i + 1 < r->parts ? m : 0);
    }
    return EXIT_OK;
}

/* From places in the output to frames of each part. */
static int cut_parts(struct render *r) {
    int status = place_parts(r);
    if (status == EXIT_OK)
        status = clip_frames(r->o, r->total, &r->first, &r->end);
    for (int i = 0; i < r->parts && status == EXIT_OK; i++) {
        struct part *p = &r->part[i];
        p->first = r->first > p->start ? r->first - p->start : 0;
        p->end = r->end - p->start < p->frames ? r->end - p->start : p->frames;
    }
    return status;
}

/* Whether the part before has just that plan, too. */
static bool is_alike(const struct part *p, const struct part *last, const tsr_extent *extent, const char *recipe) {
    if (!last || last->first != p->first || last->end != p->end)
        return false;
    const tsr_plan_info *i = tsr_plan_get_info(last->plan);
    return memcmp(&i->extent, extent, sizeof *extent) == 0 && (!recipe || strcmp(i->recipe, recipe) == 0);
}

/* The plan that the killed render had. One that cannot be made again is of another render, or damaged: the journal says
 * which, once it is open. */
static int plan_again(struct render *r, struct part *p, const tsr_extent *extent, const char *recipe) {
    tsr_plan_params params = r->o->plan;
    params.recipe = recipe;
    tsr_status status = tsr_plan_create(&p->plan, r->engine, r->model, extent, &params);
    if (status != TSR_ERR_FORMAT)
        return failed(status);
    snprintf(r->misfit, sizeof r->misfit, "%s", tsr_last_error());
    return EXIT_OK;
}

static int plan_part(struct render *r, struct part *p, const struct part *last) {
    const tsr_latent_info *z = tsr_latent_get_info(p->z);
    tsr_extent extent = {z->frames, z->height, z->width};
    char *recipe = r->o->resume ? resume_recipe(r->o, (int)(p - r->part)) : NULL;
    int status = EXIT_OK;
    p->same_plan = is_alike(p, last, &extent, recipe);
    if (p->same_plan)
        p->plan = last->plan;
    else if (recipe)
        status = plan_again(r, p, &extent, recipe);
    if (status == EXIT_OK && !p->plan)
        status = create_plan(&p->plan, r->engine, r->model, &extent, r->o, p->first, p->end);
    free(recipe);
    return status;
}

static int plan_parts(struct render *r) {
    const struct part *last = NULL;
    int status = EXIT_OK;
    for (int i = 0; i < r->parts && status == EXIT_OK; i++)
        if (r->part[i].first < r->part[i].end) {
            status = plan_part(r, &r->part[i], last);
            last = &r->part[i];
        }
    return status;
}

static void say_plans(const struct render *r) {
    const tsr_plan_info *last = NULL;
    for (int i = 0; i < r->parts; i++)
        if (r->part[i].plan && !r->part[i].same_plan) {
            last = tsr_plan_get_info(r->part[i].plan);
            say_plan(last, r->o);
        }
    if (last && last->unmeasured)
        say(TSR_LOG_INFO, "%s", last->numbers);
}

/* ---------------------------------------------------------------- output */

/* Frame rate and sound of --like. */
static int take_after(struct render *r) {
    tsr_reader *clip = NULL;
    int status = failed(tsr_reader_open(&clip, r->o->like));
    if (status != EXIT_OK)
        return status;
    const tsr_media_info *i = tsr_reader_get_info(clip);
    if (i->fps > 0 && !r->o->fps_given)
        r->target.fps = i->fps;
    else if (!(i->fps > 0) && r->end - r->first > 1)
        say(TSR_LOG_WARN, "%s: has no frame rate", i->path);
    if (i->audio) {
        r->target.audio_from = r->o->like;
        r->target.audio_start = i->fps > 0 ? (double)r->first / i->fps : 0;
    }
    tsr_reader_close(&clip);
    return EXIT_OK;
}

/* What the journal of this render must say. */
static int tell_journal(struct render *r) {
    resume_begin(&r->resume, r->o, r->model);
    for (int i = 0; i < r->o->count; i++)
        resume_latent(&r->resume, r->latent[i]);
    for (int i = 0; i < r->parts; i++)
        if (r->part[i].plan)
            resume_plan(&r->resume, i, tsr_plan_get_info(r->part[i].plan));
    int status = resume_end(&r->resume);
    r->target.resume = r->resume.text;
    return status;
}

/* Frames that are there already are not made again. */
static void skip_done(struct render *r) {
    int64_t all = r->end - r->first;
    r->done = tsr_writer_done(r->writer);
    for (int i = 0; i < r->parts; i++) {
        struct part *p = &r->part[i];
        int64_t from = r->first + r->done - p->start;
        p->from = from > p->first ? from : p->first;
    }
    if (!r->done)
        return;
    say(TSR_LOG_INFO, "resume: %lld of %lld frames are there", (long long)r->done, (long long)all);
    if (json_wanted()) {
        json j;
        json_begin(&j, "resume");
        json_integer(&j, "frames", r->done);
        json_integer(&j, "of", all);
        json_end(&j);
    }
}

static int open_output(struct render *r) {
    r->target = r->o->writer;
    r->target.width = r->width;
    r->target.height = r->height;
    r->target.frames = r->end - r->first;
    r->target.first = r->first;
    int status = r->o->like ? take_after(r) : EXIT_OK;
    if (status == EXIT_OK && r->o->resume)
        status = tell_journal(r);
    char *existing = r->target.overwrite || status != EXIT_OK ? NULL : tsr_writer_existing(&r->target);
    if (status == EXIT_OK)
        status = may_overwrite(existing, &r->target.overwrite);
    free(existing);
    catch_interrupts(); /* there will be something to clean up */
    if (status == EXIT_OK)
        status = failed(tsr_writer_open(&r->writer, &r->target));
    if (status != EXIT_OK)
        return status;
    if (*r->misfit)
        return failure(
            TSR_ERR_FORMAT, "cannot go on: %s.resume: %s; remove it to start anew", r->target.path, r->misfit);
    r->pixels = tsr_writer_pixels(r->writer);
    skip_done(r);
    return r->o->like && r->o->psnr ? quality_open(&r->quality, r->o->like, r->width, r->height, r->first + r->done)
                                    : EXIT_OK;
}

/* The upper left of a frame, packed anew. RGB is [height][width][3], float [3][height][width]. */
static void crop(struct render *r, tsr_frame *f) {
    bool planar = f->pixels == TSR_PIXELS_RGB_F32;
    size_t pixel = f->bytes / ((size_t)f->width * (size_t)f->height) / (planar ? 3 : 1);
    size_t from = (size_t)f->width * pixel, to = (size_t)r->width * pixel;
    char *out = r->cropped;
    for (int c = 0; c < (planar ? 3 : 1); c++)
        for (int y = 0; y < r->height; y++, out += to)
            memcpy(out, (const char *)f->data + ((size_t)c * (size_t)f->height + (size_t)y) * from, to);
    f->width = r->width;
    f->height = r->height;
    f->data = r->cropped;
    f->bytes = (size_t)(out - r->cropped);
}

static tsr_status write_frame(struct render *r, const tsr_frame *f) {
    tsr_status status = tsr_writer_frame(r->writer, f);
    if (status == TSR_OK)
        status = quality_frame(&r->quality, f);
    r->done += status == TSR_OK;
    return status;
}

/* How many of a part's frames wait for those of the next. */
static int64_t kept_frames(const struct render *r, const struct part *p) {
    return p == &r->part[r->parts - 1] ? 0 : r->join.overlap;
}

/* How many frames of the output are there once this part is done, and were not before. */
static int64_t given_frames(const struct render *r, const struct part *p) {
    int64_t own = p->frames - kept_frames(r, p), end = p->end < own ? p->end : own;
    return end > p->from ? end - p->from : 0;
}

/* A frame of floats: kept for the part behind, or mixed with what the part before left. */
static tsr_status join_frame(struct render *r, tsr_frame *f, int64_t own) {
    const struct part *p = r->now;
    int64_t from_end = own - (p->frames - kept_frames(r, p));
    if (from_end >= 0) {
        join_keep(&r->join, from_end, f->data);
        return TSR_OK;
    }
    if (f->data != r->cropped)
        memcpy(r->cropped, f->data, f->bytes); /* the engine's frames are not ours to change */
    f->data = r->cropped;
    if (p != r->part && own < r->join.overlap)
        join_fade(&r->join, own, (float *)(void *)r->cropped);
    tsr_frame_pixels(f, r->pixels, !r->o->no_dither, r->converted);
    f->bytes = f->bytes / sizeof(float) * (r->pixels == TSR_PIXELS_RGB8 ? 1 : r->pixels == TSR_PIXELS_RGB16 ? 2 : 4);
    f->pixels = r->pixels;
    f->data = r->converted;
    return write_frame(r, f);
}

/* On the writer's thread. */
static tsr_status on_frame(void *user, const tsr_frame *frame) {
    struct render *r = user;
    tsr_frame f = *frame;
    f.index = r->now->start + frame->index; /* in the output, of which the part knows nothing */
    if (interrupted())
        return TSR_ERR_CANCELLED;
    if (f.width != r->width || f.height != r->height)
        crop(r, &f);
    return r->join.overlap ? join_frame(r, &f, frame->index) : write_frame(r, &f);
}

/* ---------------------------------------------------------------- decoding */

/* Of all parts, from what one of them reports. */
static void on_progress(void *user, const tsr_progress *p) {
    struct render *r = user;
    if (interrupted()) /* a signal may have come before there was a decode to cancel */
        tsr_cancel(r->engine);
    int64_t all = r->end - r->first, given = given_frames(r, r->now);
    tsr_progress whole = {.frames = r->before + (p->frames < given ? p->frames : given),
        .of = all,
        .seconds = now() - r->started,
        .eta = -1};
    whole.share = ((double)r->before + p->share * (double)given) / (double)all;
    if (p->eta >= 0 && whole.share > 0)
        whole.eta = whole.seconds * (1 - whole.share) / whole.share;
    say_progress(&whole);
}

/* Of the part in hand, whose frame `first` is the next to come. */
static void on_plan(void *user, const tsr_plan_info *plan, int64_t first, const char *why) {
    struct render *r = user;
    say_replan(r->now->start + first, why);
    say_plan(plan, r->o);
    /* Frames that wait for those of the next part are made again by who goes on, those of the plan before among them:
     * it stays, and if there is no room for it still, gives way to this one again. */
    bool all_written = r->now->start + first == r->first + r->done;
    if (all_written && resume_replan(r->writer, (int)(r->now - r->part), plan) != TSR_OK)
        say(TSR_LOG_WARN, "journal: %s", tsr_last_error());
}

static void add_result(tsr_result *sum, const tsr_result *part) {
    sum->frames += part->frames;
    sum->load += part->load;
    sum->prepare += part->prepare;
    sum->decode += part->decode;
    sum->blend += part->blend;
    sum->write += part->write;
    sum->peak_bytes = part->peak_bytes > sum->peak_bytes ? part->peak_bytes : sum->peak_bytes;
    sum->planned_bytes = part->planned_bytes > sum->planned_bytes ? part->planned_bytes : sum->planned_bytes;
    sum->host_peak_bytes = part->host_peak_bytes > sum->host_peak_bytes ? part->host_peak_bytes : sum->host_peak_bytes;
    sum->host_planned_bytes =
        part->host_planned_bytes > sum->host_planned_bytes ? part->host_planned_bytes : sum->host_planned_bytes;
}

static int decode_parts(struct render *r) {
    tsr_status status = TSR_OK;
    r->started = now();
    r->cropped = malloc((size_t)r->width * (size_t)r->height * 3 * sizeof(float)); /* of the largest pixels */
    bool joined = join_open(&r->join, r->parts > 1 ? r->o->batch_overlap : 0, r->width, r->height);
    if (r->join.overlap)
        r->converted = malloc((size_t)r->width * (size_t)r->height * 3 * sizeof(float));
    if (!r->cropped || !joined || (r->join.overlap && !r->converted))
        return failure(TSR_ERR_MEMORY, "out of memory: a frame of %dx%d", r->width, r->height);
    interrupt_cancels(r->engine);
    for (int i = 0; i < r->parts && status == TSR_OK && !interrupted(); i++) {
        struct part *p = &r->part[i];
        if (p->from >= p->end)
            continue;
        tsr_decode_params d = TSR_DECODE_PARAMS_DEFAULT;
        tsr_result result = {0};
        d.pixels = r->join.overlap ? TSR_PIXELS_RGB_F32 : r->pixels;
        d.dither = !r->o->no_dither;
        d.video = p->video;
        d.first_frame = (int)p->from;
        d.trace = r->o->trace;
        d.on_frame = on_frame;
        d.on_progress = on_progress;
        d.on_plan = on_plan;
        d.user = r;
        r->before = r->done;
        r->now = p;
        status = tsr_decode(r->engine, r->model, p->z, p->plan, &d, &result);
        add_result(&r->sum, &result);
    }
    progress_end();
    return interrupted() ? EXIT_OK : failed(status);
}

static int finish(struct render *r) {
    double begin = now();
    int status = failed(tsr_writer_finish(r->writer));
    r->sum.write += now() - begin;
    r->sum.seconds = now() - r->started;
    return status;
}

/* ---------------------------------------------------------------- what it says at the end */

static int say_interrupted(const struct render *r) {
    const char *path = r->target.path;
    bool pictures = r->target.format == TSR_FORMAT_PNG || (path && strchr(path, '%'));
    if (r->o->resume && r->done)
        return failure(TSR_ERR_CANCELLED, "interrupted: %s; %lld of %lld frames are kept, and the same command goes on",
            path, (long long)r->done, (long long)(r->end - r->first));
    if (pictures && r->done)
        return failure(TSR_ERR_CANCELLED, "interrupted: %s; %lld of %lld pictures are there and whole", path,
            (long long)r->done, (long long)(r->end - r->first));
    return failure(TSR_ERR_CANCELLED, "interrupted: %s; nothing was written", path ? path : "render");
}

static void say_done(const struct render *r) {
    const tsr_result *s = &r->sum;
    const char *output = r->target.path ? r->target.path : "";
    if (json_wanted()) {
        json j;
        json_begin(&j, "done");
        json_integer(&j, "frames", r->done);
        json_number(&j, "seconds", s->seconds);
        json_phases(&j, s);
        json_integer(&j, "peak_bytes", s->peak_bytes);
        json_integer(&j, "planned_bytes", s->planned_bytes);
        json_integer(&j, "host_peak_bytes", s->host_peak_bytes);
        json_integer(&j, "host_planned_bytes", s->host_planned_bytes);
        json_text(&j, "output", output);
        json_end(&j);
        return;
    }
    char peak[32], planned[32], host[32];
    say(TSR_LOG_INFO, "%s: %lld frame%s of %dx%d in %.1f s, %.2f frames/s; device memory %s, %s planned; host %s",
        *output ? output : "decoded", (long long)r->done, plural(r->done), r->width, r->height, s->seconds,
        (double)r->done / s->seconds, bytes_text(peak, s->peak_bytes), bytes_text(planned, s->planned_bytes),
        bytes_text(host, s->host_peak_bytes));
    say(TSR_LOG_DEBUG, "busy: load %.2f, prepare %.2f, decode %.2f, blend %.2f, write %.2f s; they overlap", s->load,
        s->prepare, s->decode, s->blend, s->write);
}

/* ---------------------------------------------------------------- the command */

static int check_options(const options *o) {
    if (o->trace && o->count > 1)
        return usage_error("one trace, several latents: --trace %s; render them one by one", o->trace);
    if (!o->writer.path && o->writer.format != TSR_FORMAT_NULL)
        return usage_error("no output: give -o FILE, or --format null to decode and write nothing");
    if (o->resume && !o->writer.path)
        return usage_error("nothing to go on with: --resume wants a file; give -o FILE");
    if (o->json && o->writer.path && strcmp(o->writer.path, "-") == 0)
        return usage_error("two outputs on one: --json and -o - both want standard output; choose one");
    return EXIT_OK;
}

/* The first part that is rendered stands for all. */
static int say_quality(const struct render *r) {
    const struct part *p = r->part;
    while (!p->plan)
        p++;
    quality_say(&r->quality, r->o->like);
    return quality_precision(r->o, r->engine, r->model, p->z, p->video, tsr_plan_get_info(p->plan), p->first, p->end);
}

static void free_render(struct render *r) {
    tsr_writer_close(&r->writer);
    for (int i = 0; i < r->parts; i++)
        if (!r->part[i].same_plan)
            tsr_plan_destroy(&r->part[i].plan);
    for (int i = 0; r->latent && i < r->o->count; i++)
        tsr_latent_close(&r->latent[i]);
    tsr_engine_destroy(&r->engine);
    tsr_model_close(&r->model);
    free(r->latent);
    free(r->part);
    free(r->cropped);
    free(r->converted);
    free(r->resume.text);
    join_close(&r->join);
    quality_close(&r->quality);
}

int cmd_render(const options *o) {
    struct render r = {.o = o};
    int status = check_options(o);
    if (status == EXIT_OK && !(r.latent = calloc((size_t)o->count, sizeof *r.latent)))
        status = failure(TSR_ERR_MEMORY, "out of memory: %d latents", o->count);
    if (status == EXIT_OK)
        status = open_model(&r.model, o);
    if (status == EXIT_OK)
        status = open_latents(&r);
    if (status == EXIT_OK)
        status = cut_parts(&r);
    if (status == EXIT_OK)
        status = create_engine(&r.engine, o);
    if (status == EXIT_OK)
        status = measure_quality(r.engine, r.model, r.part[0].z, o);
    if (status == EXIT_OK)
        status = plan_parts(&r);
    if (status == EXIT_OK)
        status = open_output(&r);
    if (status == EXIT_OK)
        say_plans(&r);
    if (status == EXIT_OK)
        status = decode_parts(&r);
    if (status == EXIT_OK && interrupted())
        status = say_interrupted(&r);
    else if (status == EXIT_OK)
        status = finish(&r);
    bool written = status == EXIT_OK && !interrupted();
    if (written && o->psnr)
        status = say_quality(&r);
    if (written)
        say_done(&r);
    interrupt_cancels(NULL);
    free_render(&r);
    return interrupted() ? EXIT_INTERRUPTED : status;
}

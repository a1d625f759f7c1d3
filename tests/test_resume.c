/* Writers that end early and go on: what comes out is what would have come out at once, whatever was written in
 * between; and journals that nobody should have touched. */
#include "media/encoder.h"
#include "media/media.h"
#include "temp.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WIDTH = 24, HEIGHT = 16, MOST = 1 << 24 };

/* Where there are files in memory, syncing them costs nothing. */
static void setup(void) {
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
}

TestSuite(resume, .init = setup);

/* A picture that moves, so that encoders have something to say. */
static tsr_status put(tsr_writer *w, int64_t index) {
    tsr_pixels pixels = tsr_writer_pixels(w);
    static union {
        uint8_t b[WIDTH * HEIGHT * 3];
        uint16_t s[WIDTH * HEIGHT * 3];
        float f[WIDTH * HEIGHT * 3];
    } data;
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++) {
        int v = (int)((i * 7 + index * 11) & 255);
        if (pixels == TSR_PIXELS_RGB8)
            data.b[i] = (uint8_t)v;
        else if (pixels == TSR_PIXELS_RGB16)
            data.s[i] = (uint16_t)(v * 257);
        else
            data.f[i] = (float)v / 128 - 1;
    }
    return tsr_writer_frame(
        w, &(tsr_frame){index, WIDTH, HEIGHT, pixels, &data, tsr_pixels_bytes(pixels, WIDTH, HEIGHT)});
}

static tsr_writer_params params_of(const char *name, int64_t frames) {
    tsr_writer_params p = TSR_WRITER_PARAMS_DEFAULT;
    p.path = temp_path(name);
    p.width = WIDTH;
    p.height = HEIGHT;
    p.frames = frames;
    p.first = 3;
    p.resume = "model a\nnote budget 17\nlatent b\n";
    return p;
}

/* Opens a writer, gives it frames up to `end` (of all) and lets it go. */
static tsr_status leave_at(const tsr_writer_params *p, int64_t end, bool finish, int64_t *done) {
    tsr_writer *w;
    tsr_status status;
    TSR_TRY(tsr_writer_open(&w, p));
    *done = tsr_writer_done(w);
    for (int64_t i = *done; i < end; i++)
        TSR_TRY(put(w, p->first + i));
    if (finish)
        TSR_TRY(tsr_writer_finish(w));
error:
    tsr_writer_close(&w);
    return status;
}

/* Finished where that is all. */
static tsr_status stretch(const tsr_writer_params *p, int64_t end, int64_t *done) {
    return leave_at(p, end, end == p->frames, done);
}

static char *slurp(const char *path, size_t *size) {
    static char data[2][MOST];
    static int next;
    char *at = data[next++ & 1];
    FILE *f = fopen(path, "rb");
    *size = f ? fread(at, 1, MOST, f) : 0;
    if (f)
        fclose(f);
    return f ? at : NULL;
}

static void spill(const char *path, const char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, size, f) == size);
    fclose(f);
}

static bool exists(const char *path, const char *suffix) {
    char name[4000];
    struct stat st;
    snprintf(name, sizeof name, "%s%s", path, suffix);
    return lstat(name, &st) == 0;
}

static bool equal(const char *a, const char *b) {
    size_t n, m;
    const char *x = slurp(a, &n), *y = slurp(b, &m);
    return x && y && n == m && memcmp(x, y, n) == 0;
}

static void nothing_left(const char *path) {
    cr_assert(!exists(path, ".part") && !exists(path, ".parts") && !exists(path, ".resume"), "%s left something", path);
}

static const char *written_at_once(const char *name, int64_t frames, const char *codec) {
    tsr_writer_params p = params_of(name, frames);
    int64_t done;
    p.resume = NULL;
    p.codec = codec;
    p.overwrite = true;
    cr_assert_eq(stretch(&p, frames, &done), TSR_OK, "%s", tsr_last_error());
    return p.path;
}

/* Ends behind each of `stops`, the last of which is all. */
static void in_stretches(const char *suffix, const char *codec, const int *stops, int count) {
    char name[64], whole[64];
    int64_t frames = stops[count - 1], done;
    snprintf(name, sizeof name, "stretches.%s", suffix);
    snprintf(whole, sizeof whole, "at_once.%s", suffix);
    tsr_writer_params p = params_of(name, frames);
    p.codec = codec;
    p.overwrite = true;
    const char *at_once = written_at_once(whole, frames, codec);
    for (int i = 0; i < count; i++) {
        cr_assert_eq(leave_at(&p, stops[i], i == count - 1, &done), TSR_OK, "%s", tsr_last_error());
        cr_assert_eq(done, i ? stops[i - 1] : 0, "%s %s: %lld frames where %d were written", suffix, codec ? codec : "",
            (long long)done, i ? stops[i - 1] : 0);
    }
    cr_assert(equal(p.path, at_once), "%s %s in %d stretches differs", suffix, codec ? codec : "", count);
    nothing_left(p.path);
}

Test(resume, files_go_on_behind_any_frame) {
    static const char *const suffix[] = {"y4m", "npy", "safetensors", "mp4", "mkv", "webm"};
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        in_stretches(suffix[i], NULL, (int[]){1, 2, 2, 7, 9, 9}, 6);
        in_stretches(suffix[i], NULL, (int[]){9}, 1);
    }
}

/* Around the ends of parts, with encoders that look ahead, reorder, or do neither. Not with libx265: by itself, too, it
 * makes now and then another stream of the same frames. */
Test(resume, parts_of_a_video_are_joined) {
    enum { PART = TSR_PART_FRAMES };
    static const char *const codec[][2] = {
        {"mp4", "libx264"}, {"webm", "libvpx-vp9"}, {"mkv", "ffv1"}, {"mkv", "mpeg4"}};
    for (size_t i = 0; i < sizeof codec / sizeof *codec; i++) {
        if (!avcodec_find_encoder_by_name(codec[i][1]))
            continue;
        in_stretches(codec[i][0], codec[i][1], (int[]){PART - 1, PART, PART, PART + 1, 2 * PART + 1}, 5);
        in_stretches(codec[i][0], codec[i][1], (int[]){40, 2 * PART, 2 * PART}, 3);
    }
}

/* Of the first encoder in a process and of later ones, which find used memory. */
Test(resume, the_same_frames_are_coded_alike) {
    static uint8_t data[96 * 64 * 3];
    char *first = NULL;
    size_t size = 0, n;
    if (!avcodec_find_encoder_by_name("libx264"))
        return;
    for (int k = 0; k < 6; k++) {
        tsr_writer_params p = params_of("again.mp4", 96);
        p.resume = NULL, p.codec = "libx264", p.overwrite = true;
        p.width = 96, p.height = 64;
        tsr_writer *w;
        cr_assert_eq(tsr_writer_open(&w, &p), TSR_OK, "%s", tsr_last_error());
        for (int f = 0; f < 96; f++) {
            for (int i = 0; i < 96 * 64 * 3; i++)
                data[i] = (uint8_t)(i * 7 + f * 11);
            tsr_frame frame = {3 + f, 96, 64, TSR_PIXELS_RGB8, data, sizeof data};
            cr_assert_eq(tsr_writer_frame(w, &frame), TSR_OK, "%s", tsr_last_error());
        }
        cr_assert_eq(tsr_writer_finish(w), TSR_OK, "%s", tsr_last_error());
        tsr_writer_close(&w);
        const char *text = slurp(p.path, &n);
        if (!first)
            first = malloc(size = n), memcpy(first, text, n);
        cr_assert(n == size && memcmp(first, text, n) == 0, "encode %d differs from the first", k);
    }
    free(first);
}

Test(resume, numbered_pictures_keep_their_times) {
    tsr_writer_params p = params_of("p%05d.png", 5);
    struct stat before[5], after;
    int64_t done;
    for (int k = 1; k <= 5; k++) {
        cr_assert_eq(stretch(&p, k, &done), TSR_OK, "%s", tsr_last_error());
        cr_assert_eq(done, k - 1);
        for (int i = 0; i < k; i++) {
            char *name = tsr_pattern_name(p.path, p.first + i);
            cr_assert_eq(stat(name, &after), 0);
            free(name);
            if (i < k - 1)
                cr_assert(after.st_ino == before[i].st_ino && after.st_mtim.tv_nsec == before[i].st_mtim.tv_nsec &&
                          after.st_mtim.tv_sec == before[i].st_mtim.tv_sec);
            before[i] = after;
        }
    }
    nothing_left(p.path);
}

/* Killed between the journal's line and the picture's name. */
Test(resume, a_picture_without_its_name_gets_it) {
    tsr_writer_params p = params_of("n%d.png", 4);
    int64_t done;
    cr_assert_eq(stretch(&p, 2, &done), TSR_OK);
    cr_assert_eq(rename(temp_path("n4.png"), temp_path("n4.png.part")), 0);
    cr_assert_eq(stretch(&p, 3, &done), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(done, 2);
    cr_assert(exists(temp_path("n4.png"), "") && !exists(temp_path("n4.png"), ".part"));
    cr_assert_eq(unlink(temp_path("n3.png")), 0);
    cr_assert_eq(stretch(&p, 4, &done), TSR_ERR_FORMAT);
    cr_assert(strstr(tsr_last_error(), "n3.png, which is gone"), "%s", tsr_last_error());
}

/* Killed when all was written, before or after the file got its name. */
Test(resume, a_whole_file_gets_its_name) {
    static const char *const suffix[] = {"y4m", "mp4"};
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "whole%d.%s", i, suffix[i / 2]);
        tsr_writer_params p = params_of(name, 3);
        int64_t done;
        cr_assert_eq(stretch(&p, 2, &done), TSR_OK);
        size_t n;
        char *journal = slurp(temp_path(strcat(name, ".resume")), &n);
        n += (size_t)sprintf(journal + n, "3 0 99999\nwhole\n");
        cr_assert_eq(stretch(&p, 3, &done), TSR_OK, "%s", tsr_last_error());
        char *part = tsr_format_text("%s.part", p.path);
        if (i % 2)
            cr_assert_eq(rename(p.path, part), 0);
        free(part);
        spill(temp_path(name), journal, n);
        cr_assert_eq(stretch(&p, 3, &done), TSR_OK, "%s", tsr_last_error());
        cr_assert_eq(done, 3);
        cr_assert(exists(p.path, ""));
        nothing_left(p.path);
    }
}

static void misfits(tsr_writer_params p, const char *word) {
    int64_t done;
    tsr_status status = stretch(&p, p.frames, &done);
    cr_assert_eq(status, TSR_ERR_FORMAT, "%s", tsr_last_error());
    cr_assert(strstr(tsr_last_error(), word), "%s", tsr_last_error());
    cr_assert(!exists(p.path, "") && exists(p.path, ".resume"), "%s", tsr_last_error());
}

Test(resume, another_render_does_not_fit) {
    const tsr_writer_params p = params_of("fit.mkv", 5);
    tsr_writer_params q = p;
    int64_t done;
    cr_assert_eq(stretch(&p, 2, &done), TSR_OK, "%s", tsr_last_error());
    q.resume = "model c\nlatent b\n", misfits(q, "\"model a\", this is \"model c\"");
    q.resume = "model a\n", misfits(q, "latent b");
    q.resume = "model a\nlatent b\nlatent b\n", misfits(q, "latent b");
    q = p, q.crf = 20, misfits(q, "crf 20");
    q = p, q.frames = 6, misfits(q, "frames");
    q = p, q.depth = 10, misfits(q, "depth 10");
    q = p, q.codec = "ffv1", misfits(q, "ffv1");
    q = p, q.width = 23, misfits(q, "size 23x16");
    q = p, q.format = TSR_FORMAT_MP4, misfits(q, "format mp4");
    q = p, q.resume = "model a\nlatent b\nnote budget 18\n"; /* notes are not compared */
    char *note = tsr_writer_recall(&q, "budget");
    cr_assert_str_eq(note, "17");
    free(note);
    cr_assert_null(tsr_writer_recall(&q, "model"));
    cr_assert_eq(stretch(&q, 5, &done), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(done, 2);
    cr_assert_null(tsr_writer_recall(&q, "budget"));
}

static void expect_note(const tsr_writer_params *p, const char *name, const char *value) {
    char *note = tsr_writer_recall(p, name);
    cr_assert(note && strcmp(note, value) == 0, "%s: %s", name, note ? note : "none");
    free(note);
}

/* Notes that come while frames do: the last of a name counts, one that was cut off does not. */
Test(resume, the_last_note_counts) {
    const tsr_writer_params p = params_of("notes.y4m", 6);
    char *journal = tsr_format_text("%s.resume", p.path);
    tsr_writer *w;
    int64_t done;
    cr_assert_eq(stretch(&p, 2, &done), TSR_OK, "%s", tsr_last_error());
    expect_note(&p, "budget", "17");
    cr_assert_eq(tsr_writer_open(&w, &p), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(tsr_writer_note(w, "budget", "18 2 3"), TSR_OK);
    cr_assert_eq(put(w, p.first + 2), TSR_OK);
    cr_assert_eq(tsr_writer_note(w, "budget", "19"), TSR_OK);
    cr_assert_eq(tsr_writer_note(w, "budget-2", "20"), TSR_OK);
    tsr_writer_close(&w);
    expect_note(&p, "budget", "19");
    expect_note(&p, "budget-2", "20");
    cr_assert_null(tsr_writer_recall(&p, "bud"));
    FILE *f = fopen(journal, "a");
    cr_assert(f && fputs("note budget 2", f) >= 0 && fclose(f) == 0);
    expect_note(&p, "budget", "19");
    cr_assert_eq(stretch(&p, 6, &done), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(done, 3);
    cr_assert(equal(p.path, written_at_once("no_notes.y4m", 6, NULL)));
    free(journal);
}

Test(resume, what_the_journal_speaks_of_must_be_there) {
    static const char *const suffix[] = {"y4m", "npy", "mp4"};
    for (int i = 0; i < 3; i++) {
        char name[64], data[64];
        int64_t done;
        snprintf(name, sizeof name, "gone%d.%s", i, suffix[i]);
        snprintf(data, sizeof data, "%s.%s", name, i < 2 ? "part" : "parts");
        tsr_writer_params p = params_of(name, 5);
        cr_assert_eq(stretch(&p, 3, &done), TSR_OK);
        cr_assert_eq(truncate(temp_path(data), 100), 0);
        misfits(p, data);
        cr_assert_eq(unlink(temp_path(data)), 0);
        cr_assert_neq(stretch(&p, 5, &done), TSR_OK);
        cr_assert(strstr(tsr_last_error(), data), "%s", tsr_last_error());
    }
}

/* A render that does not go on writes over what the journal speaks of: then it speaks of nothing. */
Test(resume, without_the_option_the_journal_goes) {
    tsr_writer_params p = params_of("anew.y4m", 4), q = p;
    int64_t done;
    q.resume = NULL;
    cr_assert_eq(stretch(&p, 3, &done), TSR_OK);
    cr_assert_eq(stretch(&q, 1, &done), TSR_OK);
    nothing_left(p.path);
    spill(temp_path("anew.y4m.resume"), "my own file\n", 12);
    cr_assert_eq(stretch(&q, 4, &done), TSR_OK);
    cr_assert(exists(p.path, ".resume"), "a file that is no journal was removed");
    q = params_of("other.y4m", 4);
    spill(temp_path("other.y4m.resume"), "my own file\n", 12);
    misfits(q, "is no journal");
    cr_assert_eq(unlink(temp_path("other.y4m.resume")), 0);
    cr_assert_eq(symlink("anew.y4m.resume", temp_path("other.y4m.resume")), 0);
    cr_assert_neq(stretch(&q, 4, &done), TSR_OK);
    q.path = "/dev/null", q.format = TSR_FORMAT_Y4M;
    cr_assert_eq(stretch(&q, 4, &done), TSR_ERR_ARGUMENT);
    q.path = "-";
    cr_assert_eq(stretch(&q, 4, &done), TSR_ERR_ARGUMENT);
}

static uint32_t roll(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Damage of every kind: bytes changed, cut, doubled, numbers put in. */
static size_t damage(char *text, size_t n, uint32_t *seed) {
    static const char *const lines[] = {"whole\n", "4 0 0\n", "5 5 99999999\n", "-1 0 0\n", "9223372036854775807 0 0\n",
        "3 2 1 0\n", "3 0 -5\n", "0 0 0\n", "5 0 18446744073709551616\n", "begin\n", "\n", "3 0 0", "note x\n",
        "tessera resume 1\n"};
    switch (roll(seed) % 4) {
    case 0:
        for (uint32_t k = roll(seed) % 3 + 1; k; k--)
            text[roll(seed) % n] = (char)roll(seed);
        return n;
    case 1:
        return roll(seed) % n;
    case 2: {
        size_t from = roll(seed) % n, m = roll(seed) % (n - from) + 1;
        memmove(text + n, text + from, m);
        return n + m;
    }
    default: {
        const char *line = lines[roll(seed) % (sizeof lines / sizeof *lines)];
        memcpy(text + n, line, strlen(line));
        return n + strlen(line);
    }
    }
}

/* Whatever a journal, a part or parts hold: either what comes out is right, or it is refused. */
static void fuzz(const char *suffix, const char *victim, int rounds) {
    char name[64], other[64];
    snprintf(name, sizeof name, "fuzz.%s", suffix);
    snprintf(other, sizeof other, "fuzz_at_once.%s", suffix);
    tsr_writer_params p = params_of(name, 5);
    const char *at_once = written_at_once(other, 5, NULL);
    int refused = 0;
    for (int i = 0; i < rounds; i++) {
        char path[4000];
        uint32_t seed = (uint32_t)i * 2654435761u + 1;
        int64_t done;
        size_t n;
        cr_assert_eq(stretch(&p, 3, &done), TSR_OK, "%s", tsr_last_error());
        snprintf(path, sizeof path, "%s.%s", p.path, victim);
        char *text = slurp(path, &n);
        cr_assert(text && n > 0);
        spill(path, text, damage(text, n, &seed));
        if (stretch(&p, 5, &done) == TSR_OK)
            cr_assert(equal(p.path, at_once), "%s, round %d: something else came out", path, i);
        else
            refused++;
        tsr_journal_discard(p.path);
        unlink(p.path);
        snprintf(path, sizeof path, "%s.resume", p.path);
        unlink(path);
    }
    cr_assert(refused > rounds / 8 && refused < rounds, "%s: %d of %d refused", suffix, refused, rounds);
}

Test(resume, damaged_journals) {
    fuzz("y4m", "resume", 120);
    fuzz("mkv", "resume", 60);
}

Test(resume, damaged_parts) {
    fuzz("mp4", "parts", 60);
}

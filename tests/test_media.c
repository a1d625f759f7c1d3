/* Every writer, read back by another reader: libav, libpng's simplified interface, bytes by hand.
 */
#include "formats/tensor_file.h"
#include "media/media.h"
#include "media/yuv.h"
#include "temp.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <png.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- files and frames to write */

static void setup(void) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

TestSuite(media, .init = setup);

static bool exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

static int files_in_folder(void) {
    DIR *d = opendir(temp_path("."));
    cr_assert(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* Eight flat patches side by side, moved on by one each frame: the colours video gets wrong first.
 */
static const uint8_t colours[8][3] = {
    {255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {255, 255, 255}, {0, 0, 0}, {128, 128, 128}, {200, 60, 30}, {30, 90, 180}};

static const uint8_t *colour_at(int x, int width, int64_t frame) {
    return colours[(x * 8 / width + frame) % 8];
}

static void *patches(tsr_pixels pixels, int width, int height, int64_t index) {
    uint8_t *data = malloc(tsr_pixels_bytes(pixels, width, height));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                size_t i = ((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)c;
                uint8_t v = colour_at(x, width, index)[c];
                if (pixels == TSR_PIXELS_RGB8)
                    data[i] = v;
                else
                    ((uint16_t *)data)[i] = (uint16_t)(v * 257);
            }
    return data;
}

/* Every value its own, so that a swap of any two is seen. */
static void *noise(tsr_pixels pixels, int width, int height, int64_t index) {
    size_t n = (size_t)width * (size_t)height * 3;
    uint8_t *data = malloc(tsr_pixels_bytes(pixels, width, height));
    uint32_t seed = (uint32_t)index * 77777 + 1;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        if (pixels == TSR_PIXELS_RGB8)
            data[i] = (uint8_t)(seed >> 24);
        else if (pixels == TSR_PIXELS_RGB16)
            ((uint16_t *)data)[i] = (uint16_t)(seed >> 16);
        else
            ((float *)data)[i] = (float)(int32_t)seed * 0x1p-30f;
    }
    return data;
}

typedef void *(*make_fn)(tsr_pixels pixels, int width, int height, int64_t index);

static tsr_status put(tsr_writer *w, const tsr_writer_params *p, int64_t index, make_fn make) {
    tsr_pixels pixels = tsr_writer_pixels(w);
    void *data = make(pixels, p->width, p->height, index);
    tsr_status status = tsr_writer_frame(
        w, &(tsr_frame){index, p->width, p->height, pixels, data, tsr_pixels_bytes(pixels, p->width, p->height)});
    free(data);
    return status;
}

static tsr_status write_all(const tsr_writer_params *p, int64_t frames, make_fn make) {
    tsr_writer *w;
    tsr_status status;
    TSR_TRY(tsr_writer_open(&w, p));
    for (int64_t i = 0; i < frames; i++)
        TSR_TRY(put(w, p, p->first + i, make));
    TSR_TRY(tsr_writer_finish(w));
error:
    tsr_writer_close(&w);
    return status;
}

static void must_write(const tsr_writer_params *p, int64_t frames, make_fn make) {
    tsr_status status = write_all(p, frames, make);
    cr_assert(status == TSR_OK, "%s: %s", p->path, tsr_last_error());
}

static uint8_t *slurp(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s", path);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*size + 1);
    cr_assert(fread(data, 1, *size, f) == *size);
    data[*size] = 0;
    fclose(f);
    return data;
}

/* ---------------------------------------------------------------- video, read back */

struct expected {
    int frames;
    AVRational fps;
    enum AVCodecID codec;
    enum AVPixelFormat pixels;
    double tolerance; /* of a patch's colour, in 8-bit levels */
    bool untagged;    /* y4m: range and siting only */
};

/* BT.709 limited range to RGB, by the definition; levels of 8 bits. */
static void to_rgb(double y, double cb, double cr, int depth, double rgb[3]) {
    double one = 1 << (depth - 8), luma = (y / one - 16) / 219, u = (cb / one - 128) / 224, v = (cr / one - 128) / 224;
    rgb[0] = 255 * (luma + 1.5748 * v);
    rgb[1] = 255 * (luma - 0.1873 * u - 0.4681 * v);
    rgb[2] = 255 * (luma + 1.8556 * u);
}

static double sample(const AVFrame *f, int plane, int x, int y, int depth) {
    const uint8_t *row = f->data[plane] + (ptrdiff_t)y * f->linesize[plane];
    return depth > 8 ? row[2 * x] + 256 * row[2 * x + 1] : row[x];
}

/* The middle of every patch, where neither siting nor the codec's blocks blur it. */
static void check_patches(const AVFrame *f, int64_t index, double tolerance, const char *path) {
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    for (int i = 0; i < 8; i++) {
        int x = (2 * i + 1) * f->width / 16, y = f->height / 2, cx = x >> d->log2_chroma_w, cy = y >> d->log2_chroma_h;
        int depth = d->comp[0].depth;
        const uint8_t *want = colour_at(x, f->width, index);
        double rgb[3];
        to_rgb(sample(f, 0, x, y, depth), sample(f, 1, cx, cy, depth), sample(f, 2, cx, cy, depth), depth, rgb);
        for (int c = 0; c < 3; c++)
            cr_assert(fabs(fmin(fmax(rgb[c], 0), 255) - want[c]) <= tolerance,
                "%s, frame %lld, patch %d: %.1f %.1f %.1f, expected %d %d %d", path, (long long)index, i, rgb[0],
                rgb[1], rgb[2], want[0], want[1], want[2]);
    }
}

static void check_tags(const AVCodecParameters *c, const struct expected *e, const char *path) {
    cr_assert_eq(c->color_range, AVCOL_RANGE_MPEG, "%s", path);
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(c->format);
    if (d->log2_chroma_w && !(e->untagged && d->comp[0].depth == 10)) /* C420p10 says nothing; left is the default */
        cr_assert_eq(c->chroma_location, AVCHROMA_LOC_LEFT, "%s: %d", path, c->chroma_location);
    if (e->untagged)
        return;
    cr_assert_eq(c->color_space, AVCOL_SPC_BT709, "%s", path);
    cr_assert_eq(c->color_primaries, AVCOL_PRI_BT709, "%s", path);
    cr_assert_eq(c->color_trc, AVCOL_TRC_BT709, "%s", path);
}

static void check_video(const tsr_writer_params *p, const struct expected *e) {
    AVFormatContext *in = NULL;
    cr_assert(avformat_open_input(&in, p->path, NULL, NULL) == 0, "%s", p->path);
    cr_assert(avformat_find_stream_info(in, NULL) >= 0);
    cr_assert_eq(in->nb_streams, 1);
    const AVStream *s = in->streams[0];
    const AVCodecParameters *c = s->codecpar;
    cr_assert(c->codec_id == e->codec && c->width == p->width && c->height == p->height, "%s: %s %dx%d", p->path,
        avcodec_get_name(c->codec_id), c->width, c->height);
    cr_assert(c->format == (int)e->pixels, "%s: %s", p->path, av_get_pix_fmt_name(c->format));
    cr_assert(
        av_cmp_q(s->avg_frame_rate, e->fps) == 0, "%s: %d/%d", p->path, s->avg_frame_rate.num, s->avg_frame_rate.den);
    check_tags(c, e, p->path);

    AVCodecContext *decoder = avcodec_alloc_context3(avcodec_find_decoder(c->codec_id));
    avcodec_parameters_to_context(decoder, c);
    cr_assert(avcodec_open2(decoder, NULL, NULL) == 0);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int64_t n = 0;
    for (bool end = false; !end;) {
        end = av_read_frame(in, packet) < 0;
        cr_assert(avcodec_send_packet(decoder, end ? NULL : packet) >= 0);
        av_packet_unref(packet);
        while (avcodec_receive_frame(decoder, frame) >= 0) {
            double at = (double)frame->best_effort_timestamp * av_q2d(s->time_base), due = (double)n / av_q2d(e->fps);
            double tick = strstr(in->iformat->name, "matroska") ? 0.0006 : 1e-6; /* Matroska counts milliseconds */
            cr_assert(fabs(at - due) < tick, "%s: frame %lld at %f s, due at %f s", p->path, (long long)n, at, due);
            check_patches(frame, p->first + n++, e->tolerance, p->path);
        }
    }
    cr_assert_eq(n, e->frames, "%s: %lld frames", p->path, (long long)n);
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&decoder);
    avformat_close_input(&in);
}

static void round_trip(tsr_writer_params p, struct expected e) {
    p.frames = e.frames;
    must_write(&p, e.frames, patches);
    cr_assert_eq(files_in_folder(), 1, "%s left something beside itself", p.path);
    check_video(&p, &e);
    cr_assert(remove(p.path) == 0);
}

/* Defaults first, then what a case says. */
#pragma GCC diagnostic ignored "-Woverride-init"
#define WRITER(...)                                                                                                    \
    (tsr_writer_params) {                                                                                              \
        .fps = 24, .crf = -1, .depth = 8, .width = 128, .height = 64, __VA_ARGS__                                      \
    }

/* An 8-bit code of Cb is 2.1 levels of blue: half a code, and half one of luma, are 1.6 levels off
 * at worst. The encoders add nothing at a low crf and a little at the default. */
Test(media, mp4_mkv_webm_y4m_are_what_they_say) {
    AVRational film = {24000, 1001}, half = {25, 2}, whole = {24, 1};
    round_trip(WRITER(.path = temp_path("a.mp4"), .crf = 2, .fps = 23.976),
        (struct expected){13, film, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 2, false});
    round_trip(WRITER(.path = temp_path("a.mp4"), .crf = 2, .depth = 10),
        (struct expected){5, whole, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P10LE, 1, false});
    round_trip(WRITER(.path = temp_path("a.mkv"), .crf = 2, .fps = 12.5, .first = 7),
        (struct expected){5, half, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 2, false});
    round_trip(WRITER(.path = temp_path("a.webm"), .crf = 2),
        (struct expected){5, whole, AV_CODEC_ID_VP9, AV_PIX_FMT_YUV420P, 2, false});
    round_trip(WRITER(.path = temp_path("a.y4m"), .fps = 59.94),
        (struct expected){3, {60000, 1001}, AV_CODEC_ID_RAWVIDEO, AV_PIX_FMT_YUV420P, 1.7, true});
    round_trip(WRITER(.path = temp_path("a.y4m"), .depth = 10),
        (struct expected){3, whole, AV_CODEC_ID_RAWVIDEO, AV_PIX_FMT_YUV420P10LE, 0.5, true});
}

Test(media, codecs_by_name_and_by_default) {
    AVRational fps = {24, 1};
    round_trip(
        WRITER(.path = temp_path("a.mp4")), (struct expected){5, fps, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 5, false});
    round_trip(WRITER(.path = temp_path("a.webm"), .depth = 10),
        (struct expected){5, fps, AV_CODEC_ID_VP9, AV_PIX_FMT_YUV420P10LE, 5, false});
    if (avcodec_find_encoder_by_name("libx265"))
        round_trip(WRITER(.path = temp_path("a.mp4"), .codec = "libx265", .crf = 2, .depth = 10),
            (struct expected){5, fps, AV_CODEC_ID_HEVC, AV_PIX_FMT_YUV420P10LE, 1, false});
    round_trip(WRITER(.path = temp_path("a.mkv"), .codec = "ffv1"),
        (struct expected){3, fps, AV_CODEC_ID_FFV1, AV_PIX_FMT_YUV420P, 1.7, false});
}

Test(media, odd_sizes_and_one_frame) {
    AVRational fps = {24, 1};
    round_trip(WRITER(.path = temp_path("a.mp4"), .crf = 2, .width = 127, .height = 63),
        (struct expected){3, fps, AV_CODEC_ID_H264, AV_PIX_FMT_YUV444P, 2, false});
    round_trip(WRITER(.path = temp_path("a.webm"), .crf = 2, .width = 127, .height = 63),
        (struct expected){3, fps, AV_CODEC_ID_VP9, AV_PIX_FMT_YUV420P, 2, false});
    round_trip(WRITER(.path = temp_path("a.y4m"), .width = 127, .height = 63),
        (struct expected){3, fps, AV_CODEC_ID_RAWVIDEO, AV_PIX_FMT_YUV420P, 1.7, true});
    round_trip(WRITER(.path = temp_path("a.mp4"), .crf = 2, .width = 1, .height = 1),
        (struct expected){1, fps, AV_CODEC_ID_H264, AV_PIX_FMT_YUV444P, 4, false});
}

Test(media, the_index_of_an_mp4_is_in_front) {
    tsr_writer_params p = WRITER(.path = temp_path("a.mp4"));
    must_write(&p, 3, patches);
    size_t size;
    uint8_t *data = slurp(p.path, &size);
    const uint8_t *moov = memmem(data, size, "moov", 4), *mdat = memmem(data, size, "mdat", 4);
    cr_assert(moov && mdat && moov < mdat);
    free(data);
}

Test(media, the_same_frames_make_the_same_file) {
    static const char *const name[] = {"mp4", "mkv", "webm", "y4m", "png"};
    for (int i = 0; i < 5; i++) {
        size_t size[2];
        uint8_t *data[2];
        for (int k = 0; k < 2; k++) {
            tsr_writer_params p = WRITER(.path = temp_path(name[i]), .overwrite = k == 1);
            cr_assert(tsr_format_from_name(name[i], &p.format));
            must_write(&p, i == 4 ? 1 : 3, noise);
            data[k] = slurp(p.path, &size[k]);
        }
        cr_assert(size[0] == size[1] && memcmp(data[0], data[1], size[0]) == 0, "%s", name[i]);
        free(data[0]);
        free(data[1]);
    }
}

/* Red up to x = 2, blue from x = 3: the chroma sample at 2 is a quarter blue where it is sited
 * left. */
Test(media, chroma_is_sited_left) {
    uint8_t rgb[2][6][3] = {0};
    tsr_yuv y;
    for (int i = 0; i < 12; i++)
        rgb[i / 6][i % 6][i % 6 < 3 ? 0 : 2] = 255;
    for (int f = 0; f < 2; f++) {
        cr_assert_eq(tsr_yuv_init(&y, 6, 2, f ? AV_PIX_FMT_YUV422P : AV_PIX_FMT_YUV420P), TSR_OK);
        cr_assert_eq(tsr_yuv_convert(&y, &(tsr_frame){0, 6, 2, TSR_PIXELS_RGB8, rgb, sizeof rgb}), TSR_OK);
        const uint8_t want[3] = {102, 137, 240}; /* Cb of red 102.3, of blue 240 */
        for (int row = 0; row <= f; row++)
            cr_assert(memcmp(y.frame->data[1] + row * y.frame->linesize[1], want, 3) == 0, "%d %d %d",
                y.frame->data[1][0], y.frame->data[1][1], y.frame->data[1][2]);
        tsr_yuv_free(&y);
    }
}

Test(media, frame_rates_become_fractions) {
    static const struct {
        double fps;
        int num, den;
    } cases[] = {{24, 24, 1}, {25, 25, 1}, {23.976, 24000, 1001}, {23.98, 24000, 1001}, {24000 / 1001., 24000, 1001},
        {29.97, 30000, 1001}, {59.94, 60000, 1001}, {119.88, 120000, 1001}, {12.5, 25, 2}, {15, 15, 1}, {1 / 3., 1, 3},
        {0.5, 1, 2}, {8, 8, 1}, {1000, 1000, 1}, {16.67, 1667, 100}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int num, den;
        tsr_fps_fraction(cases[i].fps, &num, &den);
        cr_assert(num == cases[i].num && den == cases[i].den, "%g: %d/%d", cases[i].fps, num, den);
    }
}

/* ---------------------------------------------------------------- pictures */

static void check_png(const char *path, const tsr_writer_params *p, int64_t index) {
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s", path);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, f);
    png_read_png(png, info, p->depth == 16 ? PNG_TRANSFORM_SWAP_ENDIAN : PNG_TRANSFORM_IDENTITY, NULL);
    int intent;
    cr_assert(png_get_sRGB(png, info, &intent) != 0, "%s has no sRGB chunk", path);
    cr_assert(png_get_image_width(png, info) == (png_uint_32)p->width &&
              png_get_image_height(png, info) == (png_uint_32)p->height);
    cr_assert(png_get_bit_depth(png, info) == p->depth && png_get_color_type(png, info) == PNG_COLOR_TYPE_RGB);
    tsr_pixels pixels = p->depth == 16 ? TSR_PIXELS_RGB16 : TSR_PIXELS_RGB8;
    uint8_t *want = noise(pixels, p->width, p->height, index);
    size_t row = tsr_pixels_bytes(pixels, p->width, 1);
    for (int y = 0; y < p->height; y++)
        cr_assert(memcmp(png_get_rows(png, info)[y], want + (size_t)y * row, row) == 0, "%s, row %d", path, y);
    free(want);
    png_destroy_read_struct(&png, &info, NULL);
    fclose(f);
}

Test(media, png_is_exact) {
    for (int depth = 8; depth <= 16; depth += 8) {
        tsr_writer_params p = WRITER(.path = temp_path(depth == 8 ? "8.png" : "16.PNG"), .frames = 1, .width = 37,
            .height = 21, .depth = depth);
        must_write(&p, 1, noise);
        check_png(p.path, &p, 0);
    }
    cr_assert_eq(files_in_folder(), 2);
}

Test(media, numbered_pictures_carry_their_frame) {
    tsr_writer_params p =
        WRITER(.path = temp_path("50%%-%03d.png"), .frames = 3, .first = 9, .width = 37, .height = 21);
    must_write(&p, 3, noise);
    check_png(temp_path("50%-009.png"), &p, 9);
    check_png(temp_path("50%-011.png"), &p, 11);
    cr_assert_eq(files_in_folder(), 3);
    cr_assert_eq(write_all(&p, 3, noise), TSR_ERR_IO, "existing pictures were overwritten");
    p.first = 11;
    cr_assert_eq(write_all(&p, 3, noise), TSR_ERR_IO, "an existing picture was overwritten");
    p.first = 12;
    must_write(&p, 3, noise);
    cr_assert_eq(files_in_folder(), 6);
}

Test(media, pictures_that_are_whole_stay_where_a_render_stops) {
    tsr_writer_params p = WRITER(.path = temp_path("%d.png"), .frames = 3);
    tsr_writer *w;
    cr_assert_eq(tsr_writer_open(&w, &p), TSR_OK);
    cr_assert_eq(put(w, &p, 0, noise), TSR_OK);
    cr_assert(exists(temp_path("0.png")), "a picture appears when it is whole");
    tsr_writer_close(&w);
    cr_assert_eq(files_in_folder(), 1);
}

Test(media, bad_patterns_are_refused) {
    static const char *const bad[] = {"%s.png", "%d%d.png", "%.png", "100%.png", "%5.png", "%0100d.png", "%-5d.png",
        "%ld.png", "%05d-%05d.png", "%d/a.png", "%n.png"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tsr_writer *w;
        cr_assert_eq(
            tsr_writer_open(&w, &WRITER(.path = temp_path(bad[i]), .frames = 2)), TSR_ERR_ARGUMENT, "%s", bad[i]);
        cr_assert(strstr(tsr_last_error(), bad[i]), "%s", tsr_last_error());
    }
    static const char *const good[] = {"%d.png", "%5d.png", "%05d.png", "a%%b%02dc.png"};
    static const char *const name[] = {"7.png", "00007.png", "00007.png", "a%b07c.png"};
    for (int i = 0; i < 4; i++) {
        char *s = tsr_pattern_name(good[i], 7);
        cr_assert_str_eq(s, name[i]);
        free(s);
    }
}

/* ---------------------------------------------------------------- raw and tensors */

Test(media, raw_frames_are_the_bytes) {
    for (int deep = 0; deep < 2; deep++) {
        tsr_pixels pixels = deep ? TSR_PIXELS_RGB16 : TSR_PIXELS_RGB8;
        tsr_writer_params p =
            WRITER(.path = temp_path(deep ? "48" : "24"), .format = deep ? TSR_FORMAT_RGB48 : TSR_FORMAT_RGB24);
        must_write(&p, 3, noise);
        size_t size, frame = tsr_pixels_bytes(pixels, p.width, p.height);
        uint8_t *data = slurp(p.path, &size);
        cr_assert_eq(size, 3 * frame);
        for (int i = 0; i < 3; i++) {
            void *want = noise(pixels, p.width, p.height, i);
            cr_assert(memcmp(data + (size_t)i * frame, want, frame) == 0);
            free(want);
        }
        free(data);
    }
    tsr_writer_params p = WRITER(.format = TSR_FORMAT_NULL);
    must_write(&p, 3, noise);
}

Test(media, tensors_are_exact_and_channels_first) {
    for (int npy = 0; npy < 2; npy++) {
        tsr_writer_params p = WRITER(.path = temp_path(npy ? "a.npy" : "a.safetensors"), .frames = 4, .first = 3,
            .width = 19, .height = 7);
        must_write(&p, 4, noise);
        tsr_tensor_file *f;
        cr_assert_eq(tsr_tensor_file_open(&f, p.path), TSR_OK, "%s", tsr_last_error());
        cr_assert_eq(tsr_tensor_file_count(f), 1);
        const tsr_tensor *t = tsr_tensor_file_find(f, npy ? "" : "video");
        cr_assert(t && t->dtype == TSR_F32 && t->ndim == 4);
        cr_assert(t->dim[0] == 3 && t->dim[1] == 4 && t->dim[2] == 7 && t->dim[3] == 19);
        size_t plane = 19 * 7 * sizeof(float);
        for (int i = 0; i < 4; i++) {
            char *want = noise(TSR_PIXELS_RGB_F32, 19, 7, 3 + i);
            for (size_t c = 0; c < 3; c++)
                cr_assert(memcmp((const char *)t->data + (c * 4 + (size_t)i) * plane, want + c * plane, plane) == 0,
                    "frame %d channel %zu", i, c);
            free(want);
        }
        tsr_tensor_file_close(&f);
    }
}

/* ---------------------------------------------------------------- what goes wrong */

static void must_fail(tsr_writer_params p, tsr_status want, const char *word) {
    int before = files_in_folder();
    tsr_writer *w = (tsr_writer *)&p;
    tsr_status status = tsr_writer_open(&w, &p);
    cr_assert(status == want && !w, "%s: status %d: %s", p.path, status, tsr_last_error());
    cr_assert(strstr(tsr_last_error(), word), "\"%s\" does not name %s", tsr_last_error(), word);
    cr_assert_eq(files_in_folder(), before, "%s left something behind", p.path);
}

Test(media, what_can_be_checked_is_checked_before_decoding) {
    must_fail(WRITER(.path = temp_path("nowhere/a.mp4")), TSR_ERR_IO, "nowhere");
    must_fail(WRITER(.path = temp_path("nowhere/%d.png")), TSR_ERR_IO, "nowhere");
    must_fail(WRITER(.path = temp_path("."), .format = TSR_FORMAT_Y4M), TSR_ERR_IO, "folder");
    must_fail(WRITER(.path = "/proc/a.y4m"), TSR_ERR_IO, "/proc");
    must_fail(WRITER(.path = temp_path("a.avi")), TSR_ERR_ARGUMENT, "suffix");
    must_fail(WRITER(.path = temp_path("mp4")), TSR_ERR_ARGUMENT, "suffix");
    must_fail(WRITER(.path = "-"), TSR_ERR_ARGUMENT, "format");
    must_fail(WRITER(.path = NULL, .format = TSR_FORMAT_MP4), TSR_ERR_ARGUMENT, "mp4");
    must_fail(WRITER(.path = ""), TSR_ERR_ARGUMENT, "suffix");
    must_fail(WRITER(.path = temp_path("a.png"), .frames = 2), TSR_ERR_ARGUMENT, "%05d");
    must_fail(WRITER(.path = temp_path("a.npy")), TSR_ERR_ARGUMENT, "a.npy");
    must_fail(WRITER(.path = temp_path("a.mp4"), .codec = "nonesuch"), TSR_ERR_ARGUMENT, "nonesuch");
    must_fail(WRITER(.path = temp_path("a.mp4"), .codec = "aac"), TSR_ERR_ARGUMENT, "aac");
    must_fail(WRITER(.path = temp_path("a.webm"), .codec = "libx264"), TSR_ERR_ARGUMENT, "libx264");
    must_fail(WRITER(.path = temp_path("a.mkv"), .codec = "ffv1", .crf = 10), TSR_ERR_ARGUMENT, "crf");
    must_fail(WRITER(.path = temp_path("a.mkv"), .codec = "mpeg4", .depth = 10), TSR_ERR_ARGUMENT, "mpeg4");
    must_fail(WRITER(.path = temp_path("a.mkv"), .codec = "mpeg4", .width = 127), TSR_ERR_ARGUMENT, "odd");
    must_fail(WRITER(.path = temp_path("a.mp4"), .depth = 12), TSR_ERR_ARGUMENT, "12");
    must_fail(WRITER(.path = temp_path("a.mp4"), .depth = 16), TSR_ERR_ARGUMENT, "16");
    must_fail(WRITER(.path = temp_path("a.png"), .depth = 10), TSR_ERR_ARGUMENT, "10");
    must_fail(WRITER(.path = temp_path("a.npy"), .depth = 10, .frames = 1), TSR_ERR_ARGUMENT, "10");
    must_fail(WRITER(.path = temp_path("a.mp4"), .crf = 64), TSR_ERR_ARGUMENT, "64");
    must_fail(WRITER(.path = temp_path("a.mp4"), .width = 0), TSR_ERR_ARGUMENT, "0x64");
    must_fail(WRITER(.path = temp_path("a.npy"), .frames = INT32_MAX, .width = 65536, .height = 65536),
        TSR_ERR_ARGUMENT, "large");
    must_fail(WRITER(.path = temp_path("a.mp4"), .fps = 0), TSR_ERR_ARGUMENT, "rate");
    must_fail(WRITER(.path = temp_path("a.mp4"), .fps = NAN), TSR_ERR_ARGUMENT, "rate");
    must_fail(WRITER(.path = temp_path("a.mp4"), .frames = -1), TSR_ERR_ARGUMENT, "frames");
}

static const char *const every[] = {"a.mp4", "a.mkv", "a.webm", "a.y4m", "a.npy", "a.safetensors", "a.png"};
enum { EVERY = sizeof every / sizeof *every };

Test(media, existing_outputs_stay_until_the_new_one_is_whole) {
    for (int i = 0; i < EVERY; i++) {
        tsr_writer_params p = WRITER(.path = temp_path(every[i]), .frames = 1);
        FILE *f = fopen(p.path, "w");
        fputs("precious", f);
        fclose(f);
        must_fail(p, TSR_ERR_IO, p.path);
        p.overwrite = true;
        tsr_writer *w;
        cr_assert_eq(tsr_writer_open(&w, &p), TSR_OK, "%s", tsr_last_error());
        cr_assert_eq(put(w, &p, 0, noise), TSR_OK);
        tsr_writer_close(&w); /* interrupted */
        size_t size;
        uint8_t *data = slurp(p.path, &size);
        cr_assert_str_eq((char *)data, "precious");
        free(data);
        cr_assert_eq(files_in_folder(), i + 1, "%s left a part file", p.path);
        must_write(&p, 1, noise);
        cr_assert_eq(files_in_folder(), i + 1);
    }
}

Test(media, a_part_file_is_used_again_but_never_shared) {
    tsr_writer_params p = WRITER(.path = temp_path("a.y4m"));
    tsr_writer *first, *second;
    FILE *f = fopen(temp_path("a.y4m.part"), "w"); /* of a killed render */
    for (int i = 0; i < 100000; i++)
        fputs("rubbish", f);
    fclose(f);
    cr_assert_eq(tsr_writer_open(&first, &p), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(tsr_writer_open(&second, &p), TSR_ERR_IO);
    cr_assert_eq(put(first, &p, 0, patches), TSR_OK);
    cr_assert_eq(tsr_writer_finish(first), TSR_OK);
    tsr_writer_close(&first);
    check_video(&p, &(struct expected){1, {24, 1}, AV_CODEC_ID_RAWVIDEO, AV_PIX_FMT_YUV420P, 1.5, true});
}

Test(media, links_keep_pointing_and_fifos_are_written_in_place) {
    tsr_writer_params p = WRITER(.path = temp_path("link.y4m"), .overwrite = true);
    FILE *f = fopen(temp_path("real.y4m"), "w");
    fclose(f);
    cr_assert(symlink("real.y4m", p.path) == 0);
    must_write(&p, 1, patches);
    struct stat st;
    cr_assert(lstat(p.path, &st) == 0 && S_ISLNK(st.st_mode), "the link was replaced");
    cr_assert(stat(p.path, &st) == 0 && st.st_size > 0);

    p = WRITER(.path = temp_path("fifo.mp4"), .crf = 2);
    cr_assert(mkfifo(p.path, 0600) == 0);
    char command[7000];
    snprintf(command, sizeof command, "cat '%s' > '%s'", p.path, temp_path("copy.mp4"));
    FILE *reader = popen(command, "w");
    must_write(&p, 5, patches);
    cr_assert_eq(pclose(reader), 0);
    cr_assert(stat(p.path, &st) == 0 && S_ISFIFO(st.st_mode), "the fifo was replaced");
    p.path = temp_path("copy.mp4");
    check_video(&p, &(struct expected){5, {24, 1}, AV_CODEC_ID_H264, AV_PIX_FMT_YUV420P, 2, false});

    p = WRITER(.path = "/dev/null", .format = TSR_FORMAT_MKV);
    must_write(&p, 2, patches);
    cr_assert(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
    must_fail(WRITER(.path = temp_path("fifo.mp4"), .format = TSR_FORMAT_MKV, .depth = 9), TSR_ERR_ARGUMENT, "9");
}

/* Enough of every format that some write fails, be it the last. */
static void must_not_fit(const char *name, tsr_format format) {
    tsr_writer_params p = WRITER(.path = name, .format = format, .frames = 8, .width = 256, .height = 256);
    if (format == TSR_FORMAT_PNG)
        p.frames = 1;
    tsr_status status = write_all(&p, p.frames, noise);
    cr_assert(status == TSR_ERR_IO, "%s: status %d", name, status);
}

static const tsr_format every_format[EVERY] = {TSR_FORMAT_MP4, TSR_FORMAT_MKV, TSR_FORMAT_WEBM, TSR_FORMAT_Y4M,
    TSR_FORMAT_NPY, TSR_FORMAT_SAFETENSORS, TSR_FORMAT_PNG};

Test(media, a_full_disk_is_an_error_that_says_so) {
    for (int i = 0; i < EVERY; i++) {
        must_not_fit("/dev/full", every_format[i]);
        cr_assert(strstr(tsr_last_error(), strerror(ENOSPC)), "%s: %s", every[i], tsr_last_error());
        cr_assert(strstr(tsr_last_error(), "/dev/full"), "%s: %s", every[i], tsr_last_error());
    }
}

Test(media, a_file_that_stops_growing_never_gets_its_name) {
    static const rlim_t sizes[] = {0, 10, 1000, 60000}; /* the header, the first frame, the last packets */
    for (int i = 0; i < EVERY; i++)
        for (int k = 0; k < 4; k++) {
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){sizes[k], RLIM_INFINITY});
            must_not_fit(temp_path(every[i]), every_format[i]);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
            cr_assert(strstr(tsr_last_error(), strerror(EFBIG)), "%s: %s", every[i], tsr_last_error());
            cr_assert_eq(files_in_folder(), 0, "%s left something behind", every[i]);
        }
}

Test(media, a_closed_pipe_is_an_error) {
    int ends[2];
    cr_assert(pipe(ends) == 0);
    close(ends[0]);
    char path[32];
    snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
    must_not_fit(path, TSR_FORMAT_RGB24);
    must_not_fit(path, TSR_FORMAT_MKV);
    tsr_writer *w;
    cr_assert_eq(tsr_writer_open(&w, &WRITER(.path = path, .format = TSR_FORMAT_NPY, .frames = 1)), TSR_ERR_ARGUMENT);
}

Test(media, frames_that_do_not_fit_are_refused_and_incomplete_files_unnamed) {
    tsr_writer_params p = WRITER(.path = temp_path("a.y4m"), .frames = 3), other = p;
    tsr_writer *w;
    other.width = 64;
    cr_assert_eq(tsr_writer_open(&w, &p), TSR_OK);
    cr_assert_eq(put(w, &other, 0, noise), TSR_ERR_ARGUMENT);
    cr_assert_eq(put(w, &p, 1, noise), TSR_ERR_ARGUMENT, "a frame was skipped");
    cr_assert_eq(put(w, &p, 0, noise), TSR_OK);
    cr_assert_eq(put(w, &p, 0, noise), TSR_ERR_ARGUMENT, "a frame came twice");
    cr_assert_eq(tsr_writer_finish(w), TSR_ERR_IO);
    tsr_writer_close(&w);
    cr_assert_eq(files_in_folder(), 0);
    tsr_writer_close(&w);
}

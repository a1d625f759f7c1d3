/* tessera compare */
#include "cli.h"

#include <tessera/compare.h>

static const char *db_text(char buf[32], double db) {
    if (db > 1e3)
        snprintf(buf, 32, "equal");
    else
        snprintf(buf, 32, "%.2f dB", db);
    return buf;
}

static void frame_event(const tsr_difference *d) {
    json j;
    json_begin(&j, "frame");
    json_integer(&j, "frame", d->frame);
    json_number(&j, "psnr", d->psnr);
    json_number(&j, "ssim", d->ssim);
    json_number(&j, "largest", d->largest);
    json_end(&j);
}

static tsr_status on_frame(void *user, const tsr_difference *d) {
    const options *o = user;
    char db[32];
    if (interrupted())
        return TSR_ERR_CANCELLED;
    if (json_wanted())
        frame_event(d);
    else if (o->verbose)
        printf("frame %5lld  %10s  SSIM %.5f\n", (long long)d->frame, db_text(db, d->psnr), d->ssim);
    return TSR_OK;
}

static void say_comparison(const tsr_comparison *c, const options *o) {
    char db[32];
    printf("%lld frame%s of %dx%d\n", (long long)c->frames, plural(c->frames), c->width, c->height);
    printf("PSNR          %s\n", db_text(db, c->psnr));
    printf("SSIM          %.5f\n", c->ssim);
    if (c->largest == 0)
        return;
    printf("worst frame   %lld: %s, SSIM %.5f\n", (long long)c->worst.frame, db_text(db, c->worst.psnr), c->worst.ssim);
    printf("worst block   frame %lld, %dx%d at %d,%d: %s\n", (long long)c->block.frame, o->block, o->block,
        c->block.block_x, c->block.block_y, db_text(db, c->block.block_psnr));
    printf("largest       %.4f, %.1f of 255\n", c->largest, c->largest * 127.5);
    if (o->writer.path)
        printf("difference    %s, frame %lld times %g\n", o->writer.path, (long long)c->worst.frame, c->gain);
}

static void comparison_event(const tsr_comparison *c, const options *o) {
    json j;
    json_begin(&j, "compare");
    json_pair(&j, "size", c->width, c->height);
    json_integer(&j, "frames", c->frames);
    json_bool(&j, "equal", c->largest == 0);
    json_number(&j, "psnr", c->psnr);
    json_number(&j, "ssim", c->ssim);
    json_number(&j, "largest", c->largest);
    json_open(&j, "worst_frame");
    json_integer(&j, "frame", c->worst.frame);
    json_number(&j, "psnr", c->worst.psnr);
    json_number(&j, "ssim", c->worst.ssim);
    json_close(&j);
    json_open(&j, "worst_block");
    json_integer(&j, "frame", c->block.frame);
    json_pair(&j, "at", c->block.block_x, c->block.block_y);
    json_integer(&j, "side", o->block);
    json_number(&j, "psnr", c->block.block_psnr);
    json_close(&j);
    if (o->writer.path)
        json_text(&j, "output", o->writer.path);
    json_end(&j);
}

int cmd_compare(const options *o) {
    tsr_compare_params p = TSR_COMPARE_PARAMS_DEFAULT;
    tsr_comparison c;
    p.block = o->block;
    p.first = o->first;
    p.end = o->end;
    p.difference = o->writer.path;
    p.overwrite = o->writer.overwrite;
    p.on_frame = on_frame;
    p.user = (void *)o;
    int status = p.difference ? may_write(p.difference, &p.overwrite) : EXIT_OK;
    if (status != EXIT_OK)
        return status;
    catch_interrupts();
    tsr_status done = tsr_compare(o->args[0], o->args[1], &p, &c);
    if (interrupted())
        return failure(TSR_ERR_CANCELLED, "interrupted: compare; the rest was not looked at");
    status = failed(done);
    if (status == EXIT_OK && json_wanted())
        comparison_event(&c, o);
    else if (status == EXIT_OK)
        say_comparison(&c, o);
    return status;
}

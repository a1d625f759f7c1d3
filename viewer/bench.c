/* tessera bench */
#include "cli.h"

#include <string.h>
#include <tessera/bench.h>
#include <unistd.h>

static void op_event(const tsr_bench_op *op) {
    json j;
    json_begin(&j, "op");
    json_text(&j, "step", op->step);
    json_text(&j, "shape", op->shape);
    json_integer(&j, "count", op->count);
    json_number(&j, "seconds", op->seconds);
    json_number(&j, "share", op->share);
    json_number(&j, "flops", op->flops);
    json_number(&j, "bytes", op->bytes);
    json_number(&j, "ceiling", op->ceiling);
    json_number(&j, "copy", op->copy);
    json_end(&j);
}

/* A rate, or nothing where there is none. */
static void print_rate(double per_second, int width) {
    if (per_second > 0)
        printf(" %*.1f", width, per_second * 1e-9);
    else
        printf(" %*s", width, "");
}

/* What share of the ceiling a rate is, where there is one. */
static void print_share(double rate, double ceiling) {
    if (ceiling > 0 && rate > 0)
        printf(" %5.0f%%", 100 * rate / ceiling);
    else
        printf(" %6s", "");
}

static void on_op(void *user, const tsr_bench_op *op) {
    char *step = user; /* the one being printed */
    if (json_wanted()) {
        op_event(op);
        return;
    }
    if (strcmp(step, op->step) != 0) {
        printf("%s%s step\n%-48s %5s %10s %6s %9s %9s %6s %8s %8s %6s\n", *step ? "\n" : "", op->step, "", "count",
            "ms", "share", "GFLOP/s", "ceiling", "of it", "GB/s", "a copy", "of it");
        snprintf(step, 16, "%s", op->step);
    }
    double rate = op->seconds > 0 ? op->flops / op->seconds : 0,
           traffic = op->seconds > 0 ? op->bytes / op->seconds : 0;
    printf("%-48s %5d %10.3f %5.1f%%", op->shape, op->count, 1e3 * op->seconds, 100 * op->share);
    print_rate(rate, 9);
    print_rate(op->ceiling, 9);
    print_share(rate, op->ceiling);
    print_rate(traffic, 8);
    print_rate(op->copy, 8);
    print_share(traffic, op->copy);
    putchar('\n');
    fflush(stdout);
}

static void decode_event(const tsr_bench_decode *d) {
    json j;
    json_begin(&j, "decode");
    json_integer(&j, "frames", d->result.frames);
    json_pair(&j, "size", d->plan->width, d->plan->height);
    json_number(&j, "seconds", d->result.seconds);
    json_number(&j, "fastest", d->fastest);
    json_number(&j, "slowest", d->slowest);
    json_number(&j, "cold", d->cold);
    json_phases(&j, &d->result);
    json_integer(&j, "peak_bytes", d->result.peak_bytes);
    json_integer(&j, "planned_bytes", d->result.planned_bytes);
    json_number(&j, "flops", d->plan->flops);
    json_end(&j);
}

static void on_decode(void *user, const tsr_bench_decode *d) {
    say_plan(d->plan, user);
    if (json_wanted()) {
        decode_event(d);
        return;
    }
    const tsr_plan_info *p = d->plan;
    const tsr_result *r = &d->result;
    char peak[32], planned[32];
    printf("\ndecode of %lld frame%s of %dx%d, %s on %s\n", (long long)r->frames, plural(r->frames), p->width,
        p->height, tsr_precision_name(p->precision), p->device);
    printf("  %-10s %.3f s (%.3f to %.3f; the first %.3f, preparation included)\n", "median", r->seconds, d->fastest,
        d->slowest, d->cold);
    printf(
        "  %-10s %.2f frames/s, %.1f GFLOP/s\n", "rate", (double)r->frames / r->seconds, p->flops / r->seconds * 1e-9);
    printf("  %-10s prepare %.3f, decode %.3f, blend %.3f, write %.3f s; they overlap\n", "phases", r->prepare,
        r->decode, r->blend, r->write);
    printf("  %-10s peak %s, planned %s\n", "memory", bytes_text(peak, r->peak_bytes),
        bytes_text(planned, r->planned_bytes));
}

/* ---------------------------------------------------------------- a card that is not here */

static void on_card_decode(void *user, const tsr_card_decode *d) {
    const tsr_plan_info *p = d->plan;
    (void)user;
    if (json_wanted()) {
        json j;
        json_begin(&j, "predicted");
        json_text(&j, "device", p->device);
        json_text(&j, "precision", tsr_precision_name(p->precision));
        json_integer(&j, "frames", p->frames);
        json_pair(&j, "size", p->width, p->height);
        json_number(&j, "seconds", d->seconds);
        json_number(&j, "per_frame", d->per_frame);
        json_integer(&j, "planned_bytes", p->bytes.total);
        json_number(&j, "flops", p->flops);
        json_end(&j);
        return;
    }
    char planned[32];
    printf("\ndecode of %d frame%s of %dx%d, %s on %s, predicted\n", p->frames, plural(p->frames), p->width, p->height,
        tsr_precision_name(p->precision), p->device);
    printf("  %-10s %.2f ms, %.1f frames/s in the long run\n", "a frame", 1e3 * d->per_frame, 1 / d->per_frame);
    printf("  %-10s %.3f s; memory planned %s\n", "in all", d->seconds, bytes_text(planned, p->bytes.total));
}

static void print_assumptions(const tsr_card *c) {
    char memory[32], fp8[32] = "no fp8";
    if (c->fp8 > 0)
        snprintf(fp8, sizeof fp8, "%.0f in fp8", c->fp8 * 1e-12);
    printf("%s: a prediction, not measured\n", c->text);
    printf("assumed: %.0f TFLOP/s in 16 bits, %.0f in int8, %s, of which convolutions reach %.0f%%; %.0f GB/s, "
           "of which ops reach %.0f%%; %s; %.0f us a launch\n\n",
        c->rate16 * 1e-12, c->int8 * 1e-12, fp8, 100 * c->efficiency, c->bandwidth * 1e-9, 100 * TSR_CARD_BANDWIDTH,
        bytes_text(memory, c->memory), 1e6 * TSR_CARD_LAUNCH);
}

/* `--model 5090`: the usual model on a card of that name, unless there is such a file. */
static const tsr_card *card_meant(const options *o) {
    return o->model && access(o->model, F_OK) != 0 ? tsr_card_find(o->model) : NULL;
}

static int bench_card(const options *o, const tsr_card *card) {
    tsr_model *m = NULL;
    options usual = *o;
    tsr_bench_params p = TSR_BENCH_PARAMS_DEFAULT;
    char step[16] = "";
    usual.model = NULL;
    p.plan = o->plan;
    int status = open_model(&m, &usual);
    if (status == EXIT_OK)
        status = parse_extent(&p.extent, o->count ? o->args[0] : "1280x720x9", m);
    if (status == EXIT_OK && !json_wanted())
        print_assumptions(card);
    if (status == EXIT_OK)
        status = failed(tsr_bench_card(m, &p, card, on_op, on_card_decode, step));
    tsr_model_close(&m);
    return status;
}

int cmd_bench(const options *o) {
    const tsr_card *card = card_meant(o);
    if (card)
        return bench_card(o, card);
    tsr_model *m = NULL;
    tsr_engine *e = NULL;
    tsr_bench_params p = TSR_BENCH_PARAMS_DEFAULT;
    char step[16] = "";
    p.plan = o->plan;
    p.repetitions = o->repeat;
    int status = open_model(&m, o);
    if (status == EXIT_OK && o->count)
        status = parse_extent(&p.extent, o->args[0], m);
    if (status == EXIT_OK)
        status = create_engine(&e, o);
    catch_interrupts();
    if (status == EXIT_OK)
        status = measure_quality(e, m, NULL, o);
    interrupt_cancels(e);
    if (status == EXIT_OK)
        status = failed(tsr_bench_ops(e, m, &p, on_op, step));
    if (status == EXIT_OK && !interrupted())
        status = failed(tsr_bench_decodes(e, m, &p, on_decode, (void *)o));
    interrupt_cancels(NULL);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    return interrupted() ? EXIT_INTERRUPTED : status;
}

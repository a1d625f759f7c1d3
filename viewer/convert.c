/* tessera convert */
#include "cli.h"

#include <tessera/convert.h>

#include <math.h>

static const char *snr_text(char buf[32], double db) {
    if (isinf(db))
        snprintf(buf, 32, "exact");
    else
        snprintf(buf, 32, "%.1f dB", db);
    return buf;
}

static void say_report(const tsr_convert_report *r, const char *path, double psnr) {
    char bytes[32], snr[32];
    printf("%-6s %8s %12s %10s  %s\n", "type", "tensors", "parameters", "size", "signal to noise of the weights");
    for (int i = 0; i < r->parts; i++)
        printf("%-6s %8d %12lld %10s  %s\n", r->part[i].type, r->part[i].tensors, (long long)r->part[i].parameters,
            bytes_text(bytes, r->part[i].bytes), snr_text(snr, r->part[i].snr));
    printf("%-6s %8d %12lld %10s  %s\n", "all", r->tensors, (long long)r->parameters, bytes_text(bytes, r->bytes),
        snr_text(snr, r->snr));
    if (!isnan(psnr))
        printf("decode of noise against the model as it was: %s\n", snr_text(snr, psnr));
    printf("%s\n", path);
}

static void report_event(const tsr_convert_report *r, const char *path, double psnr) {
    json j;
    for (int i = 0; i < r->parts; i++) {
        json_begin(&j, "type");
        json_text(&j, "type", r->part[i].type);
        json_integer(&j, "tensors", r->part[i].tensors);
        json_integer(&j, "parameters", r->part[i].parameters);
        json_integer(&j, "bytes", r->part[i].bytes);
        json_bool(&j, "exact", isinf(r->part[i].snr));
        json_number(&j, "snr", r->part[i].snr);
        json_end(&j);
    }
    json_begin(&j, "done");
    json_text(&j, "output", path);
    json_integer(&j, "tensors", r->tensors);
    json_integer(&j, "bytes", r->bytes);
    json_bool(&j, "exact", isinf(r->snr));
    json_number(&j, "snr", r->snr);
    json_number(&j, "psnr", psnr);
    json_end(&j);
}

/* NaN where it cannot be measured here; the file is written all the same. */
static double measure(tsr_model *m, const char *path, const options *o) {
    tsr_model *converted = NULL;
    tsr_engine *e = NULL;
    tsr_engine_params params = o->engine;
    double psnr = NAN;
    if (params.device == TSR_DEVICE_AUTO)
        params.device = TSR_DEVICE_CPU; /* which has f32 */
    if (tsr_model_get_info(m)->has_decoder &&
        (tsr_model_open(&converted, path) != TSR_OK || tsr_engine_create(&e, &params) != TSR_OK ||
            tsr_convert_psnr(e, m, converted, &psnr) != TSR_OK)) {
        say(TSR_LOG_WARN, "not decoded to compare: %s", tsr_last_error());
        psnr = NAN;
    }
    tsr_engine_destroy(&e);
    tsr_model_close(&converted);
    return psnr;
}

int cmd_convert(const options *o) {
    tsr_model *m = NULL;
    tsr_convert_report r;
    options named = *o;
    tsr_convert_params p = {.type = o->type, .overwrite = o->writer.overwrite};
    const char *path = o->writer.path;
    named.model = o->args[0];
    if (!path)
        return usage_error("no output: give -o FILE.gguf or -o FILE.safetensors");
    int status = open_model(&m, &named);
    if (status == EXIT_OK)
        status = may_write(path, &p.overwrite);
    if (status == EXIT_OK)
        status = failed(tsr_convert(m, path, &p, &r));
    if (status == EXIT_OK) {
        double psnr = measure(m, path, o);
        json_wanted() ? report_event(&r, path, psnr) : say_report(&r, path, psnr);
    }
    tsr_model_close(&m);
    return status;
}

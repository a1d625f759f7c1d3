#include "model/names.h"

#include <stdlib.h>
#include <string.h>

/* Tensors that are not part of the architecture: no error, for all-in-one files hold other models
 * too, but one inside the VAE's own names may mean that the file is another model than it seems. */
static void tell_of_unused(const tsr_names *names) {
    const char *first = NULL;
    size_t inside = 0;
    for (size_t i = 0; i < names->count; i++) {
        const tsr_named *e = &names->entry[i];
        if (e->used)
            continue;
        bool quant = strncmp(e->name, "quant_conv.", 11) == 0 || strncmp(e->name, "post_quant_conv.", 16) == 0;
        if (quant)
            tsr_log(TSR_LOG_WARN, "%s: tensor '%s' is ignored: this family disables quant_conv", names->path,
                e->tensor->name);
        else
            tsr_log(TSR_LOG_DEBUG, "%s: tensor '%s' is not used", names->path, e->tensor->name);
        if (strncmp(e->name, "decoder.", 8) == 0 || strncmp(e->name, "encoder.", 8) == 0) {
            first = first ? first : e->tensor->name;
            inside++;
        }
    }
    if (inside)
        tsr_log(TSR_LOG_WARN, "%s: %zu tensors of the VAE are unknown and ignored, the first is '%s'", names->path,
            inside, first);
}

static tsr_status not_a_vae(const tsr_names *names) {
    static const char *const of_transformers[] = {
        "blocks.0.", "vid_in.", "txt_in.", "transformer_blocks.0.", "double_blocks.0."};
    const char *hint = "";
    for (size_t i = 0; i < sizeof of_transformers / sizeof *of_transformers; i++)
        if (tsr_names_under(names, of_transformers[i]))
            hint = "; it looks like the diffusion transformer (DiT): give the VAE's own file";
    return tsr_fail(TSR_ERR_FORMAT,
        "%s: not a VAE of the SeedVR2 family: it has neither 'decoder.conv_in.weight' nor "
        "'encoder.conv_in.weight' "
        "(%zu tensors%s%s%s)%s",
        names->path, names->count, names->count ? ", the first is '" : "",
        names->count ? names->entry[0].tensor->name : "", names->count ? "'" : "", hint);
}

static tsr_status halves_agree(const tsr_vae *v, const char *path) {
    const tsr_half *d = &v->decoder, *e = &v->encoder;
    if (!d->present || !e->present)
        return TSR_OK;
    if (e->out_channels != 2 * d->in_channels)
        return tsr_fail(TSR_ERR_FORMAT,
            "%s: encoder.conv_out has %d channels, expected %d: twice the %d that the decoder "
            "reads",
            path, e->out_channels, 2 * d->in_channels, d->in_channels);
    if (e->space_factor != d->space_factor || e->time_factor != d->time_factor)
        return tsr_fail(TSR_ERR_FORMAT,
            "%s: the encoder divides by %d in space and %d in time, the decoder multiplies by %d "
            "and %d",
            path, e->space_factor, e->time_factor, d->space_factor, d->time_factor);
    return TSR_OK;
}

static void fill_info(tsr_vae *v, const tsr_names *names, const int decoder_widths[], const int encoder_widths[]) {
    tsr_model_info *info = &v->info;
    const tsr_half *half = v->decoder.present ? &v->decoder : &v->encoder;
    info->path = tsr_tensor_file_path(v->file);
    info->container = tsr_tensor_file_container(v->file);
    info->file_bytes = (int64_t)tsr_tensor_file_bytes(v->file);
    for (size_t i = 0; i < names->count; i++) {
        if (names->entry[i].used) {
            info->tensors++;
            info->parameters += (int64_t)names->entry[i].tensor->count;
        }
    }
    info->has_decoder = v->decoder.present;
    info->has_encoder = v->encoder.present;
    info->latent_channels = v->decoder.present ? v->decoder.in_channels : v->encoder.out_channels / 2;
    info->space_factor = half->space_factor;
    info->time_factor = half->time_factor;
    info->latent_scale = TSR_LATENT_SCALE;
    while (info->levels < TSR_MAX_LEVELS && (v->decoder.present ? decoder_widths : encoder_widths)[info->levels])
        info->levels++;
    for (int i = 0; i < info->levels; i++)
        info->width[i] = v->decoder.present ? decoder_widths[info->levels - 1 - i] : encoder_widths[i];
}

tsr_status tsr_vae_create(tsr_vae **out, tsr_tensor_file *file) {
    *out = NULL;
    tsr_status status;
    tsr_names names = {0};
    int decoder_widths[TSR_MAX_LEVELS] = {0}, encoder_widths[TSR_MAX_LEVELS] = {0};
    tsr_vae *v = calloc(1, sizeof *v);
    if (!v) {
        tsr_tensor_file_close(&file);
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for a model");
    }
    v->file = file;
    TSR_TRY(tsr_names_create(&names, file));
    v->decoder.present = tsr_names_under(&names, "decoder.");
    v->encoder.present = tsr_names_under(&names, "encoder.");
    if (!v->decoder.present && !v->encoder.present)
        TSR_TRY(not_a_vae(&names));
    if (v->decoder.present)
        TSR_TRY(tsr_half_infer(&v->decoder, &names, false, decoder_widths, &v->info.decoder_resnets));
    if (v->encoder.present)
        TSR_TRY(tsr_half_infer(&v->encoder, &names, true, encoder_widths, &v->info.encoder_resnets));
    TSR_TRY(halves_agree(v, names.path));
    tell_of_unused(&names);
    fill_info(v, &names, decoder_widths, encoder_widths);
    tsr_names_clear(&names);
    *out = v;
    return TSR_OK;
error:
    tsr_names_clear(&names);
    tsr_vae_destroy(&v);
    return status;
}

void tsr_vae_destroy(tsr_vae **v) {
    if (!*v)
        return;
    tsr_half_clear(&(*v)->decoder);
    tsr_half_clear(&(*v)->encoder);
    tsr_tensor_file_close(&(*v)->file);
    free(*v);
    *v = NULL;
}

/* ---------------------------------------------------------------- the public handle */

tsr_status tsr_model_open(tsr_model **out, const char *path) {
    *out = NULL;
    tsr_tensor_file *file;
    tsr_model *m = calloc(1, sizeof *m);
    if (!m)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for a model");
    tsr_status status;
    TSR_TRY(tsr_tensor_file_open(&file, path));
    TSR_TRY(tsr_vae_create(&m->vae, file));
    *out = m;
    return TSR_OK;
error:
    free(m);
    return status;
}

void tsr_model_close(tsr_model **m) {
    if (!m || !*m)
        return;
    tsr_vae_destroy(&(*m)->vae);
    free(*m);
    *m = NULL;
}

const tsr_model_info *tsr_model_get_info(const tsr_model *m) {
    return &m->vae->info;
}

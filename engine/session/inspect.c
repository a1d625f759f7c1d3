#include <tessera/inspect.h>

#include "formats/tensor_file.h"

#include <stdio.h>
#include <string.h>

/* Facts of one section. */
typedef struct teller {
    tsr_inspect_fn fact;
    void *user;
    const char *section;
} teller;

static void tell(const teller *t, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void tell(const teller *t, const char *key, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    t->fact(t->user, t->section, key, text);
}

static void tell_model(const teller *t, const tsr_model_info *i) {
    char list[256] = "";
    size_t n = 0;
    for (int l = 0; l < i->levels && n < sizeof list; l++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%d", l ? ", " : "", i->width[l]);
    tell(t, "holds", "%s",
        i->has_decoder && i->has_encoder ? "decoder and encoder"
        : i->has_decoder                 ? "decoder"
                                         : "encoder");
    tell(t, "parameters", "%lld", (long long)i->parameters);
    tell(t, "widths", "%s", list);
    if (i->has_decoder)
        tell(t, "decoder resnets a level", "%d", i->decoder_resnets);
    if (i->has_encoder)
        tell(t, "encoder resnets a level", "%d", i->encoder_resnets);
    tell(t, "latent channels", "%d", i->latent_channels);
    tell(t, "factors", "%d in space, %d in time", i->space_factor, i->time_factor);
    tell(t, "latent scale", "%g", i->latent_scale);
}

static void tell_latent(const teller *t, const tsr_latent_info *i) {
    const tsr_latent_params p = TSR_LATENT_PARAMS_DEFAULT;
    tell(t, "videos", "%d", i->videos);
    tell(t, "latents", "%d frame%s of %dx%d, %d channels", i->frames, tsr_plural(i->frames), i->width, i->height,
        p.channels);
    tell(t, "layout", "%s", i->layout == TSR_LAYOUT_BFHWC ? "bfhwc" : "bcfhw");
    tell(t, "scale", "%g", i->scale);
    tell(t, "decodes to", "%d frame%s of %dx%d", 4 * (i->frames - 1) + 1, tsr_plural(i->frames), 8 * i->width,
        8 * i->height);
    if (i->crop_width || i->crop_height || i->crop_frames)
        tell(t, "of which", "%d frame%s of %dx%d are the picture", i->crop_frames, tsr_plural(i->crop_frames),
            i->crop_width, i->crop_height);
}

/* What the file is, tried in turn: "holds" of the file section, then the section of its own. */
static void tell_kind(const teller *file, const char *path) {
    tsr_model *model = NULL;
    tsr_latent *latent = NULL;
    char no_model[512];
    if (tsr_model_open(&model, path) == TSR_OK) {
        tell(file, "holds", "model");
        tell_model(&(teller){file->fact, file->user, "model"}, tsr_model_get_info(model));
        tsr_model_close(&model);
        return;
    }
    snprintf(no_model, sizeof no_model, "%s", tsr_last_error());
    if (tsr_latent_open(&latent, path, &(tsr_latent_params)TSR_LATENT_PARAMS_DEFAULT) == TSR_OK) {
        tell(file, "holds", "latent");
        tell_latent(&(teller){file->fact, file->user, "latent"}, tsr_latent_get_info(latent));
        tsr_latent_close(&latent);
        return;
    }
    tell(file, "holds", "no model (%s) and no latent (%s)", no_model, tsr_last_error());
}

tsr_status tsr_inspect(const char *path, tsr_inspect_fn fact, void *user) {
    tsr_tensor_file *f = NULL;
    tsr_status status = tsr_tensor_file_open(&f, path);
    if (status != TSR_OK)
        return status;
    char size[32], shape[96];
    size_t bytes = tsr_tensor_file_bytes(f);
    teller file = {fact, user, "file"}, tensors = {fact, user, "tensors"};
    tell(&file, "path", "%s", path);
    tell(&file, "container", "%s", tsr_tensor_file_container(f));
    tell(&file, "bytes", "%zu (%s)", bytes, tsr_bytes_text(size, (int64_t)bytes));
    tell(&file, "tensors", "%zu", tsr_tensor_file_count(f));
    tell_kind(&file, path);
    for (size_t i = 0; i < tsr_tensor_file_count(f); i++) {
        const tsr_tensor *t = tsr_tensor_file_at(f, i);
        tell(&tensors, t->name, "%s %s", tsr_dtype_name(t->dtype), tsr_shape_text(shape, t->dim, t->ndim));
    }
    tsr_tensor_file_close(&f);
    return TSR_OK;
}

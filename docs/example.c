/* Decodes a latent, or its first FRAMES, to frame-0.ppm, frame-1.ppm, ...
 *     cc example.c $(pkg-config --cflags --libs tessera) -o example
 *     ./example MODEL LATENT [FRAMES] */
#include <tessera/tessera.h>

#include <stdio.h>
#include <stdlib.h>

static tsr_status write_ppm(void *user, const tsr_frame *f) {
    char name[64];
    (void)user;
    snprintf(name, sizeof name, "frame-%lld.ppm", (long long)f->index);
    FILE *file = fopen(name, "wb");
    if (!file)
        return TSR_ERR_IO;
    fprintf(file, "P6\n%d %d\n255\n", f->width, f->height);
    size_t written = fwrite(f->data, 1, f->bytes, file);
    return fclose(file) == 0 && written == f->bytes ? TSR_OK : TSR_ERR_IO;
}

int main(int argc, char **argv) {
    tsr_model *model = NULL;
    tsr_latent *latent = NULL;
    tsr_engine *engine = NULL;
    tsr_plan *plan = NULL;
    tsr_engine_params devices = TSR_ENGINE_PARAMS_DEFAULT;
    tsr_latent_params scaling = TSR_LATENT_PARAMS_DEFAULT;
    tsr_plan_params wishes = TSR_PLAN_PARAMS_DEFAULT;
    tsr_decode_params decode = TSR_DECODE_PARAMS_DEFAULT;
    wishes.end_frame = argc > 3 ? atoi(argv[3]) : 0; /* 0: all */
    decode.on_frame = write_ppm;

    bool ok = argc >= 3 && tsr_model_open(&model, argv[1]) == TSR_OK &&
              tsr_latent_open(&latent, argv[2], &scaling) == TSR_OK && tsr_engine_create(&engine, &devices) == TSR_OK;
    if (ok) {
        const tsr_latent_info *i = tsr_latent_get_info(latent);
        tsr_extent extent = {i->frames, i->height, i->width};
        ok = tsr_plan_create(&plan, engine, model, &extent, &wishes) == TSR_OK &&
             tsr_decode(engine, model, latent, plan, &decode, NULL) == TSR_OK;
    }
    if (!ok)
        fprintf(stderr, "example: %s\n", argc >= 3 ? tsr_last_error() : "give a model and a latent");
    tsr_plan_destroy(&plan);
    tsr_engine_destroy(&engine);
    tsr_latent_close(&latent);
    tsr_model_close(&model);
    return ok ? 0 : 1;
}

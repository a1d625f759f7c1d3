/*
 * Writes a synthetic VAE:
 *
 *     synthetic_model OUT.safetensors          small, ready in a fraction of the demo's time
 *     synthetic_model --tiny OUT.safetensors   the least decoder there is, of two pixels a latent: for slow sanitizers
 *     synthetic_model --full OUT.safetensors   the decoder of the published model's size, 335 MB
 */
#include "synthetic.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    bool full = argc == 3 && strcmp(argv[1], "--full") == 0, tiny = argc == 3 && strcmp(argv[1], "--tiny") == 0;
    if (argc != 2 && !full && !tiny) {
        fprintf(stderr, "usage: %s [--tiny | --full] OUT.safetensors\n", argv[0]);
        return 2;
    }
    const char *path = argv[argc - 1];
    synth_config small = {.channels = {32, 32, 32, 32}, .layers = 1, .seed = 1},
                 least = {.channels = {32, 32}, .layers = 1, .decoder = true, .seed = 1}, published = {.decoder = true};
    if (synth_model_write(path, full ? &published : tiny ? &least : &small) == TSR_OK)
        return 0;
    fprintf(stderr, "%s: %s\n", argv[0], tsr_last_error());
    return 1;
}

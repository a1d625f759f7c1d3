/* tessera: finds the command, reads its options, runs it. */
#include "cli.h"

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

const command commands[COMMANDS] = {
    {"render", "LATENT... -o OUT", 1, INT_MAX, "decodes to a file, without a display",
        "Several latents in order make one video, and so do the videos of a batch. The suffix of "
        "the output says what is written: .png (one picture, or with %05d in the name one a "
        "frame), .mp4, .mkv, .webm, .y4m, .npy and .safetensors (float32 [3, F, H, W], the "
        "decoder's own numbers). Video is BT.709, limited range. A file appears under its name "
        "when it is whole. With --resume a journal is kept, OUT.resume, until it is: the same command goes "
        "on where a killed one stopped, and writes the same bytes.",
        "tessera render clip.latent -o clip.mp4 --fps 24", cmd_render},
    {"view", "[LATENT|FOLDER]", 0, 1, "the preview window",
        "A video appears tile by tile while it is decoded; sliders for tile size, overlap and memory "
        "plan anew at once. ? shows the keys. Of a folder the newest latent is shown, and new ones "
        "as they are written. What a script says is told in docs/view.md.",
        "tessera view clip.latent --vram 8G", cmd_view},
    {"encode", "MEDIA -o OUT", 1, 1, "a picture or video to a latent",
        "MEDIA is a picture, numbered pictures (%05d), any video that libav decodes, or an .npy or "
        ".safetensors of float32 [3, F, H, W] in -1..1. OUT is .latent or .safetensors "
        "(latent_tensor [1, 16, T, h, w]) or .npy ([16, T, h, w]). Sizes that 8 does not divide "
        "and frames other than 4k + 1 are filled up with copies of the edge; render undoes that.",
        "tessera encode clip.mp4 -o clip.latent", cmd_encode},
    {"tune", "LATENT|WxHxF", 1, 1, "measures tile sizes under a budget",
        "Sizes are planned first, those that may win are run on one tile of noise, those near the best again. The best "
        "tile is kept for this device, model and precision; from then on plans that have to be tiled, with no --tile "
        "given, use it. -o draws a chart. WxHxF is a video that need not exist, as for plan.",
        "tessera tune clip.latent --vram 13G -o tune.png", cmd_tune},
    {"plan", "LATENT|WxHxF", 1, 1, "shows what would be done and what it would take; runs nothing",
        "WxHxF is a video that need not exist: width and height in pixels, and frames.",
        "tessera plan 1920x1080x81 --vram 13G", cmd_plan},
    {"bench", "[WxHxF]", 0, 1, "speed of ops and of whole decodes against their floor",
        "Of a video of noise: width and height in pixels, and frames; 128x128x5 where none is "
        "given. --model 5070ti, 5090, 4090, 3090, h100 or h200 predicts what such a card would take, "
        "1280x720x9 where nothing is given, and says what is assumed; $TESSERA_MODEL names the model then.",
        "tessera bench 256x256x9 --repeat 5", cmd_bench},
    {"info", "", 0, 0, "devices, Vulkan, precisions, how slots reach Vulkan here and why", NULL, NULL, cmd_info},
    {"inspect", "FILE...", 1, INT_MAX, "what a model or latent file holds; the architecture read from it", NULL,
        "tessera inspect vae.safetensors", cmd_inspect},
    {"compare", "A B", 2, 2, "PSNR and SSIM of two results, worst frame, worst block",
        "Any two of pictures, numbered pictures, videos, .npy and .safetensors. PSNR is over the "
        "whole range, 2 of floats and 255 of 8 bits alike. -o writes a picture of the "
        "differences in the worst frame, its worst block framed.",
        "tessera compare a.mp4 b.mp4 -o difference.png", cmd_compare},
    {"convert", "MODEL -o OUT", 1, 1, "a model to another container or type",
        "OUT is .gguf or .safetensors; GGUF files are what the official package reads, kernels "
        "flattened with comfy.gguf.orig_shape. Says what each type costs: the weights' signal to "
        "noise, and the PSNR of a small decode against the model as it was.",
        "tessera convert vae.safetensors -o vae.gguf --type q8_0", cmd_convert},
};

/* ---------------------------------------------------------------- interrupts */

static _Atomic(tsr_engine *) running;
static volatile sig_atomic_t caught;

static void on_signal(int number) {
    caught = number;
    tsr_engine *e = atomic_load(&running);
    if (e)
        tsr_cancel(e);
}

void catch_interrupts(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction old, action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
        sigaction(signals[i], NULL, &old);
        if (old.sa_handler != SIG_IGN) /* nohup, and shells' background jobs */
            sigaction(signals[i], &action, NULL);
    }
    /* A closed pipe and a file size limit are errors of a write then, not ends of the program. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

void interrupt_cancels(tsr_engine *e) {
    atomic_store(&running, e);
}

bool interrupted(void) {
    return caught != 0;
}

/* ---------------------------------------------------------------- main */

static const command *find_command(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int run(int argc, char **argv) {
    if (argc < 2)
        return usage_error("no command; see tessera --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help_overview(), EXIT_OK;
    if (strcmp(argv[1], "--version") == 0)
        return printf("tessera %s\n", tsr_version()), EXIT_OK;
    if (strcmp(argv[1], "--generate") == 0 && argc == 3 && generate(argv[2]))
        return EXIT_OK;
    options o = {.command = find_command(argv[1])};
    if (!o.command)
        return usage_error("unknown command: %s; see tessera --help", argv[1]);
    if (!options_parse(&o, argc, argv))
        return EXIT_USAGE;
    if (o.help)
        return help_command(o.command), EXIT_OK;
    say_setup(&o);
    return o.command->run(&o);
}

int main(int argc, char **argv) {
    int status = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout))
        return failure(
            TSR_ERR_IO, "cannot write: standard output"); /* a full disk behind > must not look like success */
    return status;
}

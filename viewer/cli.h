/* What the commands share: their functions, the model they use when none is named, being
 * interrupted. */
#ifndef TSR_CLI_H
#define TSR_CLI_H

#include "options.h"
#include "say.h"

int cmd_render(const options *o);
int cmd_view(const options *o);
int cmd_plan(const options *o);
int cmd_tune(const options *o);
int cmd_bench(const options *o);
int cmd_info(const options *o);
int cmd_inspect(const options *o);
int cmd_encode(const options *o);
int cmd_compare(const options *o);
int cmd_convert(const options *o);

/* These print what goes wrong and return the exit status, EXIT_OK where nothing does. */

/* The model that the options, the environment or the folders here name; says which where nobody
 * chose it. */
int open_model(tsr_model **out, const options *o);
int open_latent(tsr_latent **out, const char *path, const options *o, const tsr_model *m);
int create_engine(tsr_engine **out, const options *o);
/* "WxHxF" in output pixels and frames to latents, rounded up; says so where that is more than was
 * asked for. */
int parse_extent(tsr_extent *out, const char *text, const tsr_model *m);
/* Of the first argument: a latent's, which *z then is, or a size where it looks like one and no file has that name. */
int find_extent(tsr_extent *out, tsr_latent **z, const options *o, const tsr_model *m);
/* --frames of a video of `total` frames: [*first, *end). */
int clip_frames(const options *o, int64_t total, int64_t *first, int64_t *end);
/* Where a quality is asked for: what the choice of precisions needs, measured on z where there is one. */
int measure_quality(tsr_engine *e, tsr_model *m, const tsr_latent *z, const options *o);
/* For output frames [first, end). */
int create_plan(tsr_plan **out, tsr_engine *e, const tsr_model *m, const tsr_extent *extent, const options *o,
    int64_t first, int64_t end);
/* Frames of the video that a latent of so many frames decodes to. */
int64_t output_frames(const tsr_model *m, int latent_frames);
const char *mode_name(tsr_mode mode); /* "untiled", ... */
/* The plan as a line, or as the plan event; and where it is not what the options asked for. */
void say_plan(const tsr_plan_info *p, const options *o);
/* Memory ran short, and a smaller plan goes on from this frame: the event. The library has logged a line. */
void say_replan(int64_t frame, const char *why);

/* Asks on a terminal where `existing` is not NULL and *overwrite not yet true. */
int may_overwrite(const char *existing, bool *overwrite);
int may_write(const char *path, bool *overwrite); /* where there is a file of that name */

/* For commands that leave something to clean up: from now on SIGINT, SIGTERM and SIGHUP only make
 * interrupted() true and cancel what is decoded; the second one ends the program. */
void catch_interrupts(void);
void interrupt_cancels(tsr_engine *e); /* NULL: nothing to cancel any more */
bool interrupted(void);

#endif

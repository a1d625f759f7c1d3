/* render --resume: what must be the same for a render to go on where one was killed, and what it remembers. */
#ifndef TSR_RESUME_H
#define TSR_RESUME_H

#include "options.h"

#include <stdio.h>

/* The text for tsr_writer_params.resume. */
typedef struct resume {
    FILE *f;
    char *text; /* once it is closed */
    size_t size;
    tsr_status status; /* of the first thing that failed */
    bool device;       /* is named */
} resume;

/* The recipe of the plan that the killed render had last for this video of its input, malloc'd; NULL: there was none.
 * Rates and what is free change, and the plan must not. */
char *resume_recipe(const options *o, int video);
void resume_begin(resume *r, const options *o, const tsr_model *m);
void resume_latent(resume *r, const tsr_latent *z);
void resume_plan(resume *r, int video, const tsr_plan_info *p);
/* A smaller plan goes on, and all before it is written. */
tsr_status resume_replan(tsr_writer *w, int video, const tsr_plan_info *p);
/* The exit status, having said what went wrong. Free r->text. */
int resume_end(resume *r);

#endif

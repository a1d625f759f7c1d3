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
} resume;

/* The budget that the killed render was planned with, where none is asked for now: what is free changes, and the plan
 * must not. */
void resume_budget(options *o);
void resume_begin(resume *r, const options *o, const tsr_model *m);
void resume_latent(resume *r, const tsr_latent *z);
void resume_plan(resume *r, const tsr_plan_info *p);
/* The exit status, having said what went wrong. Free r->text. */
int resume_end(resume *r);

#endif

/* Which positions of the dials fit: a plan for each, made on a thread of its own, nearest positions
 * first. */
#include "app.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { POSITIONS = 96 };

struct planner {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool quit, asked, busy;
    tsr_engine *engine;
    const tsr_model *model;
    tsr_extent extent;
    tsr_plan_params params[DIALS][POSITIONS];
    int count[DIALS], at[DIALS]; /* positions there are; where the dial stands */
    fit fit[DIALS][POSITIONS];
    int round; /* counts questions */
};

/* The next position to look at: outwards from where the dial stands. */
static int next_of(const planner *p, int d) {
    for (int away = 0; away < p->count[d]; away++)
        for (int side = -1; side <= 1; side += 2) {
            int i = p->at[d] + side * away;
            if (i >= 0 && i < p->count[d] && p->fit[d][i] == FIT_UNKNOWN)
                return i;
        }
    return -1;
}

static bool next(const planner *p, int *d, int *i) {
    static const dial order[] = {
        DIAL_PRECISION, DIAL_CACHES, DIAL_TILE_WIDTH, DIAL_OVERLAP, DIAL_VRAM, DIAL_TILE_HEIGHT};
    for (int k = 0; k < DIALS; k++) {
        *d = (int)order[k];
        *i = next_of(p, *d);
        if (*i >= 0)
            return true;
    }
    return false;
}

static void *work(void *arg) {
    planner *p = arg;
    /* Behind the decode, which has no core to spare, but for moments in which one of its threads waits for the other:
     * the least of what niceness gives is a tenth of a core. */
    sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    pthread_mutex_lock(&p->lock);
    while (!p->quit) {
        int d, i, round = p->round;
        if (!p->engine || !next(p, &d, &i)) {
            p->busy = false;
            pthread_cond_broadcast(&p->changed);
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        p->busy = true;
        tsr_engine *e = p->engine;
        const tsr_model *m = p->model;
        tsr_extent extent = p->extent;
        tsr_plan_params params = p->params[d][i];
        tsr_plan *plan = NULL;
        pthread_mutex_unlock(&p->lock);
        tsr_status status = tsr_plan_create(&plan, e, m, &extent, &params);
        tsr_plan_destroy(&plan);
        pthread_mutex_lock(&p->lock);
        if (round == p->round)
            p->fit[d][i] = status == TSR_OK ? FIT_YES : FIT_NO;
    }
    p->busy = false;
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

tsr_status planner_open(struct planner **out) {
    planner *p = *out = calloc(1, sizeof *p);
    if (!p)
        return TSR_ERR_MEMORY;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    if (pthread_create(&p->thread, NULL, work, p) == 0)
        return TSR_OK;
    free(p);
    *out = NULL;
    return TSR_ERR_MEMORY;
}

void planner_close(planner **handle) {
    planner *p = *handle;
    *handle = NULL;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void planner_ask(planner *p, tsr_engine *e, const tsr_model *m, const app *a) {
    pthread_mutex_lock(&p->lock);
    p->engine = e;
    p->model = m;
    p->round++;
    if (e && a->latent) {
        const tsr_latent_info *z = tsr_latent_get_info(a->latent);
        p->extent = (tsr_extent){z->frames, z->height, z->width};
        for (int d = 0; d < DIALS; d++) {
            p->count[d] = d == DIAL_TILE_HEIGHT && a->set.linked ? 0 : a->positions_of[d].count;
            p->at[d] = decode_position(a, (dial)d);
            for (int i = 0; i < p->count[d]; i++) {
                settings s = a->set;
                s.value[d] = a->positions_of[d].value[i];
                p->params[d][i] = decode_params(a, &s);
                p->fit[d][i] = FIT_UNKNOWN;
            }
        }
    }
    pthread_cond_broadcast(&p->changed);
    while (!e && p->busy)
        pthread_cond_wait(&p->changed, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

fit planner_fit(planner *p, dial d, int position) {
    pthread_mutex_lock(&p->lock);
    fit f = position >= 0 && position < p->count[d] ? p->fit[d][position] : FIT_UNKNOWN;
    pthread_mutex_unlock(&p->lock);
    return f;
}

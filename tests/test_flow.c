/* Rings between threads: order, back-pressure, the end, and the first failure. */
#include "session/flow.h"

#include <criterion/criterion.h>
#include <pthread.h>

typedef struct pipe_test {
    tsr_flow flow;
    tsr_ring ring;
    int value[3];
    unsigned sum; /* a checksum that sees order; it wraps */
} pipe_test;

static void *drain(void *arg) {
    pipe_test *p = arg;
    for (int place; (place = tsr_ring_next(&p->ring)) >= 0; tsr_ring_release(&p->ring))
        p->sum = p->sum * 31 + (unsigned)p->value[place];
    return NULL;
}

Test(flow, rings_keep_order_and_end) {
    atomic_bool cancel = false;
    pipe_test p = {.ring.size = 3};
    cr_assert_eq(tsr_flow_init(&p.flow, &cancel), TSR_OK);
    p.ring.flow = &p.flow;
    pthread_t t;
    pthread_create(&t, NULL, drain, &p);
    unsigned want = 0;
    for (int i = 0; i < 5000; i++) {
        p.value[tsr_ring_reserve(&p.ring, NULL, NULL)] = i;
        tsr_ring_commit(&p.ring);
        want = want * 31 + (unsigned)i;
    }
    tsr_ring_close(&p.ring);
    cr_assert(tsr_ring_drained(&p.ring, NULL, NULL));
    pthread_join(t, NULL);
    cr_assert_eq(p.sum, want);
    cr_assert_eq(tsr_ring_next(&p.ring), -1);
    tsr_flow_destroy(&p.flow);
}

Test(flow, first_failure_wakes_everyone_and_is_kept) {
    atomic_bool cancel = false;
    pipe_test p = {.ring.size = 3};
    cr_assert_eq(tsr_flow_init(&p.flow, &cancel), TSR_OK);
    p.ring.flow = &p.flow;
    pthread_t t;
    pthread_create(&t, NULL, drain, &p);
    tsr_flow_fail(&p.flow, tsr_fail(TSR_ERR_IO, "first"));
    tsr_flow_fail(&p.flow, tsr_fail(TSR_ERR_DEVICE, "second"));
    pthread_join(t, NULL);
    cr_assert_eq(p.flow.status, TSR_ERR_IO);
    cr_assert_str_eq(p.flow.message, "first");
    cr_assert(atomic_load(&cancel));
    cr_assert_eq(tsr_ring_reserve(&p.ring, NULL, NULL), -1);
    cr_assert(!tsr_ring_drained(&p.ring, NULL, NULL));
    tsr_flow_destroy(&p.flow);
}

#include "core/base/clock.h"
#include "core/base/queue.h"
#include "tests/unit/aid.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static void test_first_in_first_out(void **state)
{
    (void)state;
    queue *q = queue_new(3);
    int items[5];
    void *got;
    for (int round = 0; round < 10; round++) { /* past the end of the ring */
        for (int i = 0; i < 3; i++)
            assert_int_equal(queue_push(q, &items[i]), 0);
        assert_int_equal(queue_push(q, &items[3]), HONE_EAGAIN);
        assert_int_equal(queue_len(q), 3);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(queue_pop(q, &got, 0), 0);
            assert_ptr_equal(got, &items[i]);
        }
        assert_int_equal(queue_pop(q, &got, 0), HONE_EAGAIN);
        assert_null(got);
    }
    queue_free(q);
    queue_free(NULL);
}

static void test_time_out(void **state)
{
    (void)state;
    queue *q = queue_new(1);
    void *got = q;
    int64_t start = clock_mono_ns();
    assert_int_equal(queue_pop(q, &got, 50), HONE_EAGAIN);
    int64_t ms = (clock_mono_ns() - start) / 1000000;
    assert_true(ms >= 50 && ms < 60000);
    assert_null(got);
    queue_free(q);
}

static void test_close_drains_then_cancels(void **state)
{
    (void)state;
    queue *q = queue_new(2);
    int item;
    void *got;
    assert_int_equal(queue_push(q, &item), 0);
    queue_close(q);
    queue_close(q);
    assert_int_equal(queue_push(q, &item), HONE_ECANCELLED);
    assert_int_equal(queue_push_wait(q, &item), HONE_ECANCELLED);
    assert_int_equal(queue_pop(q, &got, -1), 0);
    assert_ptr_equal(got, &item);
    assert_int_equal(queue_pop(q, &got, -1), HONE_ECANCELLED);
    queue_free(q);
}

/* What threads found is looked at by the test itself: cmocka must not be called from them. */
typedef struct waiter {
    queue *q;
    int rc;
    void *item;
} waiter;

static void *pop_for_ever(void *arg)
{
    waiter *w = arg;
    w->rc = queue_pop(w->q, &w->item, -1);
    return NULL;
}

static void *push_for_ever(void *arg)
{
    waiter *w = arg;
    w->rc = queue_push_wait(w->q, w->item);
    return NULL;
}

static void test_close_wakes_everybody(void **state)
{
    (void)state;
    pthread_t t[4];
    queue *empty = queue_new(1), *full = queue_new(1);
    waiter w[4] = {{empty, 1, NULL}, {empty, 1, NULL}, {full, 1, empty}, {full, 1, empty}};
    assert_int_equal(queue_push(full, full), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, i < 2 ? pop_for_ever : push_for_ever, &w[i]),
                         0);
    usleep(20000);
    queue_close(empty);
    queue_close(full);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(w[i].rc, HONE_ECANCELLED);
    }
    queue_free(empty);
    queue_free(full);
}

static void test_a_waiting_push_gets_the_room(void **state)
{
    (void)state;
    pthread_t t;
    queue *q = queue_new(1);
    int items[2];
    void *got;
    waiter w = {q, 1, &items[1]};
    assert_int_equal(queue_push(q, &items[0]), 0);
    assert_int_equal(pthread_create(&t, NULL, push_for_ever, &w), 0);
    usleep(10000);
    assert_int_equal(queue_pop(q, &got, 60000), 0);
    assert_ptr_equal(got, &items[0]);
    assert_int_equal(queue_pop(q, &got, 60000), 0);
    assert_ptr_equal(got, &items[1]);
    pthread_join(t, NULL);
    assert_int_equal(w.rc, 0);
    queue_free(q);
}

enum { PER_THREAD = 2000, THREADS = 3 };

typedef struct crowd {
    queue *q;
    int items[THREADS][PER_THREAD];
    atomic_int next_producer, popped;
    atomic_int times[THREADS][PER_THREAD];
    atomic_int wrong;
} crowd;

static void *produce(void *arg)
{
    crowd *c = arg;
    int me = atomic_fetch_add(&c->next_producer, 1);
    for (int i = 0; i < PER_THREAD; i++)
        if (queue_push_wait(c->q, &c->items[me][i]) != 0)
            atomic_fetch_add(&c->wrong, 1);
    return NULL;
}

static void *consume(void *arg)
{
    crowd *c = arg;
    void *got;
    while (queue_pop(c->q, &got, -1) == 0) {
        int at = (int)((int *)got - &c->items[0][0]);
        atomic_fetch_add(&c->times[at / PER_THREAD][at % PER_THREAD], 1);
        atomic_fetch_add(&c->popped, 1);
    }
    return NULL;
}

static void test_many_threads_lose_nothing(void **state)
{
    (void)state;
    static crowd c; /* too large for the stack */
    pthread_t in[THREADS], out[THREADS];
    c.q = queue_new(7);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&in[i], NULL, produce, &c), 0);
        assert_int_equal(pthread_create(&out[i], NULL, consume, &c), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(in[i], NULL);
    queue_close(c.q);
    for (int i = 0; i < THREADS; i++)
        pthread_join(out[i], NULL);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(c.popped, THREADS * PER_THREAD);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < PER_THREAD; k++)
            assert_int_equal(c.times[i][k], 1);
    queue_free(c.q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_in_first_out),
        cmocka_unit_test(test_time_out),
        cmocka_unit_test(test_close_drains_then_cancels),
        cmocka_unit_test(test_close_wakes_everybody),
        cmocka_unit_test(test_a_waiting_push_gets_the_room),
        cmocka_unit_test(test_many_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

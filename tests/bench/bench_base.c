/* The parts of core/base that lie on the way of every request or every row. */
#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/hook.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/queue.h"
#include "core/base/rng.h"
#include "core/base/utf8.h"
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1000, TEXT_BYTES = 1 << 20 };

static void parse(void *arg)
{
    const buf *b = arg;
    json_t *v;
    if (js_parse(&v, b->data, b->len, NULL) != 0)
        abort();
    json_decref(v);
}

static void digest(void *arg)
{
    const buf *b = arg;
    char hex[65];
    bytes_sha256(hex, b->data, b->len);
}

static void validate(void *arg)
{
    const buf *b = arg;
    if (utf8_valid(b->data, b->len) != b->len)
        abort();
}

static void random_words(void *arg)
{
    uint32_t sum = 0;
    for (int i = 0; i < N; i++)
        sum += rng_u32(arg);
    if (sum == 12345) /* keeps the loop */
        puts("");
}

static void push_and_pop(void *arg)
{
    void *item;
    for (int i = 0; i < N; i++) {
        queue_push(arg, arg);
        queue_pop(arg, &item, 0);
    }
}

static void emit_to_nobody(void *arg)
{
    for (int i = 0; i < N; i++)
        if (hook_wanted(arg, HOOK_TRAIN_STEP))
            abort();
}

/* More than any request or training step asks. */
static void ask_all_points(void *arg)
{
    for (int p = 0; p < HOOK_N_POINTS; p++)
        if (hook_wanted(arg, (hook_point)p))
            abort();
}

static int listen_only(hook_call *call, void *user, hone_err *e)
{
    (void)call;
    (void)user;
    (void)e;
    return HOOK_CONTINUE;
}

static void emit_to_one(void *arg)
{
    json_t *data = json_pack("{s:i,s:f}", "step", 1, "loss", 0.5);
    hook_emit(arg, HOOK_TRAIN_STEP, &data, NULL);
    json_decref(data);
}

int main(void)
{
    buf rows, text;
    buf_init(&rows, TEXT_BYTES * 2);
    buf_init(&text, TEXT_BYTES * 2);
    buf_char(&rows, '[');
    while (rows.len < TEXT_BYTES)
        buf_printf(&rows, "%s{\"role\":\"user\",\"content\":\"How do I turn it on?\",\"n\":%zu}",
                   rows.len > 1 ? "," : "", rows.len);
    buf_char(&rows, ']');
    while (text.len < TEXT_BYTES)
        buf_str(&text, "Plain words, and caf\xc3\xa9 \xe2\x82\xac. ");
    bench("js_parse, 1 MB of records", (double)rows.len, "B", parse, &rows);
    bench("bytes_sha256, 1 MB", (double)rows.len, "B", digest, &rows);
    bench("utf8_valid, 1 MB", (double)text.len, "B", validate, &text);
    rng r = {.seed = 1};
    bench("rng_u32", N, "words", random_words, &r);
    queue *q = queue_new(16);
    bench("queue_push + queue_pop, one thread", N, "items", push_and_pop, q);
    hooks *h = hook_new();
    log_setup(LOG_ERROR, false);
    bench("hook_wanted, nobody listens", N, "calls", emit_to_nobody, h);
    bench("all hook points once, nobody listens", 1, "requests", ask_all_points, h);
    hook_on(h, HOOK_TRAIN_STEP, "x", 0, listen_only, NULL, NULL);
    bench("hook_emit, one subscriber", 1, "calls", emit_to_one, h);
    queue_free(q);
    hook_free(h);
    buf_free(&rows);
    buf_free(&text);
    return 0;
}

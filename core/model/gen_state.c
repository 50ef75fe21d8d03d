/* One answer as it grows: ids, random numbers, and the text that may be shown. */
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/model/gen.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HELD = 1 << 20 };

struct gen_state {
    const tok *tok;
    gen_params p;
    uint64_t stream;
    int32_t *ids; /* prompt, then answer */
    size_t n, n_prompt, cap;
    tok_stream *text;
    buf held; /* text that a stop string may begin in */
    gen_finish finish;
};

/* The answer goes on from the prompt: whether its first word has a space before it depends on what
 * came before. An id that the tokenizer does not know has no text. */
static void read_prompt(gen_state *s)
{
    buf shown;
    buf_init(&shown, MAX_HELD);
    for (size_t i = 0; i < s->n_prompt; i++) {
        tok_stream_push(s->text, s->ids[i], &shown, NULL);
        buf_reset(&shown);
    }
    buf_free(&shown);
}

gen_state *gen_state_new(const tok *t, const gen_params *p, const int32_t *prompt, size_t n_prompt,
                         uint64_t stream)
{
    gen_state *s = mem_alloc(sizeof *s);
    *s = (gen_state){.tok = t, .p = *p, .stream = stream, .n = n_prompt, .n_prompt = n_prompt};
    s->ids = mem_grow(NULL, &s->cap, n_prompt + 1, sizeof *s->ids);
    memcpy(s->ids, prompt, n_prompt * sizeof *prompt);
    s->text = tok_stream_new(t, true);
    buf_init(&s->held, MAX_HELD);
    read_prompt(s);
    return s;
}

void gen_state_free(gen_state *s)
{
    if (s == NULL)
        return;
    tok_stream_free(s->text);
    buf_free(&s->held);
    free(s->ids);
    free(s);
}

void gen_state_row(const gen_state *s, kern_sample_row *row)
{
    const gen_params *p = &s->p;
    size_t n_answer = s->n - s->n_prompt;
    rng r = {.seed = p->seed, .stream = s->stream, .index = n_answer};
    *row = (kern_sample_row){
        .temperature = p->temperature,
        .top_p = p->top_p,
        .min_p = p->min_p,
        .top_k = p->top_k,
        .repetition = p->repetition,
        .presence = p->presence,
        .frequency = p->frequency,
        .n_context = (int64_t)s->n,
        .context = s->ids,
        .n_answer = (int64_t)n_answer,
        .answer = s->ids + s->n_prompt,
        .n_bias = p->n_bias,
        .bias_id = p->bias_id,
        .bias = p->bias,
        .u = rng_uniform(&r),
        .n_top = p->n_top,
    };
}

static bool listed(const int32_t *ids, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static bool stops(const gen_state *s, int32_t id)
{
    const int32_t *own;
    size_t n = tok_stop_ids(s->tok, &own);
    return listed(s->p.stop_ids, (size_t)s->p.n_stop_ids, id) ||
           (!s->p.ignore_eos && listed(own, n, id));
}

/* Where the first stop string begins in the held text; SIZE_MAX where none does. */
static size_t find_stop(const gen_state *s)
{
    size_t first = SIZE_MAX;
    for (int i = 0; i < s->p.n_stop; i++) {
        size_t len = strlen(s->p.stop[i]);
        const char *at = len == 0 ? NULL : memmem(s->held.data, s->held.len, s->p.stop[i], len);
        if (at != NULL && (size_t)(at - s->held.data) < first)
            first = (size_t)(at - s->held.data);
    }
    return first;
}

/* Bytes at the end of the held text that could be the beginning of a stop string. */
static size_t begun_stop(const gen_state *s)
{
    size_t longest = 0;
    for (int i = 0; i < s->p.n_stop; i++) {
        size_t len = strlen(s->p.stop[i]);
        size_t k = len == 0 ? 0 : len - 1 < s->held.len ? len - 1 : s->held.len;
        while (k > longest && memcmp(s->held.data + s->held.len - k, s->p.stop[i], k) != 0)
            k--;
        longest = k > longest ? k : longest;
    }
    return longest;
}

/* Gives out the first n held bytes and drops them. */
static void show(gen_state *s, size_t n, buf *out)
{
    if (n == 0)
        return;
    if (out != NULL)
        buf_add(out, s->held.data, n);
    memmove(s->held.data, s->held.data + n, s->held.len - n + 1);
    s->held.len -= n;
}

/* Ends the answer: what is held is text after all, unless a stop string stands in it. */
static int end(gen_state *s, gen_finish why, buf *out, hone_err *e)
{
    int rc = tok_stream_end(s->text, &s->held);
    size_t stop = find_stop(s);
    s->finish = stop != SIZE_MAX ? GEN_STOP : why;
    show(s, stop != SIZE_MAX ? stop : s->held.len, out);
    buf_reset(&s->held);
    return rc != 0 ? hone_fail(e, rc, "the text of an answer cannot be ended") : 0;
}

int gen_state_take(gen_state *s, const kern_sample_row *row, buf *out, hone_err *e)
{
    if (s->finish != GEN_RUNNING)
        return hone_fail(e, HONE_EINVAL, "the answer has ended");
    if (stops(s, row->id))
        return end(s, GEN_STOP, out, e);
    s->ids = mem_grow(s->ids, &s->cap, s->n + 1, sizeof *s->ids);
    s->ids[s->n++] = row->id;
    int rc = tok_stream_push(s->text, row->id, &s->held, e);
    if (rc == 0)
        rc = buf_check(&s->held, "text of an answer", e);
    if (rc != 0)
        return rc;
    if (find_stop(s) != SIZE_MAX)
        return end(s, GEN_STOP, out, e);
    if (s->p.max_tokens >= 0 && (int64_t)(s->n - s->n_prompt) >= s->p.max_tokens)
        return end(s, GEN_LENGTH, out, e);
    show(s, s->held.len - begun_stop(s), out);
    return 0;
}

gen_finish gen_state_finish(const gen_state *s)
{
    return s->finish;
}

int gen_state_flush(gen_state *s, buf *out, hone_err *e)
{
    return s->finish == GEN_RUNNING ? end(s, GEN_CANCELLED, out, e) : 0;
}

const int32_t *gen_state_ids(const gen_state *s, size_t *n)
{
    *n = s->n - s->n_prompt;
    return s->ids + s->n_prompt;
}

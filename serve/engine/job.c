/* Requests as the engine keeps them: deep copies, so that the caller may forget its own at once. */
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/engine/engine_int.h"

#include <stdlib.h>
#include <string.h>

static void *copy_of(const void *p, size_t bytes)
{
    void *q = mem_alloc(bytes);
    if (bytes != 0)
        memcpy(q, p, bytes);
    return q;
}

static void gen_params_copy(gen_params *to, const gen_params *from)
{
    *to = *from;
    to->stop = mem_array((size_t)from->n_stop, sizeof *to->stop);
    for (int i = 0; i < from->n_stop; i++)
        to->stop[i] = mem_strdup(from->stop[i]);
    to->stop_ids = copy_of(from->stop_ids, (size_t)from->n_stop_ids * sizeof *to->stop_ids);
    to->bias_id = copy_of(from->bias_id, (size_t)from->n_bias * sizeof *to->bias_id);
    to->bias = copy_of(from->bias, (size_t)from->n_bias * sizeof *to->bias);
}

static void gen_params_clear(gen_params *p)
{
    for (int i = 0; i < p->n_stop; i++)
        free(p->stop[i]);
    free(p->stop);
    free(p->stop_ids);
    free(p->bias_id);
    free(p->bias);
    memset(p, 0, sizeof *p);
}

static void seq_init(seq *s, job *j, int choice)
{
    const served *on = j->on;
    size_t context = (size_t)on->context;
    *s = (seq){.owner = j, .choice = choice, .cap_ids = j->n_prompt, .n_ids = j->n_prompt};
    s->ids = copy_of(j->prompt, j->n_prompt * sizeof *s->ids);
    s->blocks = mem_array(context / (size_t)on->block_tokens + 1, sizeof *s->blocks);
    s->state = gen_state_new(on->tok, &j->params, j->prompt, j->n_prompt, (uint64_t)choice);
}

job *job_new(const engine_request *r, uint64_t ticket)
{
    job *j = mem_alloc(sizeof *j);
    j->ticket = ticket;
    j->on = r->on;
    served_retain(j->on);
    j->n_prompt = r->n_prompt;
    j->prompt = copy_of(r->prompt, r->n_prompt * sizeof *j->prompt);
    gen_params_copy(&j->params, r->params);
    int64_t room = r->on->context - (int64_t)r->n_prompt;
    if (j->params.max_tokens < 0 || j->params.max_tokens > room)
        j->params.max_tokens = room;
    j->echo_logprobs = r->echo_logprobs;
    j->n = r->n;
    j->fn = r->fn;
    j->user = r->user;
    j->submit_ns = clock_mono_ns();
    j->deadline_ns = r->deadline_ms > 0 ? j->submit_ns + r->deadline_ms * 1000000 : 0;
    j->seqs = mem_array((size_t)r->n, sizeof *j->seqs);
    for (int i = 0; i < r->n; i++)
        seq_init(&j->seqs[i], j, i);
    return j;
}

void job_free(job *j)
{
    if (j == NULL)
        return;
    for (int i = 0; i < j->n; i++) {
        gen_state_free(j->seqs[i].state);
        free(j->seqs[i].ids);
        free(j->seqs[i].blocks);
    }
    free(j->seqs);
    free(j->prompt);
    gen_params_clear(&j->params);
    served_release(j->on);
    free(j);
}

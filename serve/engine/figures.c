/* What each model has done. There are few: the live one, one beside it, those of before that still
 * run dry or that somebody may roll back to. */
#include "core/base/mem.h"
#include "serve/engine/engine_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const double engine_hist_bounds[ENGINE_HIST_BUCKETS] = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60};

static bool is_of(const figures *f, const served *on)
{
    return on != NULL && strncmp(f->f.name, on->name, sizeof f->f.name - 1) == 0 &&
           strcmp(f->f.model_digest, on->model_digest) == 0 &&
           strcmp(f->f.adapter_digest, on->adapter_digest) == 0;
}

/* The one at the end of the list has been idle longest. */
static void forget_one(engine *g)
{
    figures **found = NULL;
    int n = 0;
    for (figures **at = &g->figures; *at != NULL; at = &(*at)->next, n++)
        if ((*at)->n_jobs == 0 && !is_of(*at, g->current) && !is_of(*at, g->beside))
            found = at;
    if (n < ENGINE_MAX_FIGURES || found == NULL)
        return;
    figures *f = *found;
    *found = f->next;
    free(f);
}

figures *figures_of(engine *g, const served *on)
{
    figures **at = &g->figures;
    while (*at != NULL && !is_of(*at, on))
        at = &(*at)->next;
    figures *f = *at;
    if (f != NULL) {
        *at = f->next;
    } else {
        forget_one(g);
        f = mem_alloc(sizeof *f);
        snprintf(f->f.name, sizeof f->f.name, "%s", on->name);
        memcpy(f->f.model_digest, on->model_digest, sizeof f->f.model_digest);
        memcpy(f->f.adapter_digest, on->adapter_digest, sizeof f->f.adapter_digest);
    }
    f->next = g->figures;
    g->figures = f;
    return f;
}

void figures_free(engine *g)
{
    for (figures *f = g->figures, *next; f != NULL; f = next) {
        next = f->next;
        free(f);
    }
}

void engine_observe(engine *g, const job *j, engine_hist_kind kind, double seconds)
{
    int i = 0;
    while (i < ENGINE_HIST_BUCKETS && seconds > engine_hist_bounds[i])
        i++;
    pthread_mutex_lock(&g->lock);
    engine_hist *h = &j->figures->f.hist[kind];
    h->bucket[i]++;
    h->sum += seconds;
    h->count++;
    pthread_mutex_unlock(&g->lock);
}

void figures_taken(engine *g, job *j)
{
    engine_counts *all = &g->stats.count;
    j->figures = figures_of(g, j->on);
    j->figures->n_jobs++;
    for (engine_counts *c = all; c != NULL; c = c == all ? &j->figures->f.count : NULL) {
        c->requests++;
        c->prompt_tokens += j->n_prompt;
    }
}

void engine_count_done(engine *g, job *j, bool failed)
{
    pthread_mutex_lock(&g->lock);
    engine_counts *all = &g->stats.count;
    for (engine_counts *c = all; c != NULL; c = c == all ? &j->figures->f.count : NULL) {
        if (!failed)
            c->finished++;
        else if (j->cancelled)
            c->cancelled++;
        else
            c->failed++;
        for (int i = 0; i < j->n; i++)
            c->answer_tokens += j->seqs[i].n_ids - j->n_prompt;
    }
    j->figures->n_jobs--;
    pthread_mutex_unlock(&g->lock);
}

int engine_models(engine *g, engine_figures *out, int max)
{
    int n = 0;
    pthread_mutex_lock(&g->lock);
    for (const figures *f = g->figures; f != NULL && n < max; f = f->next)
        out[n++] = f->f;
    pthread_mutex_unlock(&g->lock);
    return n;
}

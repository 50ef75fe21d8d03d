#include "kernels/cpu/compact.h"

#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum { EXPONENTS = 256, HALF = COMPACT_STEP / 2, SLACK = 64 };

bool cpu_compact_here(void)
{
#if defined(__x86_64__)
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 6 & 1) == 1; /* VBMI2 */
#else
    return false;
#endif
}

bool cpu_compact_fits(const kern_dev *d, const cpu_matrix *m)
{
    const cpu_dev *c = (const cpu_dev *)d;
    return c->compact && m->dtype == KERN_BF16 && m->l.width == VEC_MV_COLS;
}

static int exponent(uint16_t bf16)
{
    return bf16 >> 7 & 255;
}

static int64_t panels_of(const cpu_matrix *m)
{
    return (m->l.cols + m->l.width - 1) / m->l.width;
}

/* ---- one panel ------------------------------------------------------------------------------- */

/* The most frequent exponents of n weights. Returns how many weights have another. */
static int64_t choose(const uint16_t *w, int64_t n, uint8_t table[COMPACT_TABLE])
{
    int64_t count[EXPONENTS] = {0}, rare = n;
    for (int64_t i = 0; i < n; i++)
        count[exponent(w[i])]++;
    for (int t = 0; t < COMPACT_RARE; t++) {
        int best = 0;
        for (int e = 1; e < EXPONENTS; e++)
            best = count[e] > count[best] ? e : best;
        table[t] = (uint8_t)best;
        rare -= count[best];
        count[best] = 0;
    }
    return rare;
}

/* Where weight i of a step lies, so that interleaving bytes by lanes of 16 brings four vectors of
 * 32 back in order. */
static int byte_of(int i)
{
    int vector = i / 32, lane = i % 32 / 8;
    return vector / 2 * HALF + lane * 16 + vector % 2 * 8 + i % 8;
}

/* Returns where the next rare exponent goes. */
static uint8_t *write_step(const uint16_t *step, const uint8_t code[EXPONENTS], uint8_t *to,
                           uint8_t *rare)
{
    uint64_t plane[2][3] = {{0}};
    uint8_t e[COMPACT_STEP];
    for (int i = 0; i < COMPACT_STEP; i++) {
        int at = byte_of(i);
        to[at] = (uint8_t)(step[i] << 1 | step[i] >> 15);
        e[at] = (uint8_t)exponent(step[i]);
    }
    for (int at = 0; at < COMPACT_STEP; at++) {
        uint64_t c = code[e[at]];
        for (int b = 0; b < 3; b++)
            plane[at / HALF][b] |= (c >> b & 1) << at % HALF;
        if (c == COMPACT_RARE)
            *rare++ = e[at];
    }
    memcpy(to + COMPACT_STEP, plane, sizeof plane);
    return rare;
}

/* ---- a matrix -------------------------------------------------------------------------------- */

typedef struct job {
    const cpu_matrix *m;
    cpu_compact *c;
    uint8_t *data;
    int64_t panels, steps; /* of a panel */
} job;

static const uint16_t *panel_of(const job *j, int64_t p)
{
    return (const uint16_t *)j->m->data + p * j->steps * COMPACT_STEP;
}

static void count_panel(void *arg, int64_t p, int thread)
{
    const job *j = arg;
    (void)thread;
    j->c->first[p + 1] =
        choose(panel_of(j, p), j->steps * COMPACT_STEP, j->c->table + p * COMPACT_TABLE);
}

static void write_panel(void *arg, int64_t p, int thread)
{
    const job *j = arg;
    uint8_t code[EXPONENTS], *rare = j->c->rare + j->c->first[p];
    (void)thread;
    memset(code, COMPACT_RARE, sizeof code);
    for (int t = 0; t < COMPACT_RARE; t++)
        code[j->c->table[p * COMPACT_TABLE + t]] = (uint8_t)t;
    for (int64_t k = 0; k < j->steps; k++)
        rare = write_step(panel_of(j, p) + k * COMPACT_STEP, code,
                          j->data + (p * j->steps + k) * COMPACT_STEP_BYTES, rare);
}

static void release(kern_dev *d, cpu_compact *c)
{
    if (c == NULL)
        return;
    cpu_give(d, c->table);
    cpu_give(d, c->first);
    cpu_give(d, c->rare);
    free(c);
}

void cpu_compact_free(kern_dev *d, cpu_matrix *m)
{
    release(d, m->compact);
    m->compact = NULL;
}

static int count_rare(kern_dev *d, job *j)
{
    void *table, *first = NULL;
    int rc = cpu_alloc(d, (size_t)(j->panels * COMPACT_TABLE), &table);
    if (rc == 0)
        rc = cpu_alloc(d, (size_t)(j->panels + 1) * sizeof *j->c->first, &first);
    j->c->table = table;
    j->c->first = first;
    if (rc != 0)
        return rc;
    cpu_run(d, j->steps * j->panels * COMPACT_STEP, j->panels, count_panel, j);
    for (int64_t p = 0; p < j->panels; p++)
        j->c->first[p + 1] += j->c->first[p];
    return 0;
}

static int write_all(kern_dev *d, job *j)
{
    size_t bytes = (size_t)(j->panels * j->steps) * COMPACT_STEP_BYTES;
    void *rare, *data = NULL;
    int rc = cpu_take_lasting(d, "weight_new", (size_t)j->c->first[j->panels] + SLACK, &rare);
    if (rc == 0)
        rc = cpu_take_lasting(d, "weight_new", bytes, &data);
    j->c->rare = rare;
    j->data = data;
    if (rc == 0)
        cpu_run(d, j->steps * j->panels * COMPACT_STEP, j->panels, write_panel, j);
    return rc;
}

int cpu_compact_make(kern_dev *d, cpu_matrix *m)
{
    job j = {.m = m,
             .c = calloc(1, sizeof *j.c),
             .panels = panels_of(m),
             .steps = m->l.depth_pad / m->l.group};
    if (j.c == NULL)
        return cpu_fail(d, KERN_ENOMEM, "weight_new: no memory for %zu bytes", sizeof *j.c);
    int rc = count_rare(d, &j);
    /* 176 of 256 bytes and the rare ones; 29 more would be four fifths. */
    bool pays = rc == 0 && j.c->first[j.panels] <= j.panels * j.steps * 28;
    if (pays)
        rc = write_all(d, &j);
    if (rc != 0 || !pays) {
        release(d, j.c);
        return rc;
    }
    cpu_give(d, m->data);
    m->data = j.data;
    m->compact = j.c;
    return 0;
}

cpu_compact_panel cpu_compact_at(const cpu_matrix *m, int64_t panel)
{
    const cpu_compact *c = m->compact;
    int64_t steps = m->l.depth_pad / m->l.group;
    return (cpu_compact_panel){(const uint8_t *)m->data + panel * steps * COMPACT_STEP_BYTES,
                               c->table + panel * COMPACT_TABLE, c->rare + c->first[panel]};
}

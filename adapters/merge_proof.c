#include "adapters/merge_proof.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/device.h"
#include "core/model/digest.h"
#include "core/model/safetensors.h"
#include "core/text/chat.h"
#include "core/text/tok.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_POSITIONS = 256, MAX_PROMPT_TOKENS = 64, MAX_PROMPTS = 64 };
static const size_t MAX_ROW_BYTES = (size_t)512 << 20; /* what the kept rows may take */
/* Rounding decides between tokens that are as likely as this; that is no disagreement. */
static const float TIE_NATS = 0.1F;
static const int64_t F32_PARAMS = 1000000000; /* larger models are compared in bf16 */

static const char *const built_in[] = {
    "The meeting was moved to Thursday because",
    "To reset the device, hold the button until",
    "Once upon a time, in a small village near the sea, there lived",
    "Question: What is included in the warranty?\nAnswer:",
    "def add(a, b):\n    return",
    "Please summarise the following message in one sentence:",
    "1, 2, 3, 4, 5,",
    "Dear customer, thank you for your order. We are sorry that",
    NULL,
};

struct proof {
    const merge_options *o;
    kern_dev *dev;
    kern_dtype compute;
    st_dtype stored;
    tok *tok;
    int32_t *ids, *pos, *target, *cu; /* one packed batch: a prompt a segment */
    int64_t n, vocab;
    int n_seg;
    float *rows;          /* [n, vocab] log-probabilities of base + adapter */
    merge_report *report; /* while proof_end runs */
    int64_t agree;
    double kl;
};

/* ---- prompts ---- */

static int add_ids(proof *p, const int32_t *ids, size_t n)
{
    int64_t room = MAX_POSITIONS - p->n;
    int64_t take = (int64_t)n < MAX_PROMPT_TOKENS ? (int64_t)n : MAX_PROMPT_TOKENS;
    take = take < room ? take : room;
    for (int64_t i = 0; i < take; i++) {
        p->ids[p->n] = ids[i];
        p->pos[p->n] = (int32_t)i;
        p->target[p->n++] = ids[i]; /* any id will do: the whole row is read */
    }
    if (take > 0)
        p->cu[++p->n_seg] = (int32_t)p->n;
    return 0;
}

static int add_text(proof *p, const char *text, size_t len, unsigned flags, hone_err *e)
{
    tok_ids ids = {0};
    int rc = tok_encode(p->tok, text, len, flags, &ids, e);
    if (rc == 0)
        rc = add_ids(p, ids.id, ids.n);
    tok_ids_free(&ids);
    return rc;
}

/* A line of the prompts file: {"text": ...} or {"messages": [...]}. */
static int add_line(proof *p, const chat *c, const char *line, size_t len, hone_err *e)
{
    json_t *o = NULL;
    buf text;
    buf_init(&text, 1 << 20);
    int rc = js_parse(&o, line, len, e);
    const char *plain = json_string_value(json_object_get(o, "text"));
    json_t *messages = json_object_get(o, "messages");
    if (rc == 0 && plain != NULL) {
        rc = add_text(p, plain, strlen(plain), TOK_ADD_SPECIAL, e);
    } else if (rc == 0 && messages != NULL && c != NULL) {
        rc = chat_render(c, messages, &(chat_options){0}, &text, e);
        if (rc == 0)
            rc = add_text(p, text.data, text.len, 0, e);
    } else if (rc == 0) {
        rc = hone_fail(e, HONE_EFORMAT,
                       "expected a field 'text', or 'messages' and a model with a "
                       "chat template");
    }
    buf_free(&text);
    json_decref(o);
    return rc;
}

static int read_prompts(proof *p, const chat *c, hone_err *e)
{
    char *text;
    size_t len;
    int rc = file_read(&text, &len, p->o->prompts_file, 64 << 20, e);
    if (rc != 0)
        return rc;
    int line_no = 1;
    for (char *s = text;
         rc == 0 && s < text + len && p->n < MAX_POSITIONS && p->n_seg < MAX_PROMPTS; line_no++) {
        char *end = memchr(s, '\n', (size_t)(text + len - s));
        size_t n = end != NULL ? (size_t)(end - s) : (size_t)(text + len - s);
        if (n > 0)
            rc = add_line(p, c, s, n, e);
        if (rc != 0)
            hone_fail_at(e, "%s: line %d", p->o->prompts_file, line_no);
        s += n + 1;
    }
    free(text);
    return rc;
}

/* A small vocabulary may have no token for some of them: those are passed over. */
static int add_built_in(proof *p, hone_err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && built_in[i] != NULL; i++) {
        rc = add_text(p, built_in[i], strlen(built_in[i]), TOK_ADD_SPECIAL, e);
        if (rc == HONE_EFORMAT)
            rc = 0;
    }
    return rc;
}

static int make_batch(proof *p, hone_err *e)
{
    chat *c = NULL;
    int rc = 0;
    p->ids = mem_array(MAX_POSITIONS, sizeof *p->ids);
    p->pos = mem_array(MAX_POSITIONS, sizeof *p->pos);
    p->target = mem_array(MAX_POSITIONS, sizeof *p->target);
    p->cu = mem_array(MAX_PROMPTS + 2, sizeof *p->cu);
    if (p->o->prompts_file != NULL) {
        hone_err none = {0};
        if (chat_open(&c, p->o->model_dir, NULL, &none) != 0 && none.code != HONE_ENOTFOUND)
            rc = hone_fail(e, none.code, "%s", none.msg);
        if (rc == 0)
            rc = read_prompts(p, c, e);
        chat_close(c);
    } else {
        rc = add_built_in(p, e);
    }
    if (rc == 0 && p->n == 0)
        rc = hone_fail(e, HONE_EINVAL, "no prompt to compare the models on");
    return rc;
}

/* ---- the two passes ---- */

static model_batch batch_of(const proof *p)
{
    return (model_batch){.n = p->n,
                         .ids = p->ids,
                         .pos = p->pos,
                         .target = p->target,
                         .cu = p->cu,
                         .n_seg = p->n_seg};
}

static int keep_row(void *user, int64_t row, const float *logprobs, int64_t vocab, hone_err *e)
{
    proof *p = user;
    (void)e;
    memcpy(p->rows + row * p->vocab, logprobs, (size_t)vocab * sizeof(float));
    return 0;
}

static int64_t arg_max(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static int compare_row(void *user, int64_t row, const float *got, int64_t vocab, hone_err *e)
{
    proof *p = user;
    const float *want = p->rows + row * p->vocab;
    double kl = 0, worst = p->report->max_abs_diff;
    for (int64_t i = 0; i < vocab; i++) {
        double d = (double)want[i] - (double)got[i];
        if (!isfinite(d))
            return hone_fail(e, HONE_ENUMERIC, "a log-probability is not finite");
        kl += exp((double)want[i]) * d;
        worst = fabs(d) > worst ? fabs(d) : worst;
    }
    p->report->max_abs_diff = worst;
    p->kl += kl;
    p->agree += want[arg_max(want, vocab)] - want[arg_max(got, vocab)] <= TIE_NATS;
    return 0;
}

static int keep_rows(proof *p, const char *dir, const model_options *mo, adapter_pair_fn *fn,
                     void *user, hone_err *e)
{
    model *m = NULL;
    adapter *a = NULL;
    char digest[65];
    int rc = model_dir_digest(digest, dir, e);
    if (rc == 0)
        rc = model_open(&m, dir, mo, e);
    if (rc == 0)
        rc = adapter_open(&a, p->o->adapter_dir, m, false, digest, NULL, e);
    if (rc == 0)
        rc = adapter_pairs(a, fn, user, e);
    if (rc == 0) {
        p->vocab = model_config(m)->vocab;
        int64_t fits = (int64_t)(MAX_ROW_BYTES / sizeof(float)) / p->vocab;
        for (; p->n > fits && p->n_seg > 1; p->n_seg--)
            p->n = p->cu[p->n_seg - 1];
        p->rows = mem_try_array((size_t)(p->n * p->vocab), sizeof(float));
        if (p->rows == NULL)
            rc = hone_fail(e, HONE_ENOMEM, "no memory for the proof's %lld rows", (long long)p->n);
    }
    if (rc == 0) {
        model_batch b = batch_of(p);
        rc = model_logprobs(m, &b, keep_row, p, e);
    }
    adapter_close(a);
    model_close(m);
    return rc;
}

/* The stored form of the weights decides the tolerance, their number the arithmetic of the
 * comparison. */
static int look_at_base(proof *p, hone_err *e)
{
    safetensors *st = NULL;
    int64_t n = 0;
    int rc = safetensors_open(&st, p->o->model_dir, e);
    if (rc != 0)
        return rc;
    p->stored = ST_F32;
    for (size_t i = 0; i < safetensors_count(st); i++) {
        const st_tensor *t = safetensors_at(st, i);
        n += (int64_t)(t->bytes / 2);
        if (t->dtype == ST_F16 || t->dtype == ST_BF16)
            p->stored = t->dtype;
    }
    p->compute = n <= F32_PARAMS ? KERN_F32 : KERN_BF16;
    safetensors_close(st);
    return 0;
}

int proof_begin(proof **out, const merge_options *o, adapter_pair_fn *fn, void *user, hone_err *e)
{
    *out = NULL;
    proof *p = mem_alloc(sizeof *p);
    p->o = o;
    int rc = look_at_base(p, e);
    if (rc == 0)
        rc = device_open(&p->dev, o->device != NULL ? o->device : "cpu", o->threads, e);
    if (rc == 0)
        rc = tok_open(&p->tok, o->model_dir, e);
    if (rc == 0)
        rc = make_batch(p, e);
    if (rc == 0) {
        model_options mo = {.dev = p->dev, .dtype = p->compute};
        rc = keep_rows(p, o->model_dir, &mo, fn, user, e);
    }
    if (rc != 0) {
        proof_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

static int verdict(const proof *p, hone_err *e)
{
    const merge_report *r = p->report;
    double by_form = p->stored == ST_F32 ? 1e-3 : p->stored == ST_F16 ? 0.1 : 0.5;
    double max_diff = p->o->max_diff > 0 ? p->o->max_diff : by_form;
    double min_agreement = p->o->min_agreement > 0 ? p->o->min_agreement : 0.99;
    if (r->max_abs_diff <= max_diff && r->agreement >= min_agreement)
        return 0;
    return hone_fail(e, HONE_ENUMERIC,
                     "the merged model is not the adapted one: largest log-probability difference "
                     "%.4g (at most %.4g), same best token at %.4f of %lld positions (at least "
                     "%.4f); nothing was written",
                     r->max_abs_diff, max_diff, r->agreement, (long long)r->n_positions,
                     min_agreement);
}

int proof_end(proof *p, const char *merged_dir, merge_report *report, hone_err *e)
{
    model *m = NULL;
    model_options mo = {.dev = p->dev, .dtype = p->compute};
    model_batch b = batch_of(p);
    p->report = report;
    int rc = model_open(&m, merged_dir, &mo, e);
    if (rc == 0)
        rc = model_logprobs(m, &b, compare_row, p, e);
    model_close(m);
    if (rc != 0)
        return hone_fail_at(e, "merged model");
    report->n_positions = p->n;
    report->mean_kl = p->kl / (double)p->n;
    report->agreement = (double)p->agree / (double)p->n;
    return verdict(p, e);
}

void proof_free(proof *p)
{
    if (p == NULL)
        return;
    tok_close(p->tok);
    kern_close(p->dev);
    free(p->ids);
    free(p->pos);
    free(p->target);
    free(p->cu);
    free(p->rows);
    free(p);
}

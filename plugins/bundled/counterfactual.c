/* Counterfactual swaps (bias.probe): the user's own prompts, once as they are and once with terms
 * of a group exchanged for those of the other: does the model find the text less likely, does it
 * answer otherwise?
 *
 * A line of the file is {"text"}, {"prompt", "completion"} or {"messages"}, of which "group" names
 * where it belongs. Terms are whole words of a table that goes both ways; case is kept, and each
 * word is looked at once, so that nothing is exchanged back. The table has groups: a line is
 * exchanged in one group at a time, and is left out of a group where the exchange is not sure: Mr,
 * Mrs, Ms, sir and madam have no one counterpart; a term beside a hyphen is part of another word;
 * her stands for him and for his, his for her and for hers, and the words around do not always
 * tell which.
 *
 * augment (data.record) makes the same exchange in training data, in all groups at once: beside a
 * record, its twin. */
#include <bundled/pronoun.h>
#include <hone_plugin.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum {
    MAX_LINES = 50000,
    MAX_BYTES = 64 << 20,
    MAX_LINE = 1 << 20,
    MAX_TERMS = 4096,
    MAX_TERM_GROUPS = 32,
    TABLE = 4 * MAX_TERMS,
    MAX_GROUPS = 64,
    MAX_DEPTH = 32
};
static const char probe_name[] = "counterfactual";

/* clang-format off */
static const char *const built_in[][2] = {
    {"he", "she"}, {"himself", "herself"}, {"man", "woman"}, {"men", "women"}, {"boy", "girl"},
    {"boys", "girls"}, {"gentleman", "lady"}, {"gentlemen", "ladies"}, {"male", "female"},
    {"males", "females"}, {"father", "mother"}, {"fathers", "mothers"}, {"dad", "mom"},
    {"dads", "moms"}, {"daddy", "mommy"}, {"son", "daughter"}, {"sons", "daughters"},
    {"brother", "sister"}, {"brothers", "sisters"}, {"husband", "wife"}, {"husbands", "wives"},
    {"uncle", "aunt"}, {"uncles", "aunts"}, {"nephew", "niece"}, {"nephews", "nieces"},
    {"grandfather", "grandmother"}, {"grandfathers", "grandmothers"}, {"grandpa", "grandma"},
    {"grandson", "granddaughter"}, {"grandsons", "granddaughters"}, {"stepfather", "stepmother"},
    {"stepson", "stepdaughter"}, {"boyfriend", "girlfriend"}, {"boyfriends", "girlfriends"},
    {"groom", "bride"}, {"widower", "widow"}, {"king", "queen"}, {"kings", "queens"},
    {"prince", "princess"}, {"princes", "princesses"}, {"actor", "actress"},
    {"actors", "actresses"}, {"waiter", "waitress"}, {"waiters", "waitresses"},
    {"salesman", "saleswoman"}, {"businessman", "businesswoman"}, {"policeman", "policewoman"},
    {"spokesman", "spokeswoman"}, {"chairman", "chairwoman"}, {"congressman", "congresswoman"},
    {"schoolboy", "schoolgirl"}, {"masculine", "feminine"}};
/* Group terms without one sure counterpart. */
static const char *const unsure[] = {"mr", "mrs", "ms", "sir", "madam"};
/* clang-format on */

typedef struct term {
    char *lower;          /* one allocation with spelling */
    const char *spelling; /* as it was given */
    size_t other, group;  /* other: its counterpart; itself where there is no sure one */
    form form;
} term;

typedef struct counter {
    term terms[MAX_TERMS];
    uint16_t table[TABLE]; /* of a hash table, a term's number + 1 */
    char *groups[MAX_TERM_GROUPS];
    size_t n_terms, n_groups, first_unsure[MAX_TERM_GROUPS], len;
    size_t forms[N_FORMS]; /* numbers of the terms, where ours are there */
    char *text;            /* the file */
    int64_t min_pairs;
} counter;

static void counter_free(counter *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n_terms; i++)
        free(c->terms[i].lower);
    for (size_t i = 0; i < c->n_groups; i++)
        free(c->groups[i]);
    free(c->text);
    free(c);
}

/* ---- terms ---- */

/* Where the term is in the table, or the free place for it. */
static uint16_t *place_of(const counter *c, const char *lower)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (const char *s = lower; *s != '\0'; s++)
        hash = (hash ^ (unsigned char)*s) * 16777619u;
    size_t i = hash % TABLE;
    while (c->table[i] != 0 && strcmp(c->terms[c->table[i] - 1].lower, lower) != 0)
        i = (i + 1) % TABLE;
    return (uint16_t *)(uintptr_t)&c->table[i];
}

/* NULL where the word is none of the groups of the mask. */
static const term *find_term(const counter *c, const char *s, size_t n, uint32_t mask)
{
    char lower[MAX_WORD];
    if (!lower_word(lower, s, n))
        return NULL;
    uint16_t number = *place_of(c, lower);
    if (number == 0 || (mask >> c->terms[number - 1].group & 1) == 0)
        return NULL;
    return &c->terms[number - 1];
}

static int is_sure(const counter *c, const term *t)
{
    return &c->terms[t->other] != t;
}

typedef struct grow {
    char *s;
    size_t n, cap;
    int failed;
} grow;

static void put(grow *t, const char *s, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        size_t cap = 2 * (t->n + n) + 64;
        char *grown = realloc(t->s, cap);
        t->failed |= grown == NULL;
        if (grown == NULL)
            return;
        t->s = grown;
        t->cap = cap;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = '\0';
}

/* Writes term in the case of s[0..n), which is `from`: HE, He, he; and as it was given where s is
 * as that was given. */
static void put_term(grow *out, const term *from, const term *to, const char *s, size_t n)
{
    size_t len, chars = 0, lowers = 0, firsts = 0;
    if (strlen(from->spelling) == n && memcmp(from->spelling, s, n) == 0) {
        put(out, to->spelling, strlen(to->spelling));
        return;
    }
    for (size_t i = 0; i < n; i += len, chars++) {
        utf8proc_category_t k = utf8proc_category(next_char(s + i, n - i, &len));
        lowers += k == UTF8PROC_CATEGORY_LL;
        firsts += i == 0 && (k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LT);
    }
    int all = chars > 1 && lowers == 0;
    for (size_t i = 0, size = strlen(to->lower); i < size; i += len) {
        char one[4];
        utf8proc_int32_t c = next_char(to->lower + i, size - i, &len);
        if (all || (i == 0 && firsts > 0))
            c = utf8proc_toupper(c);
        put(out, one, (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)one));
    }
}

/* What is done to a text: the groups (bits), and how; what came of it. neutral: either term of a
 * pair becomes the first, and all unsure ones of a group one of them, so that two answers that
 * differ in these words alone are the same. */
typedef struct exchange {
    const hone_host *h;
    hone_call *call;
    const counter *c;
    uint32_t mask;
    int neutral, doubt, failed;
    size_t n_swaps;
} exchange;

/* The counterpart of t, which stands at s[i..end); NULL where it is not sure. */
static const term *counterpart(const counter *c, const term *t, const char *s, size_t n, size_t i,
                               size_t end)
{
    if (t->form != HIS && t->form != HER)
        return is_sure(c, t) ? &c->terms[t->other] : NULL;
    follow next = follow_of(t->form, s, n, i, end);
    if (next == EITHER)
        return NULL;
    int alone = next == NEW;
    return &c->terms[c->forms[t->form == HIS ? (alone ? HERS : HER) : (alone ? HIM : HIS)]];
}

/* The word s[i..end). */
static void put_word(exchange *x, grow *out, const char *s, size_t n, size_t i, size_t end)
{
    const counter *c = x->c;
    size_t len = end - i;
    const term *other = NULL, *t = find_term(c, s + i, len, x->mask);
    int joined = after_hyphen(s, i) || is_hyphen(s + end, n - end);
    if (t != NULL && x->neutral && (t->form != NO_FORM || !is_sure(c, t)))
        other = &c->terms[c->first_unsure[t->group]];
    else if (t != NULL && x->neutral)
        other = t->other > (size_t)(t - c->terms) ? t : &c->terms[t->other];
    else if (t != NULL && !joined)
        other = counterpart(c, t, s, n, i, end);
    x->n_swaps += other != NULL && (t->form != NO_FORM || is_sure(c, t));
    x->doubt |= t != NULL && other == NULL;
    if (other != NULL)
        put_term(out, t, other, s + i, len);
    else
        put(out, s + i, len);
}

/* The text with every term exchanged. Caller frees; NULL without memory. */
static char *swapped(exchange *x, const char *s)
{
    size_t n = strlen(s), len;
    grow out = {NULL, 0, 0, 0};
    put(&out, "", 0);
    for (size_t i = 0; i < n; i += len) {
        len = word_len(s + i, n - i);
        if (len > 0) {
            put_word(x, &out, s, n, i, i + len);
            continue;
        }
        next_char(s + i, n - i, &len);
        put(&out, s + i, len);
    }
    x->failed |= out.failed;
    if (out.failed)
        free(out.s);
    return out.failed ? NULL : out.s;
}

/* ---- the table of terms ---- */

static int add_term(counter *c, const char *word, size_t group, size_t other, const hone_host *h,
                    hone_ctx *cx)
{
    char lower[MAX_WORD];
    size_t n = strlen(word);
    if (n == 0 || !lower_word(lower, word, n))
        return h->init_error(cx, "terms: '%.70s' must have 1 to %d bytes", word, MAX_WORD - 5);
    if (word_len(word, n) != n)
        return h->init_error(cx, "terms: '%s' is not one word", word);
    uint16_t *place = place_of(c, lower);
    if (*place != 0)
        return h->init_error(cx, "terms: '%s' stands there twice; builtin: false leaves ours out",
                             word);
    size_t len = strlen(lower);
    char *own = c->n_terms < MAX_TERMS ? malloc(len + n + 2) : NULL;
    if (own == NULL)
        return h->init_error(cx, "terms: no memory, or more than %d", MAX_TERMS);
    memcpy(own, lower, len + 1);
    memcpy(own + len + 1, word, n + 1);
    c->terms[c->n_terms] = (term){own, own + len + 1, other, group, NO_FORM};
    *place = (uint16_t)++c->n_terms;
    return 0;
}

static int add_pair(counter *c, const char *a, const char *b, size_t group, const hone_host *h,
                    hone_ctx *cx)
{
    size_t first = c->n_terms;
    int rc = add_term(c, a, group, first + 1, h, cx);
    return rc == 0 ? add_term(c, b, group, first, h, cx) : rc;
}

static int add_unsure(counter *c, const char *word, size_t group, const hone_host *h, hone_ctx *cx)
{
    int rc = add_term(c, word, group, c->n_terms, h, cx);
    if (rc == 0 && c->first_unsure[group] == 0)
        c->first_unsure[group] = c->n_terms - 1;
    return rc;
}

/* The group of this name, which may be new. */
static int find_group(size_t *out, counter *c, const char *name, const hone_host *h, hone_ctx *cx)
{
    size_t i = 0;
    while (i < c->n_groups && strcmp(c->groups[i], name) != 0)
        i++;
    *out = i;
    if (i < c->n_groups)
        return 0;
    size_t len = strlen(name);
    if (i == MAX_TERM_GROUPS || len == 0 || len > 100)
        return h->init_error(cx,
                             "terms: more than %d groups, or one without a name of 1 to 100 "
                             "bytes",
                             MAX_TERM_GROUPS);
    c->groups[i] = malloc(len + 1);
    if (c->groups[i] == NULL)
        return h->init_error(cx, "no memory");
    memcpy(c->groups[i], name, len + 1);
    c->n_groups++;
    return 0;
}

static int read_pairs(counter *c, size_t group, const hone_value *list, const hone_host *h,
                      hone_ctx *cx)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < h->length(list); i++) {
        const hone_value *pair = h->at(list, i);
        const char *a = h->string(h->at(pair, 0), NULL), *b = h->string(h->at(pair, 1), NULL);
        if (a == NULL || b == NULL || h->length(pair) != 2)
            return h->init_error(cx, "terms: %s: entry %lu is no pair of words", c->groups[group],
                                 (unsigned long)i + 1);
        rc = add_pair(c, a, b, group, h, cx);
    }
    return rc;
}

/* A group is a list of pairs, or {"pairs", "unsure"}. */
static int read_group(counter *c, const char *name, const hone_value *v, const hone_host *h,
                      hone_ctx *cx)
{
    size_t group;
    const hone_value *pairs = h->type(v) == HONE_OBJECT ? h->get(v, "pairs") : v;
    const hone_value *doubtful = h->get(v, "unsure");
    int rc = find_group(&group, c, name, h, cx);
    if (rc == 0 && h->type(pairs) != HONE_ARRAY)
        rc = h->init_error(cx, "terms: %s must be a list of pairs, or {pairs, unsure}", name);
    if (rc == 0)
        rc = read_pairs(c, group, pairs, h, cx);
    for (size_t i = 0; rc == 0 && i < h->length(doubtful); i++) {
        const char *word = h->string(h->at(doubtful, i), NULL);
        rc = word != NULL ? add_unsure(c, word, group, h, cx)
                          : h->init_error(cx, "terms: %s: unsure must be a list of words", name);
    }
    return rc;
}

/* {group: ...}, or a list of pairs of the group that is named `own`. */
static int read_table(counter *c, const hone_value *v, const char *own, const hone_host *h,
                      hone_ctx *cx)
{
    size_t len;
    int rc = 0;
    if (h->type(v) == HONE_ARRAY && own != NULL)
        return read_group(c, own, v, h, cx);
    if (h->type(v) != HONE_OBJECT || h->length(v) == 0)
        return h->init_error(cx, "terms must be {group: [[a, b]]}%s",
                             own != NULL ? " or a list of pairs: [[Anna, Paul]]" : "");
    for (size_t i = 0; rc == 0 && i < h->length(v); i++) {
        const char *name = h->key(v, i, &len);
        rc = read_group(c, name, h->get(v, name), h, cx);
    }
    return rc;
}

static int add_built_in(counter *c, const hone_host *h, hone_ctx *cx)
{
    size_t group;
    int rc = find_group(&group, c, "gender", h, cx);
    for (size_t i = 0; rc == 0 && i < sizeof built_in / sizeof *built_in; i++)
        rc = add_pair(c, built_in[i][0], built_in[i][1], group, h, cx);
    for (form f = HIM; rc == 0 && f < N_FORMS; f++) {
        c->forms[f] = c->n_terms;
        rc = add_unsure(c, pronouns[f - 1], group, h, cx);
        c->terms[c->n_terms - 1].form = f;
    }
    for (size_t i = 0; rc == 0 && i < sizeof unsure / sizeof *unsure; i++)
        rc = add_unsure(c, unsure[i], group, h, cx);
    c->terms[c->forms[HIM]].other = c->forms[HER];
    c->terms[c->forms[HERS]].other = c->forms[HIS];
    return rc;
}

/* The whole file, with a NUL after it; caller frees. NULL: the error is said. */
static char *read_file(size_t *len, const hone_host *h, hone_ctx *cx, const char *path)
{
    FILE *f = fopen(path, "rb");
    char *s = f != NULL ? malloc(MAX_BYTES + 1) : NULL;
    size_t n = s != NULL ? fread(s, 1, MAX_BYTES + 1, f) : 0;
    int failed = f == NULL ? errno : s == NULL ? ENOMEM : ferror(f) ? EIO : 0;
    if (f != NULL)
        fclose(f);
    if (failed != 0)
        h->init_error(cx, "%s: %s", path, strerror(failed));
    else if (n > MAX_BYTES || n == 0)
        h->init_error(cx, "%s: %s", path, n > 0 ? "more than 64 MiB" : "there is nothing in it");
    if (failed != 0 || n > MAX_BYTES || n == 0) {
        free(s);
        return NULL;
    }
    char *fit = realloc(s, n + 1);
    s = fit != NULL ? fit : s;
    s[n] = '\0';
    *len = n;
    return s;
}

static int read_terms_file(counter *c, const hone_host *h, hone_ctx *cx, const char *path)
{
    size_t len;
    char *s = read_file(&len, h, cx, path);
    if (s == NULL)
        return HONE_ERR;
    const hone_value *v = h->parse(cx, s, len);
    free(s);
    return v != NULL ? read_table(c, v, NULL, h, cx) : h->init_error(cx, "%s: is no JSON", path);
}

/* Ours where there is no file, or where they are asked for besides. */
static int read_terms(counter *c, const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx), *own = h->get(s, "terms");
    const char *path = hone_get_string(h, s, "terms_file", NULL);
    const hone_value *builtin = h->get(s, "builtin");
    int ours = h->boolean(builtin, path == NULL);
    int rc = ours ? add_built_in(c, h, cx) : 0;
    if (h->type(builtin) != HONE_BOOL && h->type(builtin) != HONE_NULL &&
        h->type(builtin) != HONE_ABSENT)
        return h->init_error(cx, "builtin must be true or false");
    if (rc == 0 && h->type(own) != HONE_NULL && h->type(own) != HONE_ABSENT)
        rc = read_table(c, own, ours ? "gender" : "terms", h, cx);
    if (rc == 0 && path != NULL)
        rc = read_terms_file(c, h, cx, path);
    if (rc == 0 && c->n_terms == 0)
        rc = h->init_error(cx, "without ours (builtin: false) terms or terms_file is needed");
    return rc;
}

/* ---- values ---- */

/* Members that name something rather than say it. */
static int is_name(const char *key)
{
    static const char *const names[] = {"role", "from", "id", "type", "tool_call_id"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(key, names[i]) == 0)
            return 1;
    return 0;
}

static hone_value *exchange_text(exchange *x, const char *s)
{
    char *other = swapped(x, s);
    hone_value *v = other != NULL ? x->h->new_string(x->call, other, strlen(other)) : NULL;
    x->failed |= v == NULL;
    free(other);
    return v;
}

/* The value with the terms of every text in it exchanged. */
static hone_value *exchange_all(exchange *x, const hone_value *v, int depth)
{
    const hone_host *h = x->h;
    hone_type type = h->type(v);
    size_t len, n = type == HONE_ARRAY || type == HONE_OBJECT ? h->length(v) : 0;
    if (type == HONE_STRING)
        return exchange_text(x, h->string(v, NULL));
    if (n == 0 || depth == MAX_DEPTH) {
        x->doubt |= n > 0;
        return h->copy(x->call, v);
    }
    hone_value *out = type == HONE_ARRAY ? h->new_array(x->call) : h->new_object(x->call);
    for (size_t i = 0; i < n; i++) {
        if (type == HONE_ARRAY) {
            h->append(x->call, out, exchange_all(x, h->at(v, i), depth + 1));
            continue;
        }
        const char *key = h->key(v, i, &len);
        const hone_value *member = h->get(v, key);
        h->set(x->call, out, key,
               is_name(key) ? h->copy(x->call, member) : exchange_all(x, member, depth + 1));
    }
    return out;
}

/* ---- items ---- */

/* A line in its parts: what is asked, and what the model is to find likely after it (or alone). */
typedef struct line {
    const hone_host *h;
    hone_call *call;
    const counter *c;
    const char *group;          /* of its own, or NULL */
    hone_value *asked, *learnt; /* a text, or messages; NULL: there is none */
    int chat;                   /* learnt are messages, with what was asked before */
} line;

static hone_value *string(const line *l, const char *s)
{
    return l->h->new_string(l->call, s, strlen(s));
}

/* The conversation up to an assistant's turn that ends it is asked. */
static int read_messages(line *l, hone_value *messages, unsigned long number)
{
    const hone_host *h = l->h;
    size_t n = h->length(messages);
    const hone_value *last = h->at(messages, n > 0 ? n - 1 : 0);
    const char *role = hone_get_string(h, last, "role", NULL);
    if (h->type(messages) != HONE_ARRAY || role == NULL)
        return h->error(l->call, "line %lu: messages must be a list of {\"role\", \"content\"}",
                        number);
    l->chat = strcmp(role, "assistant") == 0;
    l->asked = messages;
    if (!l->chat)
        return 0;
    l->learnt = messages;
    l->asked = h->copy(l->call, messages);
    h->remove_at(l->call, l->asked, n - 1);
    return n > 1 ? 0
                 : h->error(l->call, "line %lu: before the assistant's message nothing is asked",
                            number);
}

static int read_line(line *l, const hone_value *record, unsigned long number)
{
    const hone_host *h = l->h;
    hone_value *messages = h->get(record, "messages"), *prompt = h->get(record, "prompt");
    l->group = hone_get_string(h, record, "group", NULL);
    if (h->type(messages) != HONE_ABSENT)
        return read_messages(l, messages, number);
    l->asked = h->string(prompt, NULL) != NULL ? prompt : NULL;
    l->learnt = h->get(record, l->asked != NULL ? "completion" : "text");
    if (h->string(l->learnt, NULL) == NULL)
        l->learnt = NULL;
    if (l->asked == NULL && l->learnt == NULL)
        return h->error(l->call,
                        "line %lu: {\"text\"}, {\"prompt\", \"completion\"} or "
                        "{\"messages\"} is needed",
                        number);
    return 0;
}

/* One of the two texts of an item: the completion after the prompt, or what there is alone. NULL
 * for a conversation that nobody has answered. */
static hone_value *scored(const line *l, hone_value *asked, hone_value *learnt)
{
    const hone_host *h = l->h;
    hone_value *o = h->new_object(l->call);
    if (l->chat)
        h->set(l->call, o, "messages", learnt);
    else if (learnt != NULL && asked != NULL)
        h->set(l->call, o, "context", asked);
    if (!l->chat)
        h->set(l->call, o, "text", learnt != NULL ? learnt : asked);
    return h->string(asked, NULL) != NULL || learnt != NULL ? o : NULL;
}

static hone_value *make_item(const line *l, size_t group, hone_value *const asked[2],
                             hone_value *const learnt[2])
{
    const hone_host *h = l->h;
    hone_value *item = h->new_object(l->call), *texts = h->new_array(l->call);
    hone_value *prompts = h->new_array(l->call);
    for (size_t k = 0; k < 2; k++) {
        h->append(l->call, texts, scored(l, asked[k], learnt[k]));
        h->append(l->call, prompts, asked[k]);
    }
    h->set(l->call, item, "probe", string(l, probe_name));
    h->set(l->call, item, "group", string(l, l->group != NULL ? l->group : l->c->groups[group]));
    h->set(l->call, item, "texts", texts);
    h->set(l->call, item, "prompts", prompts);
    h->set(l->call, item, probe_name, h->new_int(l->call, (int64_t)group));
    return item;
}

/* In one group. 1: an item came of it, or it is left out as not sure; 0: there is no term. */
static int add_item(const line *l, size_t group, unsigned long number)
{
    const hone_host *h = l->h;
    exchange x = {h, l->call, l->c, 1u << group, 0, 0, 0, 0};
    hone_value *asked[2] = {l->asked, NULL}, *learnt[2] = {l->learnt, NULL};
    if (l->asked != NULL)
        asked[1] = exchange_all(&x, l->asked, 0);
    size_t in_prompt = x.n_swaps;
    if (l->learnt != NULL)
        learnt[1] = exchange_all(&x, l->learnt, 0);
    if (x.failed)
        return h->error(l->call, "no memory for line %lu", number);
    if (x.doubt)
        h->count(l->call->ctx, "unsure", 1);
    if (x.doubt || (l->asked != NULL ? in_prompt : x.n_swaps) == 0)
        return x.doubt;
    if (h->append(l->call, h->get(l->call->data, "items"), make_item(l, group, asked, learnt)) != 0)
        return h->error(l->call, "line %lu cannot be added", number);
    return 1;
}

static int add_line(line *l, const hone_value *record, unsigned long number)
{
    int made = 0, rc = read_line(l, record, number);
    for (size_t g = 0; rc == 0 && g < l->c->n_groups; g++) {
        int got = add_item(l, g, number);
        rc = got < 0 ? got : 0;
        made |= got;
    }
    if (rc == 0 && made == 0)
        l->h->count(l->call->ctx, "no_term", 1);
    return rc;
}

static int add_items(const counter *c, const hone_host *h, hone_call *call)
{
    unsigned long number = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->len;) {
        const char *nl = memchr(c->text + i, '\n', c->len - i);
        size_t len = nl != NULL ? (size_t)(nl - c->text) - i : c->len - i;
        size_t n = len > 0 && c->text[i + len - 1] == '\r' ? len - 1 : len;
        line l = {.h = h, .call = call, .c = c};
        number++;
        if (n > MAX_LINE || number > MAX_LINES)
            return h->error(call, "line %lu: more than %d bytes, or than %d lines", number,
                            MAX_LINE, MAX_LINES);
        hone_value *record = n > 0 ? h->from_json(call, c->text + i, n) : NULL;
        if (n > 0 && h->type(record) != HONE_OBJECT)
            return h->error(call, "line %lu is no JSON object", number);
        if (n > 0)
            rc = add_line(&l, record, number);
        i += len + 1;
    }
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

/* ---- scores ---- */

/* What came of the items of a group: |ll(swapped) - ll(as it is)|, and whether the answer differs.
 */
typedef struct tally {
    double *delta, *flip;
    size_t n_delta, n_flip;
} tally;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static hone_value *ends(const hone_host *h, hone_call *call)
{
    hone_value *list = h->new_array(call);
    h->append(call, list, h->new_int(call, 0));
    h->append(call, list, h->new_int(call, 1));
    return list;
}

/* The appliance makes value and interval of the examples; share: each is 0 or 1. */
static hone_value *mean_score(const counter *c, const double *x, size_t n, int share,
                              const hone_host *h, hone_call *call)
{
    hone_value *o = h->new_object(call), *each = h->new_array(call);
    for (size_t i = 0; i < n; i++)
        h->append(call, each, h->new_real(call, x[i]));
    h->set(call, o, "examples", each);
    h->set(call, o, "min_n", h->new_int(call, c->min_pairs));
    h->set(call, o, "info", h->new_bool(call, 1));
    h->set(call, o, "smaller_is_better", h->new_bool(call, 1));
    if (share)
        h->set(call, o, "ends", ends(h, call));
    return o;
}

/* Quantile by linear interpolation (type 7) of x, sorted, with the order statistics whose ranks are
 * 1.96 standard deviations of a binomial count away (at the ends of the sample: the ends). */
static void quantile(double p, const double *x, size_t n, double out[3])
{
    double at = p * (double)(n - 1), last = (double)n;
    double reach = 1.959963984540054 * sqrt(p * (1 - p) * last);
    double low = floor(p * last - reach), high = ceil(p * last + reach) + 1;
    size_t i = (size_t)at, next = i + 1 < n ? i + 1 : i;
    out[0] = x[i] + (at - (double)i) * (x[next] - x[i]);
    out[1] = x[(size_t)fmax(low, 1) - 1];
    out[2] = x[(size_t)fmin(high, last) - 1];
}

/* Sorts x. */
static hone_value *p95_score(const counter *c, double *x, size_t n, const hone_host *h,
                             hone_call *call)
{
    static const char *const keys[] = {"value", "low", "high"};
    double figure[3];
    if (n == 0 || (int64_t)n < c->min_pairs)
        return mean_score(c, x, n, 0, h, call);
    hone_value *o = h->new_object(call);
    qsort(x, n, sizeof *x, by_size);
    quantile(0.95, x, n, figure);
    for (size_t i = 0; i < 3; i++)
        hone_set_number(h, call, o, keys[i], figure[i]);
    h->set(call, o, "n", h->new_int(call, (int64_t)n));
    h->set(call, o, "info", h->new_bool(call, 1));
    h->set(call, o, "smaller_is_better", h->new_bool(call, 1));
    return o;
}

/* 1 where the answers differ in more than words of the group, 0 where not, -1 without memory. */
static int flipped(const counter *c, uint32_t mask, const char *a, const char *b)
{
    exchange x = {NULL, NULL, c, mask, 1, 0, 0, 0};
    char *one = swapped(&x, a), *other = swapped(&x, b);
    int differ = one == NULL || other == NULL ? -1 : strcmp(one, other) != 0;
    free(one);
    free(other);
    return differ;
}

static int take_item(const counter *c, tally *t, const hone_value *item, const hone_host *h,
                     hone_call *call)
{
    const hone_value *texts = h->get(item, "texts"), *answers = h->get(item, "answers");
    double as_is = h->number(h->get(h->at(texts, 0), "ll"), NAN);
    double other = h->number(h->get(h->at(texts, 1), "ll"), NAN);
    const char *a = h->string(h->at(answers, 0), NULL), *b = h->string(h->at(answers, 1), NULL);
    int64_t group = h->integer(h->get(item, probe_name), 0);
    if (h->length(texts) > 0 && (!isfinite(as_is) || !isfinite(other)))
        return h->error(call, "an item was not scored");
    if (h->length(texts) > 0)
        t->delta[t->n_delta++] = fabs(other - as_is);
    int differ = a != NULL && b != NULL ? flipped(c, 1u << (group & 31), a, b) : 0;
    if (a != NULL && b != NULL)
        t->flip[t->n_flip++] = differ;
    return differ >= 0 ? 0 : h->error(call, "no memory to compare answers");
}

static int put_score(const char *group, const char *figure, hone_value *v, const hone_host *h,
                     hone_call *call)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s%.180s.%s", probe_name, group[0] != '\0' ? "." : "", group,
             figure);
    return h->set(call, h->get(call->data, "scores"), name, v);
}

static int is_ours(const hone_host *h, const hone_value *item, const char *group)
{
    const char *probe = hone_get_string(h, item, "probe", NULL);
    const char *own = hone_get_string(h, item, "group", NULL);
    return probe != NULL && own != NULL && strcmp(probe, probe_name) == 0 &&
           (group[0] == '\0' || strcmp(group, own) == 0);
}

/* group "": all. */
static int put_scores(const counter *c, const char *group, const hone_host *h, hone_call *call)
{
    const hone_value *items = h->get(call->data, "items");
    size_t n = h->length(items);
    double *room = h->alloc(call, 2 * (n + 1) * sizeof *room);
    int rc = 0;
    if (room == NULL)
        return h->error(call, "no memory");
    tally t = {room, room + n + 1, 0, 0};
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (is_ours(h, h->at(items, i), group))
            rc = take_item(c, &t, h->at(items, i), h, call);
    if (rc == 0 && t.n_delta > 0)
        rc = put_score(group, "mean_abs_delta", mean_score(c, t.delta, t.n_delta, 0, h, call), h,
                       call);
    if (rc == 0 && t.n_delta > 0)
        rc = put_score(group, "p95_abs_delta", p95_score(c, t.delta, t.n_delta, h, call), h, call);
    if (rc == 0 && t.n_flip > 0)
        rc = put_score(group, "flip_rate", mean_score(c, t.flip, t.n_flip, 1, h, call), h, call);
    return rc;
}

/* Of each group that has a name, once. */
static int put_groups(const counter *c, const hone_host *h, hone_call *call)
{
    const hone_value *items = h->get(call->data, "items");
    const char *seen[MAX_GROUPS];
    size_t n = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < h->length(items); i++) {
        const char *group = hone_get_string(h, h->at(items, i), "group", NULL);
        size_t k = 0;
        if (group == NULL || group[0] == '\0' || !is_ours(h, h->at(items, i), group))
            continue;
        while (k < n && strcmp(seen[k], group) != 0)
            k++;
        if (k < n)
            continue;
        if (n == MAX_GROUPS)
            return h->error(call, "more than %d groups", MAX_GROUPS);
        seen[n++] = group;
        rc = put_scores(c, group, h, call);
    }
    return rc;
}

static int probe(const hone_host *h, hone_call *call, void *user)
{
    const counter *c = user;
    const char *phase = hone_get_string(h, call->data, "phase", NULL);
    if (phase != NULL && strcmp(phase, "items") == 0)
        return add_items(c, h, call);
    int rc = put_scores(c, "", h, call);
    if (rc == 0)
        rc = put_groups(c, h, call);
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

/* ---- augmentation: data.record and data.split ---- */

/* The record and, where every exchange in it is sure, its twin. */
static int add_twin(const counter *c, hone_value *out, hone_value *record, const hone_host *h,
                    hone_call *call)
{
    exchange x = {h, call, c, UINT32_MAX, 0, 0, 0, 0};
    hone_value *twin = exchange_all(&x, record, 0);
    if (x.failed)
        return h->error(call, "no memory for the twin of a record");
    h->append(call, out, record);
    if (x.doubt || x.n_swaps == 0) {
        h->count(call->ctx, x.doubt ? "unsure" : "no_term", 1);
        return 0;
    }
    h->count(call->ctx, "twins", 1);
    return h->append(call, out, twin);
}

static int augment(const hone_host *h, hone_call *call, void *user)
{
    hone_value *out = h->new_array(call);
    int many = h->type(call->data) == HONE_ARRAY, rc = 0; /* somebody else made several of it */
    size_t n = many ? h->length(call->data) : 1;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = add_twin(user, out, many ? h->at(call->data, i) : call->data, h, call);
    call->data = out;
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

/* Twins are alike in their neutral form, whose digest is the key of both: they go to one part. */
static int keep_together(const hone_host *h, hone_call *call, void *user)
{
    exchange x = {h, call, user, UINT32_MAX, 1, 0, 0, 0};
    hone_value *neutral = exchange_all(&x, h->get(call->data, "record"), 0);
    char hex[65];
    size_t len;
    if (x.failed)
        return h->error(call, "no memory for the key of a record");
    if (x.n_swaps == 0)
        return HONE_CONTINUE;
    const char *text = h->to_json(call, neutral, &len);
    if (text == NULL)
        return h->error(call, "no memory for the key of a record");
    h->sha256(hex, text, len);
    hone_set_string(h, call, call->data, "key", hex, 16);
    return HONE_MODIFIED;
}

/* ---- start and stop ---- */

/* A probe where there is a file of prompts, augmentation where it is asked for. */
static int subscribe(counter *c, const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    const char *path = hone_get_string(h, s, "file", NULL);
    int augmented = h->boolean(h->get(s, "augment"), 0);
    int rc = 0;
    if (path == NULL && !augmented)
        return h->init_error(cx, "file must name the JSON Lines with your prompts, or augment be "
                                 "true");
    if (path != NULL)
        c->text = read_file(&c->len, h, cx, path);
    if (path != NULL && c->text == NULL)
        rc = HONE_ERR;
    if (rc == 0 && path != NULL)
        rc = h->on(cx, "bias.probe", 0, probe, c);
    if (rc == 0 && augmented)
        rc = h->on(cx, "data.record", 0, augment, c);
    if (rc == 0 && augmented)
        rc = h->on(cx, "data.split", 0, keep_together, c);
    return rc;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    counter *c = calloc(1, sizeof *c);
    if (c == NULL)
        return h->init_error(cx, "no memory");
    c->min_pairs = h->integer(h->get(h->settings(cx), "min_pairs"), 100);
    int rc = read_terms(c, h, cx);
    if (rc == 0)
        rc = subscribe(c, h, cx);
    if (rc != 0)
        counter_free(c);
    else
        h->set_state(cx, c);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    counter_free(h->state(cx));
}

static const hone_setting settings[] = {
    {"file", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "your prompts, JSON Lines"},
    {"augment", HONE_SET_BOOL, 0, "false", 0, 0, NULL,
     "training data: beside each record its twin with the words exchanged"},
    {"terms", HONE_SET_JSON, 0, NULL, 0, 0, NULL,
     "pairs of words of your own: [[Anna, Paul]], or groups of them: {age: [[old, young]]}"},
    {"terms_file", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "JSON with groups of terms, as in terms"},
    {"builtin", HONE_SET_JSON, 0, NULL, 0, 0, NULL,
     "our English words of gender too (true without terms_file)"},
    {"min_pairs", HONE_SET_INT, 0, "100", 1, 1e9, NULL, "with fewer prompts there is no figure"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "counterfactual",
    "1.2.0",
    "Apache-2.0",
    "your own prompts with the terms of a group exchanged: what changes?",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

/* Tags records with what the rules of Gopher, C4 and FineWeb measure, and drops by them only where
 * it is told to. The definitions are pinned in plugins/bundled/README.md; they follow datatrove's
 * variants. A word is a run without white space; lengths are in characters.
 *
 * Each measure is linear in the text: words and n-grams are compared by 64-bit hashes. */
#include <hone_plugin.h>

#include <stdlib.h>
#include <utf8proc.h>

enum { MIN_GRAM = 2, MAX_GRAM = 10 };

typedef struct word {
    uint64_t hash;
    uint32_t chars;
    int letter, symbol; /* has a letter; has neither letter nor digit */
} word;

typedef struct line {
    uint64_t hash;
    const char *s;
    size_t n; /* bytes, white space at its ends taken off */
    size_t chars;
} line;

/* A set of hashes with counts. */
typedef struct table {
    uint64_t *key;
    uint32_t *count;
    size_t mask;
} table;

typedef struct doc {
    const char *s;
    size_t n, chars;
    word *words;
    size_t n_words;
    line *lines, *pars;
    size_t n_lines, n_pars, n_newlines;
    table t;
} doc;

/* What a record's tags are held to: at least, at most. */
typedef struct rule {
    const char *key;
    double least, most;
} rule;

#define ANY 1e300
/* clang-format off */
static const rule web[] = {
    {"words", 50, 100000}, {"mean_word_length", 3, 10}, {"hash_ratio", 0, 0.1},
    {"ellipsis_ratio", 0, 0.1}, {"bullet_lines", 0, 0.9}, {"ellipsis_lines", 0, 0.3},
    {"alpha_words", 0.8, 1}, {"stop_words", 2, ANY},
    {"dup_lines", 0, 0.30}, {"dup_paragraphs", 0, 0.30}, {"dup_line_chars", 0, 0.20},
    {"dup_paragraph_chars", 0, 0.20},
    {"top_2gram", 0, 0.20}, {"top_3gram", 0, 0.18}, {"top_4gram", 0, 0.16},
    {"dup_5gram", 0, 0.15}, {"dup_6gram", 0, 0.14}, {"dup_7gram", 0, 0.13}, {"dup_8gram", 0, 0.12},
    {"dup_9gram", 0, 0.11}, {"dup_10gram", 0, 0.10},
    {"c4_curly", 0, 0}, {"c4_lorem_ipsum", 0, 0}, {"c4_sentences", 5, ANY},
    {"punctuated_lines", 0.12, 1}, {"short_lines", 0, 0.67}, {"dup_lines_of_chars", 0, 0.01},
    {"newlines_per_word", 0, 0.3}, {NULL, 0, 0}};
static const rule docs[] = {
    {"words", 20, 1000000}, {"mean_word_length", 2, 15}, {"hash_ratio", 0, 0.3},
    {"ellipsis_lines", 0, 0.5}, {"alpha_words", 0.5, 1}, {"dup_lines", 0, 0.5},
    {"dup_paragraphs", 0, 0.5}, {"top_2gram", 0, 0.4}, {"dup_10gram", 0, 0.3},
    {"c4_lorem_ipsum", 0, 0}, {NULL, 0, 0}};
static const rule sft[] = {
    {"words", 1, 1000000}, {"answers", 1, ANY}, {"role_faults", 0, 0}, {"empty_answers", 0, 0},
    {"echoes", 0, 0}, {"refusals", 0, 0}, {"cut_answers", 0, 0}, {"other_language", 0, 0},
    {"longest_answer", 0, ANY}, {"dup_lines", 0, 0.7}, {"dup_10gram", 0, 0.5}, {NULL, 0, 0}};
static const struct { const char *name; const rule *rules; } recipes[] = {
    {"web", web}, {"docs", docs}, {"sft", sft}};
/* clang-format on */

/* How many records had a length: exact below 128, then in 64 steps from a power of 2 to the next.
 */
enum { STEPS = 64, N_BINS = 40 * STEPS };
typedef struct lengths {
    uint64_t bin[N_BINS];
} lengths;

typedef struct quality {
    const rule *rules;
    int answers_only;
    lengths words, longest; /* of what was tagged; counted by several threads */
} quality;

/* ---- reading a text ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t hash_of(const char *s, size_t n)
{
    uint64_t h = n * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t w = 0;
        memcpy(&w, s + i, n - i < 8 ? n - i : 8);
        h = mix(h ^ w);
    }
    return h;
}

static int is_space(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static void classify(word *w, uint32_t c)
{
    w->chars++;
    if (c < 0x80) {
        int alpha = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        w->letter |= alpha;
        w->symbol &= !alpha && (c < '0' || c > '9');
        return;
    }
    utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)c);
    int alpha = cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_LO;
    w->letter |= alpha;
    w->symbol &= !alpha && (cat < UTF8PROC_CATEGORY_ND || cat > UTF8PROC_CATEGORY_NO);
}

/* Counts only where words is NULL. */
static void read_words(doc *d)
{
    size_t start = 0, i = 0;
    word w = {0, 0, 0, 1};
    d->n_words = d->chars = 0;
    while (i <= d->n) {
        uint32_t c = ' ';
        size_t len = i < d->n ? hone_utf8_next(d->s + i, d->n - i, &c) : 1;
        d->chars += i < d->n;
        if (!is_space(c)) {
            if (d->words != NULL)
                classify(&w, c);
        } else {
            if (i > start) {
                w.hash = d->words != NULL ? hash_of(d->s + start, i - start) : 0;
                if (d->words != NULL)
                    d->words[d->n_words] = w;
                d->n_words++;
                w = (word){0, 0, 0, 1};
            }
            start = i + len;
        }
        i += len;
    }
}

static size_t chars_of(const char *s, size_t n)
{
    size_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars;
}

static int is_blank(char c)
{
    return c == ' ' || (c >= 9 && c <= 13);
}

static line trimmed(const char *s, size_t n)
{
    while (n > 0 && is_blank(s[n - 1]))
        n--;
    while (n > 0 && is_blank(*s)) {
        s++;
        n--;
    }
    return (line){hash_of(s, n), s, n, chars_of(s, n)};
}

/* Lines that are not empty; with `blank`, what empty lines separate. Counts only where out is NULL.
 */
static size_t read_lines(const doc *d, line *out, int blank)
{
    size_t n = 0, start = 0;
    for (size_t i = 0; i <= d->n; i++) {
        int ends =
            i == d->n || (d->s[i] == '\n' && (!blank || (i + 1 < d->n && d->s[i + 1] == '\n')));
        if (!ends)
            continue;
        line l = trimmed(d->s + start, i - start);
        if (l.n > 0 && out != NULL)
            out[n] = l;
        n += l.n > 0;
        start = i + 1;
    }
    return n;
}

static void doc_free(doc *d)
{
    free(d->words);
    free(d->lines);
    free(d->pars);
    free(d->t.key);
    free(d->t.count);
}

static int doc_read(doc *d, const char *s, size_t n)
{
    *d = (doc){.s = s, .n = n};
    read_words(d);
    d->n_lines = read_lines(d, NULL, 0);
    d->n_pars = read_lines(d, NULL, 1);
    for (size_t i = 0; i < n; i++)
        d->n_newlines += s[i] == '\n';
    size_t most = d->n_words > d->n_lines ? d->n_words : d->n_lines, cap = 64;
    while (cap < most * 2)
        cap *= 2;
    d->t.mask = cap - 1;
    d->words = calloc(d->n_words + 1, sizeof *d->words);
    d->lines = calloc(d->n_lines + 1, sizeof *d->lines);
    d->pars = calloc(d->n_pars + 1, sizeof *d->pars);
    d->t.key = malloc(cap * sizeof *d->t.key);
    d->t.count = malloc(cap * sizeof *d->t.count);
    if (d->words == NULL || d->lines == NULL || d->pars == NULL || d->t.key == NULL ||
        d->t.count == NULL)
        return HONE_ERR;
    read_words(d);
    read_lines(d, d->lines, 0);
    read_lines(d, d->pars, 1);
    return 0;
}

/* ---- counting ---- */

static void table_clear(table *t)
{
    memset(t->count, 0, (t->mask + 1) * sizeof *t->count);
}

/* How often this hash was there, now included. */
static uint32_t table_add(table *t, uint64_t hash)
{
    size_t i = hash & t->mask;
    while (t->count[i] != 0 && t->key[i] != hash)
        i = (i + 1) & t->mask;
    t->key[i] = hash;
    return ++t->count[i];
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

typedef struct out {
    const hone_host *h;
    hone_call *call;
    hone_value *o;
} out;

static void put(const out *w, const char *key, double x)
{
    hone_set_number(w->h, w->call, w->o, key, x);
}

static uint64_t gram_hash(const doc *d, size_t at, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = mix(h ^ d->words[at + i].hash) * UINT64_C(0x9e3779b97f4a7c15);
    return mix(h);
}

static size_t gram_chars(const doc *d, size_t at, size_t n)
{
    size_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += d->words[at + i].chars;
    return chars;
}

/* The most frequent n-gram (the first that became so): its count times its length with a space
 * between words. */
static double top_gram(doc *d, size_t n)
{
    uint32_t best = 0;
    size_t chars = 0;
    table_clear(&d->t);
    for (size_t i = 0; i + n <= d->n_words; i++)
        table_add(&d->t, gram_hash(d, i, n));
    for (size_t i = 0; i + n <= d->n_words; i++) {
        uint64_t h = gram_hash(d, i, n);
        size_t at = h & d->t.mask;
        while (d->t.key[at] != h || d->t.count[at] == 0)
            at = (at + 1) & d->t.mask;
        if (d->t.count[at] > best) {
            best = d->t.count[at];
            chars = gram_chars(d, i, n) + n - 1;
        }
    }
    return ratio((double)best * (double)chars, (double)d->chars);
}

/* Characters in n-grams that were there before, none counted twice: after a repeat the next begins
 * behind it. */
static double repeated_grams(doc *d, size_t n)
{
    size_t chars = 0;
    table_clear(&d->t);
    for (size_t i = 0; i + n <= d->n_words;) {
        uint64_t h = gram_hash(d, i, n);
        if (table_add(&d->t, h) > 1) {
            chars += gram_chars(d, i, n);
            i += n;
        } else {
            i++;
        }
    }
    return ratio((double)chars, (double)d->chars);
}

typedef struct repeats {
    size_t n, chars;
} repeats;

static repeats repeated(doc *d, const line *l, size_t n)
{
    repeats r = {0, 0};
    table_clear(&d->t);
    for (size_t i = 0; i < n; i++)
        if (table_add(&d->t, l[i].hash) > 1) {
            r.n++;
            r.chars += l[i].chars;
        }
    return r;
}

/* ---- the rules ---- */

static int starts(const line *l, const char *s)
{
    return l->n >= strlen(s) && memcmp(l->s, s, strlen(s)) == 0;
}

static int ends(const line *l, const char *s)
{
    size_t n = strlen(s);
    return l->n >= n && memcmp(l->s + l->n - n, s, n) == 0;
}

static int ends_in(const line *l, const char *const *list)
{
    for (; *list != NULL; list++)
        if (ends(l, *list))
            return 1;
    return 0;
}

static int is_word(const doc *d, const word *w, const char *s)
{
    (void)d;
    return w->hash == hash_of(s, strlen(s));
}

static int stop_words(const doc *d)
{
    static const char *const list[] = {"the", "be", "to", "of", "and", "that", "have", "with"};
    int n = 0;
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        size_t i = 0;
        while (i < d->n_words && !is_word(d, &d->words[i], list[k]))
            i++;
        n += i < d->n_words;
    }
    return n;
}

static size_t occurrences(const char *s, size_t n, const char *what)
{
    size_t count = 0, len = strlen(what);
    for (size_t i = 0; i + len <= n;) {
        const char *at = memchr(s + i, what[0], n - i);
        if (at == NULL || (size_t)(at - s) + len > n)
            break;
        i = (size_t)(at - s);
        int hit = memcmp(at, what, len) == 0;
        count += (size_t)hit;
        i += hit ? len : 1;
    }
    return count;
}

static void put_gopher(const out *w, const doc *d)
{
    size_t chars = 0, letters = 0, plain = 0, bullets = 0, dots = 0;
    for (size_t i = 0; i < d->n_words; i++) {
        plain += !d->words[i].symbol;
        chars += d->words[i].symbol ? 0 : d->words[i].chars;
        letters += (size_t)d->words[i].letter;
    }
    for (size_t i = 0; i < d->n_lines; i++) {
        bullets += (size_t)(starts(&d->lines[i], "\xe2\x80\xa2") || starts(&d->lines[i], "-"));
        dots += (size_t)(ends(&d->lines[i], "...") || ends(&d->lines[i], "\xe2\x80\xa6"));
    }
    double n = (double)d->n_words, lines = (double)d->n_lines;
    size_t ellipses = occurrences(d->s, d->n, "...") + occurrences(d->s, d->n, "\xe2\x80\xa6");
    put(w, "words", (double)plain);
    put(w, "mean_word_length", ratio((double)chars, (double)plain));
    put(w, "hash_ratio", ratio((double)occurrences(d->s, d->n, "#"), n));
    put(w, "ellipsis_ratio", ratio((double)ellipses, n));
    put(w, "bullet_lines", ratio((double)bullets, lines));
    put(w, "ellipsis_lines", ratio((double)dots, lines));
    put(w, "alpha_words", ratio((double)letters, n));
    put(w, "stop_words", stop_words(d));
}

static void put_repetition(const out *w, doc *d)
{
    repeats lines = repeated(d, d->lines, d->n_lines), pars = repeated(d, d->pars, d->n_pars);
    char key[16];
    put(w, "dup_lines", ratio((double)lines.n, (double)d->n_lines));
    put(w, "dup_paragraphs", ratio((double)pars.n, (double)d->n_pars));
    put(w, "dup_line_chars", ratio((double)lines.chars, (double)d->chars));
    put(w, "dup_paragraph_chars", ratio((double)pars.chars, (double)d->chars));
    for (size_t n = MIN_GRAM; n <= MAX_GRAM; n++) {
        snprintf(key, sizeof key, "%s_%dgram", n < 5 ? "top" : "dup", (int)n);
        put(w, key, n < 5 ? top_gram(d, n) : repeated_grams(d, n));
    }
    put(w, "dup_lines_of_chars", ratio((double)lines.chars, (double)(d->chars - d->n_newlines)));
}

/* The length of "[12]", "[edit]" or "[citation needed]" at s, or 0. */
static size_t citation(const char *s, size_t n)
{
    const char *close = *s == '[' ? memchr(s, ']', n < 20 ? n : 20) : NULL;
    size_t inner = close != NULL ? (size_t)(close - s) - 1 : 0, digits = 0;
    while (digits < inner && s[1 + digits] >= '0' && s[1 + digits] <= '9')
        digits++;
    int note = (inner == 4 && memcmp(s + 1, "edit", 4) == 0) ||
               (inner == 15 && memcmp(s + 1, "citation needed", 15) == 0);
    return note || (inner > 0 && digits == inner) ? inner + 2 : 0;
}

/* A line in lower case (ASCII) and without citations; low is as long as the line. */
static size_t c4_text(const line *l, char *low)
{
    size_t n = 0;
    for (size_t i = 0, skip; i < l->n; i++) {
        skip = citation(l->s + i, l->n - i);
        if (skip > 0) {
            i += skip - 1;
            continue;
        }
        low[n++] = l->s[i] >= 'A' && l->s[i] <= 'Z' ? (char)(l->s[i] + 32) : l->s[i];
    }
    while (n > 0 && is_blank(low[n - 1]))
        n--;
    low[n] = '\0';
    return n;
}

static int c4_drops(const char *s, size_t n)
{
    static const char *const words[] = {"javascript",    "terms of use", "privacy policy",
                                        "cookie policy", "uses cookies", "use of cookies",
                                        "use cookies"};
    size_t longest = 0, from = 0, count = 0;
    for (size_t i = 0; i <= n; i++)
        if (i == n || is_blank(s[i])) {
            count += i > from;
            longest = i - from > longest ? i - from : longest;
            from = i + 1;
        }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (occurrences(s, n, words[i]) > 0)
            return 1;
    int dots = n >= 3 && memcmp(s + n - 3, "...", 3) == 0;
    return n == 0 || strchr(".?!\"'", s[n - 1]) == NULL || dots || count < 3 || longest > 1000;
}

/* Runs of . ? ! with closing quotes and brackets, before white space or the end. */
static size_t sentences(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        if (strchr(".?!", s[i]) == NULL || s[i] == '\0') {
            i++;
            continue;
        }
        while (i < n && s[i] != '\0' && strchr(".?!\"')]", s[i]) != NULL)
            i++;
        count += i == n || is_blank(s[i]);
    }
    return count;
}

static int put_c4(const out *w, const doc *d)
{
    size_t kept = 0, found = 0, lorem = 0;
    char *s = malloc(d->n + 1);
    if (s == NULL)
        return HONE_ERR;
    for (size_t i = 0; i < d->n_lines; i++) {
        size_t n = c4_text(&d->lines[i], s);
        lorem += occurrences(s, n, "lorem ipsum");
        if (c4_drops(s, n))
            continue;
        kept++;
        found += sentences(s, n);
    }
    free(s);
    put(w, "c4_curly", occurrences(d->s, d->n, "{") > 0);
    put(w, "c4_lorem_ipsum", lorem > 0);
    put(w, "c4_lines_kept", ratio((double)kept, (double)d->n_lines));
    put(w, "c4_sentences", (double)found);
    return 0;
}

static void put_fineweb(const out *w, const doc *d)
{
    static const char *const marks[] = {".",
                                        "!",
                                        "?",
                                        "\"",
                                        "'",
                                        "\xe2\x80\x9d",
                                        "\xe2\x80\x99",
                                        "\xe2\x80\xa6",
                                        "\xe3\x80\x82",
                                        "\xef\xbc\x81",
                                        "\xef\xbc\x9f",
                                        NULL};
    size_t marked = 0, small = 0;
    for (size_t i = 0; i < d->n_lines; i++) {
        marked += (size_t)ends_in(&d->lines[i], marks);
        small += d->lines[i].chars <= 30;
    }
    put(w, "punctuated_lines", ratio((double)marked, (double)d->n_lines));
    put(w, "short_lines", ratio((double)small, (double)d->n_lines));
    put(w, "newlines_per_word", ratio((double)d->n_newlines, (double)d->n_words));
}

/* ---- conversations ---- */

static const char *const refusals[] = {
    "as an ai language model", "as a large language model", "i'm sorry, but i can",
    "i am sorry, but i can",   "i cannot assist with",      "i can't assist with",
    "i cannot fulfill",        "i can't help with that",    NULL};

/* Within its first 200 bytes. */
static int is_refusal(const char *s, size_t n)
{
    char low[201];
    size_t k = 0;
    for (; k < n && k < 200; k++)
        low[k] = s[k] >= 'A' && s[k] <= 'Z' ? (char)(s[k] + 32) : s[k];
    for (size_t i = 0; refusals[i] != NULL; i++)
        if (occurrences(low, k, refusals[i]) > 0)
            return 1;
    return 0;
}

/* Turns out of order: a system's that is not the first; a user's after a user's or a tool's; an
 * assistant's that follows neither a user's nor a tool's; a tool's that follows neither an
 * assistant's nor a tool's; another role's; and an end that is not an assistant's. */
static int role_faults(const hone_host *h, const hone_value *messages)
{
    enum { BEGIN = 1, SYSTEM = 2, USER = 4, ASSISTANT = 8, TOOL = 16, OTHER = 32 };
    static const struct {
        const char *role;
        unsigned is, after;
    } rows[] = {{"system", SYSTEM, BEGIN},
                {"developer", SYSTEM, BEGIN},
                {"user", USER, BEGIN | SYSTEM | ASSISTANT},
                {"assistant", ASSISTANT, USER | TOOL},
                {"tool", TOOL, ASSISTANT | TOOL},
                {"function", TOOL, ASSISTANT | TOOL}};
    unsigned before = BEGIN;
    int faults = 0;
    for (size_t i = 0; i < h->length(messages); i++) {
        const char *role = hone_get_string(h, h->at(messages, i), "role", NULL);
        size_t k = 0, n = sizeof rows / sizeof *rows;
        while (role != NULL && k < n && strcmp(rows[k].role, role) != 0)
            k++;
        int known = role != NULL && k < n;
        faults += !known || (rows[k].after & before) == 0;
        before = known ? rows[k].is : OTHER;
    }
    return faults + (before != ASSISTANT);
}

static uint32_t last_char(const line *l)
{
    uint32_t c = 0;
    size_t i = l->n;
    while (i > 0 && ((unsigned char)l->s[i - 1] & 0xC0) == 0x80)
        i--;
    if (i > 0)
        hone_utf8_next(l->s + i - 1, l->n - i + 1, &c);
    return c;
}

static size_t count_words(const char *s, size_t n)
{
    doc d = {.s = s, .n = n};
    read_words(&d);
    return d.n_words;
}

static int is_item(const line *l)
{
    size_t digits = 0;
    while (digits < l->n && l->s[digits] >= '0' && l->s[digits] <= '9')
        digits++;
    return starts(l, "-") || starts(l, "*") || starts(l, "\xe2\x80\xa2") ||
           (digits > 0 && digits < l->n && (l->s[digits] == '.' || l->s[digits] == ')'));
}

/* It seems to end within a sentence or a block of code: an answer of 20 words or more whose last
 * line has more than 30 characters, is no item of a list and ends in a letter, a comma, a colon, a
 * semicolon, a hyphen or an opening bracket; or one with an odd number of ```. */
static int is_cut(const line *a, size_t n_words)
{
    if (occurrences(a->s, a->n, "```") % 2 != 0)
        return 1;
    size_t from = a->n;
    while (from > 0 && a->s[from - 1] != '\n')
        from--;
    line last = trimmed(a->s + from, a->n - from);
    word w = {0, 0, 0, 1};
    uint32_t c = last_char(&last);
    classify(&w, c);
    return n_words >= 20 && last.chars > 30 && !is_item(&last) &&
           (w.letter || (c > 0 && c < 0x80 && strchr(",:;-([{", (int)c) != NULL));
}

/* ---- the language of a text, where it is beyond doubt ---- */

enum { UNKNOWN, LATIN, GREEK, CYRILLIC, HEBREW, ARABIC, DEVANAGARI, THAI, HAN, HANGUL, N_SCRIPTS };

static int script_of(uint32_t c)
{
    static const struct {
        uint32_t from, to;
        int script;
    } rows[] = {{0x41, 0x5a, LATIN},    {0x61, 0x7a, LATIN},      {0xc0, 0x24f, LATIN},
                {0x370, 0x3ff, GREEK},  {0x400, 0x52f, CYRILLIC}, {0x590, 0x5ff, HEBREW},
                {0x600, 0x6ff, ARABIC}, {0x750, 0x77f, ARABIC},   {0x900, 0x97f, DEVANAGARI},
                {0xe00, 0xe7f, THAI},   {0x1100, 0x11ff, HANGUL}, {0x3040, 0x30ff, HAN},
                {0x3400, 0x4dbf, HAN},  {0x4e00, 0x9fff, HAN},    {0xac00, 0xd7af, HANGUL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (c >= rows[i].from && c <= rows[i].to)
            return rows[i].script;
    return UNKNOWN;
}

/* Frequent words of languages that share the Latin script; some stand in more than one. */
static const char *const common[][13] = {
    {"the", "and", "is", "of", "to", "that", "with", "you", "for", "are", "this", "it", NULL},
    {"der", "die", "und", "ist", "nicht", "das", "mit", "ein", "eine", "sie", "zu", "den", NULL},
    {"le", "la", "les", "des", "est", "et", "une", "dans", "pour", "vous", "que", "pas", NULL},
    {"el", "los", "las", "es", "y", "una", "para", "que", "por", "con", "del", "no", NULL},
    {"il", "di", "che", "per", "una", "non", "con", "sono", "del", "della", "gli", "la", NULL},
    {"o", "os", "n\xc3\xa3o", "uma", "para", "que", "com", "do", "da", "em", "dos", "as", NULL},
    {"het", "een", "van", "is", "en", "niet", "op", "voor", "met", "zijn", "dat", "de", NULL}};
enum { N_LANGUAGES = sizeof common / sizeof *common, MAX_COMMON = 8 };

typedef struct hit {
    unsigned n, which; /* a bit for each of its words that was there */
} hit;

static void count_common(hit hits[N_LANGUAGES], const char *s, size_t n)
{
    char low[MAX_COMMON + 1];
    while (n > 0 && (unsigned char)s[n - 1] < 0x80 && strchr(".,;:!?\"')", s[n - 1]) != NULL)
        n--;
    if (n == 0 || n > MAX_COMMON)
        return;
    for (size_t i = 0; i < n; i++)
        low[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + 32) : s[i];
    low[n] = '\0';
    for (size_t l = 0; l < N_LANGUAGES; l++)
        for (size_t k = 0; common[l][k] != NULL; k++)
            if (strcmp(common[l][k], low) == 0) {
                hits[l].n++;
                hits[l].which |= 1u << k;
            }
}

/* Four frequent words, three of them different, and twice as many as of any other. */
static int latin_language(const char *s, size_t n)
{
    hit hits[N_LANGUAGES] = {{0, 0}};
    unsigned best = 0, second = 0, at = 0;
    for (size_t i = 0, from = 0; i <= n; i++)
        if (i == n || is_blank(s[i])) {
            count_common(hits, s + from, i - from);
            from = i + 1;
        }
    for (unsigned l = 0; l < N_LANGUAGES; l++) {
        if (hits[l].n > best) {
            second = best;
            best = hits[l].n;
            at = l;
        } else if (hits[l].n > second) {
            second = hits[l].n;
        }
    }
    int different = __builtin_popcount(hits[at].which);
    return best >= 4 && different >= 3 && best >= 2 * second ? N_SCRIPTS + (int)at : UNKNOWN;
}

/* The script of seven letters in ten, of at least ten (four of Han and kana); within the Latin one
 * by its frequent words. */
static int language_of(const char *s, size_t n)
{
    size_t letters[N_SCRIPTS] = {0}, all = 0;
    int most = LATIN;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += hone_utf8_next(s + i, n - i, &c);
        int script = script_of(c);
        letters[script] += script != UNKNOWN;
        all += script != UNKNOWN;
        most = letters[script] > letters[most] ? script : most;
    }
    if (letters[most] < (most == HAN ? 4 : 10) || letters[most] * 10 < all * 7)
        return UNKNOWN;
    return most == LATIN ? latin_language(s, n) : most;
}

/* ---- what is said of the answers of a record ---- */

static int is_answer(const hone_host *h, const hone_text *t)
{
    const char *role = hone_get_string(h, t->in, "role", NULL);
    return strcmp(t->key, "completion") == 0 || (role != NULL && strcmp(role, "assistant") == 0);
}

static int is_question(const hone_host *h, const hone_text *t)
{
    const char *role = hone_get_string(h, t->in, "role", NULL);
    return strcmp(t->key, "prompt") == 0 || (role != NULL && strcmp(role, "user") == 0);
}

typedef struct answers {
    size_t n, empty, echoes, refused, cut, foreign, longest;
} answers;

/* before: the text before it; asked: the language of the last question. */
static void add_answer(answers *a, const line *l, const line *before, int asked)
{
    size_t words = count_words(l->s, l->n);
    int answered = asked != UNKNOWN ? language_of(l->s, l->n) : UNKNOWN;
    a->n++;
    a->empty += l->n == 0;
    a->refused += (size_t)is_refusal(l->s, l->n);
    a->echoes += l->n > 0 && l->hash == before->hash && l->n == before->n;
    a->cut += (size_t)is_cut(l, words);
    a->foreign += answered != UNKNOWN && answered != asked;
    a->longest = words > a->longest ? words : a->longest;
}

/* It calls tools, and may have nothing to say besides. */
static int is_call(const hone_host *h, const hone_text *t)
{
    return h->length(h->get(t->in, "tool_calls")) > 0;
}

static void put_answers(const out *w, const hone_value *record)
{
    answers a = {0};
    hone_text t = {0};
    line before = {0, NULL, 0, 0};
    int asked = UNKNOWN;
    const hone_value *messages = w->h->get(record, "messages");
    while (hone_text_next(w->h, record, &t)) {
        line l = trimmed(t.text, t.len);
        if (is_answer(w->h, &t) && !(l.n == 0 && is_call(w->h, &t)))
            add_answer(&a, &l, &before, asked);
        else if (is_question(w->h, &t))
            asked = language_of(l.s, l.n);
        before = l;
    }
    put(w, "answers", (double)a.n);
    put(w, "role_faults", messages != NULL ? role_faults(w->h, messages) : 0);
    put(w, "empty_answers", (double)a.empty);
    put(w, "echoes", (double)a.echoes);
    put(w, "refusals", (double)a.refused);
    put(w, "cut_answers", (double)a.cut);
    put(w, "other_language", (double)a.foreign);
    put(w, "longest_answer", (double)a.longest);
}

/* ---- lengths of all records ---- */

static void lengths_add(lengths *x, size_t n)
{
    size_t shift = 0;
    while (n >> shift >= (size_t)2 * STEPS && (shift + 3) * STEPS <= N_BINS)
        shift++;
    size_t bin = shift * STEPS + (n >> shift);
    __atomic_fetch_add(&x->bin[bin < N_BINS ? bin : N_BINS - 1], 1, __ATOMIC_RELAXED);
}

/* The length that at least this share of the records do not exceed (as far as the bins tell). */
static unsigned long lengths_at(const lengths *x, uint64_t total, double share)
{
    uint64_t seen = 0;
    size_t b = 0;
    while (b + 1 < N_BINS && (double)(seen += x->bin[b]) < share * (double)total)
        b++;
    size_t shift = b < (size_t)2 * STEPS ? 0 : b / STEPS - 1;
    return (unsigned long)(((b - shift * STEPS + 1) << shift) - 1);
}

static size_t length_of(const out *w, const char *key)
{
    return (size_t)w->h->number(w->h->get(w->o, key), 0);
}

static void lengths_say(const lengths *x, const char *figure, const hone_host *h, hone_ctx *cx)
{
    uint64_t total = 0;
    for (size_t b = 0; b < N_BINS; b++)
        total += x->bin[b];
    if (total > 0)
        h->log(cx, HONE_LOG_INFO,
               "%s of %llu records: median %lu, 95 %% up to %lu, 99 %% up to %lu, all up to %lu",
               figure, (unsigned long long)total, lengths_at(x, total, 0.5),
               lengths_at(x, total, 0.95), lengths_at(x, total, 0.99), lengths_at(x, total, 1));
}

/* ---- the hooks ---- */

/* All texts, or the answers alone, an empty line between them. */
static char *joined(const quality *q, const hone_host *h, const hone_value *record, size_t *len)
{
    hone_text t = {0}, u = {0};
    size_t n = 0, at = 0;
    while (hone_text_next(h, record, &t))
        n += t.len + 2;
    char *s = malloc(n + 1);
    while (s != NULL && hone_text_next(h, record, &u)) {
        if (q->answers_only && !is_answer(h, &u))
            continue;
        if (at > 0)
            s[at++] = '\n';
        if (at > 0)
            s[at++] = '\n';
        memcpy(s + at, u.text, u.len);
        at += u.len;
    }
    *len = at;
    return s;
}

static int tag(const hone_host *h, hone_call *call, void *user)
{
    quality *q = user;
    const hone_value *record = h->get(call->data, "record");
    out w = {h, call, h->new_object(call)};
    size_t n;
    char *s = joined(q, h, record, &n);
    doc d = {0};
    int rc = s != NULL ? doc_read(&d, s, n) : HONE_ERR;
    if (rc == 0)
        rc = put_c4(&w, &d);
    if (rc == 0) {
        put_gopher(&w, &d);
        put_repetition(&w, &d);
        put_fineweb(&w, &d);
        put_answers(&w, record);
        lengths_add(&q->words, length_of(&w, "words"));
        if (length_of(&w, "answers") > 0)
            lengths_add(&q->longest, length_of(&w, "longest_answer"));
    }
    doc_free(&d);
    free(s);
    if (rc != 0)
        return h->error(call, "no memory to measure a record");
    return h->set(call, h->get(call->data, "tags"), "quality", w.o) == 0
               ? HONE_MODIFIED
               : h->error(call, "there are no tags");
}

/* The recipe's limits, or those that the settings give for this measure: [least, most]. */
static rule limits_of(const hone_host *h, hone_ctx *cx, const rule *r)
{
    const hone_value *own = h->get(h->get(h->settings(cx), "limits"), r->key);
    if (h->type(own) != HONE_ARRAY)
        return *r;
    return (rule){r->key, h->number(h->at(own, 0), -ANY), h->number(h->at(own, 1), ANY)};
}

static int filter(const hone_host *h, hone_call *call, void *user)
{
    const quality *q = user;
    const hone_value *tags = h->get(h->get(call->data, "tags"), "quality");
    if (h->type(tags) != HONE_OBJECT)
        return h->error(call,
                        "the record has no tag quality: data.tag must be among the plugin's hooks");
    for (const rule *r = q->rules; r->key != NULL; r++) {
        rule l = limits_of(h, call->ctx, r);
        double x = h->number(h->get(tags, l.key), 0);
        if (x >= l.least && x <= l.most)
            continue;
        h->count(call->ctx, r->key, 1);
        return x < l.least
                   ? h->veto(call, "%s is %.4g, at least %.4g is wanted", r->key, x, l.least)
                   : h->veto(call, "%s is %.4g, at most %.4g is allowed", r->key, x, l.most);
    }
    return HONE_CONTINUE;
}

static int check_limits(const hone_host *h, hone_ctx *cx, const quality *q)
{
    const hone_value *own = h->get(h->settings(cx), "limits");
    size_t len;
    if (h->type(own) != HONE_NULL && h->type(own) != HONE_OBJECT && h->type(own) != HONE_ABSENT)
        return h->init_error(cx, "limits must be an object: {measure: [least, most]}");
    for (size_t i = 0; i < h->length(own); i++) {
        const char *key = h->key(own, i, &len);
        const rule *r = q->rules;
        while (r->key != NULL && strcmp(r->key, key) != 0)
            r++;
        if (r->key == NULL)
            return h->init_error(cx, "limits: this recipe has no measure '%s'", key);
        if (h->length(h->get(own, key)) != 2)
            return h->init_error(cx, "limits: %s must be [least, most], null for none", key);
    }
    return 0;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    const char *recipe = hone_get_string(h, s, "recipe", NULL);
    quality *q = calloc(1, sizeof *q);
    if (q == NULL)
        return h->init_error(cx, "no memory");
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        if (strcmp(recipes[i].name, recipe) == 0)
            q->rules = recipes[i].rules;
    q->answers_only = q->rules == sft;
    int rc = check_limits(h, cx, q);
    if (rc == 0)
        rc = h->on(cx, "data.tag", 0, tag, q);
    if (rc == 0 && h->boolean(h->get(s, "filter"), 0))
        rc = h->on(cx, "data.filter", 0, filter, q);
    if (rc != 0)
        free(q);
    else
        h->set_state(cx, q);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    quality *q = h->state(cx);
    lengths_say(&q->words, "words", h, cx);
    lengths_say(&q->longest, "longest_answer", h, cx);
    free(q);
}

static const hone_setting settings[] = {
    {"recipe", HONE_SET_ENUM, 0, "sft", 0, 0, "web|docs|sft", "which limits"},
    {"filter", HONE_SET_BOOL, 0, "false", 0, 0, NULL, "drop what is beyond a limit; else only tag"},
    {"limits", HONE_SET_JSON, 0, NULL, 0, 0, NULL,
     "limits of your own in place of the recipe's: {words: [20, null]}"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, 0),
    "quality",
    "1.1.0",
    "Apache-2.0",
    "tags records by the rules of Gopher, C4 and FineWeb, and drops by them if told to",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

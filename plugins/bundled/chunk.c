/* Cuts long documents into pieces: at a heading, else a paragraph, else a sentence or line, else a
 * word, else between two characters, whichever comes last in the second half of a piece. Pieces are
 * parts of the text as it is; those of one document go to the same side of a split. Linear. */
#include <hone_plugin.h>

#include <stdlib.h>

enum { CHARACTER, WORD, SENTENCE, PARAGRAPH, HEADING, N_LEVELS };

typedef struct chunk {
    const char *field;
    int64_t size, overlap;
    int tokens;
    char key[17]; /* of the document that was read last, "" where it was not cut */
} chunk;

static int is_space(char c)
{
    return c == ' ' || (c >= 9 && c <= 13);
}

static int is_alnum(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* What the character at i costs. Tokens are estimated: six letters or digits of a word are one, as
 * is any other sign, two characters of another alphabet, a character of three bytes or more; spaces
 * are free, line ends not. */
static double cost(const chunk *k, const char *s, size_t i, size_t len, size_t *in_word)
{
    unsigned char c = (unsigned char)s[i];
    if (!k->tokens)
        return (double)len;
    if (is_alnum(s[i]))
        return (*in_word)++ % 6 == 0 ? 1 : 0;
    *in_word = 0;
    if (c >= 0x80)
        return len == 2 ? 0.5 : 1;
    return c == ' ' ? 0 : 1;
}

/* Does the text before i, white space taken off, end a sentence? */
static int ends_sentence(const char *s, size_t i)
{
    size_t k = i - 1;
    while (k > 0 && i - k < 5 && s[k - 1] != '\0' && strchr("\"')]", s[k - 1]) != NULL)
        k--;
    return k > 0 && s[k - 1] != '\0' && strchr(".?!", s[k - 1]) != NULL;
}

/* A full stop, an exclamation or a question mark of Chinese and Japanese. */
static int is_wide_stop(const char *s)
{
    return memcmp(s, "\xe3\x80\x82", 3) == 0 || memcmp(s, "\xef\xbc\x81", 3) == 0 ||
           memcmp(s, "\xef\xbc\x9f", 3) == 0;
}

/* What kind of place lies before s[i]; -1 within a character. */
static int level(const char *s, size_t i)
{
    if (i == 0 || ((unsigned char)s[i] & 0xC0) == 0x80)
        return -1;
    if (s[i - 1] == '\n') {
        size_t k = i > 2 && s[i - 2] == '\r' ? i - 3 : i - 2;
        return s[i] == '#' ? HEADING : i > 1 && s[k] == '\n' ? PARAGRAPH : SENTENCE;
    }
    if (i > 2 && is_wide_stop(s + i - 3))
        return SENTENCE;
    if (!is_space(s[i - 1]))
        return CHARACTER;
    return ends_sentence(s, i) ? SENTENCE : WORD;
}

static size_t skip_space(const char *s, size_t n, size_t i)
{
    while (i < n && is_space(s[i]))
        i++;
    return i;
}

/* Where the piece that begins at `from` ends: behind `past`, up to which others have the text, or
 * not behind it where there is no room for more. */
static size_t piece_end(const chunk *k, const char *s, size_t n, size_t from, size_t past)
{
    size_t best[N_LEVELS] = {0}, in_word = 0, i = from;
    double spent = 0;
    while (i < n) {
        uint32_t c;
        size_t len = hone_utf8_next(s + i, n - i, &c);
        int at = i > from && i > past ? level(s, i) : -1;
        if (at >= 0 && (spent * 2 >= (double)k->size || at == CHARACTER))
            best[at] = i;
        spent += cost(k, s, i, len, &in_word);
        if (spent > (double)k->size && i > from)
            break;
        i += len;
    }
    if (i >= n)
        return n;
    for (int at = HEADING; at >= CHARACTER; at--)
        if (best[at] > 0)
            return best[at];
    return i;
}

/* Where the next piece begins: at the first word from which on there is at most `overlap` before
 * its end. */
static size_t next_start(const chunk *k, const char *s, size_t from, size_t end)
{
    double total = 0, spent = 0;
    size_t in_word = 0, len;
    uint32_t c;
    for (size_t i = from; i < end; i += len) {
        len = hone_utf8_next(s + i, end - i, &c);
        total += cost(k, s, i, len, &in_word);
    }
    in_word = 0;
    for (size_t i = from; i < end; i += len) {
        len = hone_utf8_next(s + i, end - i, &c);
        if (i > from && total - spent <= (double)k->overlap && level(s, i) >= WORD)
            return i;
        spent += cost(k, s, i, len, &in_word);
    }
    return end;
}

/* ---- the hooks ---- */

typedef struct document {
    const hone_host *h;
    hone_call *call;
    const chunk *k;
    const char *s;
    size_t n;
    char id[80];
} document;

/* A copy of the record with a piece for its text, white space at its ends taken off. */
static int add_piece(const document *d, hone_value *list, size_t from, size_t end)
{
    const hone_host *h = d->h;
    char id[160];
    from = skip_space(d->s, end, from);
    while (end > from && is_space(d->s[end - 1]))
        end--;
    if (from == end)
        return 0;
    hone_value *r = h->new_object(d->call);
    for (size_t i = 0, len; i < h->length(d->call->data); i++) {
        const char *key = h->key(d->call->data, i, &len);
        if (strcmp(key, d->k->field) != 0)
            h->set(d->call, r, key, h->get(d->call->data, key));
    }
    int n = snprintf(id, sizeof id, "%s#%lu-%lu", d->id, (unsigned long)from, (unsigned long)end);
    h->set(d->call, r, d->k->field, h->new_string(d->call, d->s + from, end - from));
    h->set(d->call, r, "chunk_id", h->new_string(d->call, id, (size_t)n));
    return h->append(d->call, list, r);
}

static void name_document(document *d, chunk *k)
{
    char hex[65];
    const hone_value *id = d->h->get(d->call->data, "id");
    d->h->sha256(hex, d->s, d->n);
    memcpy(k->key, hex, 16);
    k->key[16] = '\0';
    snprintf(d->id, sizeof d->id, "%.12s", hex);
    if (d->h->type(id) == HONE_STRING && d->h->length(id) < sizeof d->id)
        snprintf(d->id, sizeof d->id, "%s", d->h->string(id, NULL));
    else if (d->h->type(id) == HONE_INT)
        snprintf(d->id, sizeof d->id, "%lld", (long long)d->h->integer(id, 0));
}

static int cut(const hone_host *h, hone_call *call, void *user)
{
    chunk *k = user;
    document d = {.h = h, .call = call, .k = k};
    d.s = hone_get_string(h, call->data, k->field, &d.n);
    k->key[0] = '\0';
    if (d.s == NULL || piece_end(k, d.s, d.n, 0, 0) == d.n)
        return HONE_CONTINUE;
    hone_value *list = h->new_array(call);
    name_document(&d, k);
    for (size_t from = 0, past = 0; past < d.n;) {
        size_t end = piece_end(k, d.s, d.n, from, past);
        if (end <= past) {
            from = past; /* what overlaps would be all of it */
            continue;
        }
        if (add_piece(&d, list, from, end) != 0)
            return h->error(call, "a piece cannot be made (an id that is no UTF-8?)");
        past = skip_space(d.s, d.n, end);
        from = k->overlap > 0 ? next_start(k, d.s, from, end) : past;
    }
    h->count(call->ctx, "documents_cut", 1);
    h->count(call->ctx, "pieces", (double)h->length(list));
    call->data = list;
    return HONE_MODIFIED;
}

/* The rows that come now are the pieces of the document that was cut last. */
static int split(const hone_host *h, hone_call *call, void *user)
{
    const chunk *k = user;
    if (k->key[0] == '\0')
        return HONE_CONTINUE;
    hone_set_string(h, call, call->data, "key", k->key, 16);
    return HONE_MODIFIED;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    chunk *k = calloc(1, sizeof *k);
    if (k == NULL)
        return h->init_error(cx, "no memory");
    k->field = hone_get_string(h, s, "field", NULL);
    k->size = h->integer(h->get(s, "size"), 2000);
    k->overlap = h->integer(h->get(s, "overlap"), 0);
    k->tokens = strcmp(hone_get_string(h, s, "unit", NULL), "tokens") == 0;
    int rc = k->overlap * 2 > k->size
                 ? h->init_error(cx, "overlap is %lld, at most half of size (%lld)",
                                 (long long)k->overlap, (long long)k->size)
                 : 0;
    if (rc == 0)
        rc = h->on(cx, "data.record", 0, cut, k);
    if (rc == 0)
        rc = h->on(cx, "data.split", 0, split, k);
    if (rc != 0)
        free(k);
    else
        h->set_state(cx, k);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    free(h->state(cx));
}

static const hone_setting settings[] = {
    {"size", HONE_SET_INT, 0, "1500", 16, 100000000, NULL, "most units of a piece"},
    {"unit", HONE_SET_ENUM, 0, "tokens", 0, 0, "tokens|bytes", "tokens are estimated"},
    {"overlap", HONE_SET_INT, 0, "0", 0, 50000000, NULL,
     "units at the end of a piece that the next begins with"},
    {"field", HONE_SET_STRING, 0, "text", 0, 0, NULL, "the member of a record that is cut"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_DETERMINISTIC, 0),
    "chunk",
    "1.0.1",
    "Apache-2.0",
    "cuts long documents at headings, paragraphs, sentences",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

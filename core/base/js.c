#include "core/base/js.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *alloc(size_t n)
{
    return mem_resize(NULL, n);
}

void js_start(void)
{
    json_set_alloc_funcs(alloc, free);
}

static bool deeper_than(const json_t *v, int depth)
{
    if (depth < 0)
        return true;
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++)
            if (deeper_than(json_array_get(v, i), depth - 1))
                return true;
    } else if (json_is_object(v)) {
        const char *key;
        json_t *item;
        json_object_foreach ((json_t *)v, key, item) {
            if (deeper_than(item, depth - 1))
                return true;
        }
    }
    return false;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The end of the whole number at s[i], if it is one that 64 bits do not hold; else i. */
static size_t too_big(const char *s, size_t len, size_t i)
{
    size_t end = i;
    while (end < len && digit(s[end]))
        end++;
    if (end - i < 19 || (end < len && strchr(".eE", s[end]) != NULL) ||
        (i > 0 && (s[i - 1] == '.' || s[i - 1] == '+' || s[i - 1] == 'e' || s[i - 1] == 'E')))
        return i;
    char *number = mem_strndup(s + i, end - i);
    errno = 0;
    (void)strtoll(number, NULL, 10);
    free(number);
    return errno == ERANGE ? end : i;
}

/* The text with such numbers written as reals; *len is the new length; caller frees. */
static char *widen(const char *s, size_t *len)
{
    buf b;
    bool string = false;
    buf_init(&b, (size_t)2 * JS_MAX_BYTES);
    for (size_t i = 0; i < *len; i++) {
        bool number = !string && digit(s[i]) && (i == 0 || !digit(s[i - 1]));
        size_t end = number ? too_big(s, *len, i) : i;
        if (end > i) {
            buf_add(&b, s + i, end - i);
            buf_str(&b, "e0");
            i = end - 1;
            continue;
        }
        if (s[i] == '"')
            string = !string;
        buf_char(&b, s[i]);
        if (string && s[i] == '\\' && i + 1 < *len)
            buf_char(&b, s[++i]);
    }
    return buf_take(&b, len);
}

static json_t *decode(const char *text, size_t len, json_error_t *je)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_t *v = json_loadb(text, len, flags, je);
    if (v != NULL || json_error_code(je) != json_error_numeric_overflow)
        return v;
    char *wide = widen(text, &len);
    v = json_loadb(wide, len, flags, je);
    free(wide);
    return v;
}

int js_parse(json_t **out, const char *text, size_t len, hone_err *e)
{
    *out = NULL;
    if (len > JS_MAX_BYTES)
        return hone_fail(e, HONE_ELIMIT, "JSON of %zu bytes, at most %d are read", len,
                         JS_MAX_BYTES);
    json_error_t je;
    json_t *v = decode(text, len, &je);
    if (v == NULL)
        return hone_fail(e, HONE_EFORMAT, "JSON: line %d, column %d: %s", je.line, je.column,
                         je.text);
    if (deeper_than(v, JS_MAX_DEPTH)) {
        json_decref(v);
        return hone_fail(e, HONE_ELIMIT, "JSON nests deeper than %d", JS_MAX_DEPTH);
    }
    *out = v;
    return 0;
}

int js_load(json_t **out, const char *path, hone_err *e)
{
    char *text;
    size_t len;
    *out = NULL;
    int rc = file_read(&text, &len, path, JS_MAX_BYTES, e);
    if (rc != 0)
        return rc;
    rc = js_parse(out, text, len, e);
    free(text);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", path);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The fewest digits that read back to x. What 15 digits can say, %.15g says in as few as it takes;
 * numbers below the normal ones have fewer. */
static void shortest(double x, char out[48])
{
    for (int digits = fabs(x) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        snprintf(out, 48, "%.*g", digits, x);
        if (strtod(out, NULL) == x)
            return;
    }
}

/* As jansson writes reals: with a point or an exponent, which has no plus and no leading zeros. */
static size_t real_text(double x, char out[64])
{
    char digits[48];
    shortest(x, digits);
    char *exponent = strchr(digits, 'e');
    if (exponent == NULL)
        return (size_t)sprintf(out, "%s%s", digits, strchr(digits, '.') == NULL ? ".0" : "");
    *exponent = '\0';
    return (size_t)sprintf(out, "%se%ld", digits, strtol(exponent + 1, NULL, 10));
}

/* jansson writes all reals with one number of digits, 17 to lose none: 0.1 as 0.10000000000000001.
 * They become shorter, in place; 77777777777777776.0 stays, for 7.777777777777778e16 is longer. */
static void shorten(char *text)
{
    char *to = text;
    bool string = false;
    for (const char *from = text; *from != '\0';) {
        size_t n = string || (*from != '-' && !digit(*from)) ? 0 : strspn(from, "+-.0123456789eE");
        if (n > 0 && strcspn(from, ".eE") < n) {
            char real[64];
            size_t len = real_text(strtod(from, NULL), real);
            const char *best = len <= n ? real : from;
            len = len <= n ? len : n;
            memmove(to, best, len);
            from += n;
            to += len;
            continue;
        }
        n = n > 0 ? n : string && *from == '\\' ? 2 : 1;
        if (*from == '"')
            string = !string;
        memmove(to, from, n);
        from += n;
        to += n;
    }
    *to = '\0';
}

/* NULL when the value cannot be written. */
static char *dump(const json_t *v, size_t flags)
{
    char *text = json_dumps(v, flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (text != NULL)
        shorten(text);
    return text;
}

int js_save(const json_t *v, const char *path, bool pretty, hone_err *e)
{
    char *text = dump(v, pretty ? JSON_INDENT(2) : JSON_COMPACT);
    if (text == NULL)
        return hone_fail(e, HONE_EINVAL, "%s: the value cannot be written as JSON", path);
    size_t n = strlen(text);
    if (pretty) /* the terminator's place takes the final newline */
        text[n++] = '\n';
    int rc = file_write(path, text, n, e);
    free(text);
    return rc;
}

char *js_text(const json_t *v, bool sorted)
{
    char *text = dump(v, JSON_COMPACT | (sorted ? JSON_SORT_KEYS : 0));
    if (text == NULL)
        mem_none();
    return text;
}

char *js_pretty(const json_t *v)
{
    char *text = dump(v, JSON_INDENT(2));
    if (text == NULL)
        mem_none();
    return text;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static int missing(const char *key, hone_err *e)
{
    return hone_fail(e, HONE_EFORMAT, "field '%s' is missing", key);
}

static int not_a(const char *key, const char *what, hone_err *e)
{
    return hone_fail(e, HONE_EFORMAT, "field '%s' is not %s", key, what);
}

static json_t *present(const json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

int js_get_str(const json_t *o, const char *key, const char **out, hone_err *e)
{
    return present(o, key) == NULL ? missing(key, e) : js_opt_str(o, key, out, e);
}

int js_get_int(const json_t *o, const char *key, int64_t *out, hone_err *e)
{
    return present(o, key) == NULL ? missing(key, e) : js_opt_int(o, key, out, e);
}

int js_get_num(const json_t *o, const char *key, double *out, hone_err *e)
{
    return present(o, key) == NULL ? missing(key, e) : js_opt_num(o, key, out, e);
}

int js_get_array(const json_t *o, const char *key, json_t **out, hone_err *e)
{
    json_t *v = present(o, key);
    if (v == NULL)
        return missing(key, e);
    if (!json_is_array(v))
        return not_a(key, "an array", e);
    *out = v;
    return 0;
}

int js_opt_str(const json_t *o, const char *key, const char **out, hone_err *e)
{
    json_t *v = present(o, key);
    if (v == NULL)
        return 0;
    if (!json_is_string(v))
        return not_a(key, "a string", e);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return not_a(key, "free of NUL characters", e);
    *out = json_string_value(v);
    return 0;
}

int js_opt_int(const json_t *o, const char *key, int64_t *out, hone_err *e)
{
    json_t *v = present(o, key);
    if (v == NULL)
        return 0;
    if (!json_is_integer(v))
        return not_a(key, "an integer", e);
    *out = json_integer_value(v);
    return 0;
}

int js_opt_num(const json_t *o, const char *key, double *out, hone_err *e)
{
    json_t *v = present(o, key);
    if (v == NULL)
        return 0;
    if (!json_is_number(v))
        return not_a(key, "a number", e);
    *out = json_number_value(v);
    return 0;
}

int js_opt_bool(const json_t *o, const char *key, bool *out, hone_err *e)
{
    json_t *v = present(o, key);
    if (v == NULL)
        return 0;
    if (!json_is_boolean(v))
        return not_a(key, "true or false", e);
    *out = json_is_true(v);
    return 0;
}

int js_only_keys(const json_t *o, const char *const *keys, hone_err *e)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)o, key, v) {
        size_t i = 0;
        while (keys[i] != NULL && strcmp(keys[i], key) != 0)
            i++;
        if (keys[i] != NULL)
            continue;
        const char *near = nearest_name(key, keys);
        if (near != NULL)
            return hone_fail(e, HONE_EFORMAT, "unknown field '%s' (did you mean '%s'?)", key, near);
        return hone_fail(e, HONE_EFORMAT, "unknown field '%s'", key);
    }
    return 0;
}

/* Values of v, or more than `most`, which is also the answer where v is too deep. */
static size_t n_values(const json_t *v, int depth, size_t most)
{
    size_t n = 1, i;
    const char *key;
    json_t *one;
    if (depth > JS_MAX_DEPTH)
        return most + 1;
    json_array_foreach (v, i, one) {
        if (n <= most)
            n += n_values(one, depth + 1, most - n);
    }
    json_object_foreach ((json_t *)(uintptr_t)v, key, one) {
        if (n <= most)
            n += n_values(one, depth + 1, most - n);
    }
    return n;
}

bool js_is_tree(const json_t *v)
{
    return n_values(v, 1, JS_MAX_VALUES) <= JS_MAX_VALUES;
}

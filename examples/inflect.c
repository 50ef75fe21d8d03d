#include "examples/inflect.h"

#include <stdbool.h>
#include <string.h>

static bool vowel(char c)
{
    return c != '\0' && strchr("aeiou", c) != NULL;
}

static bool ends(const char *w, size_t n, const char *end)
{
    size_t k = strlen(end);
    return n >= k && memcmp(w + n - k, end, k) == 0;
}

static bool consonant_y(const char *w, size_t n)
{
    return n >= 2 && w[n - 1] == 'y' && !vowel(w[n - 2]);
}

static void add_s(buf *out, const char *w, size_t n)
{
    bool hiss = ends(w, n, "s") || ends(w, n, "x") || ends(w, n, "z") || ends(w, n, "ch") ||
                ends(w, n, "sh") || (ends(w, n, "o") && n >= 2 && !vowel(w[n - 2]));
    bool ies = consonant_y(w, n);
    buf_add(out, w, ies ? n - 1 : n);
    buf_str(out, ies ? "ies" : hiss ? "es" : "s");
}

static void add_ed(buf *out, const char *w, size_t n)
{
    bool ied = consonant_y(w, n);
    buf_add(out, w, ied ? n - 1 : n);
    buf_str(out, ied ? "ied" : ends(w, n, "e") ? "d" : "ed");
}

static void add_ing(buf *out, const char *w, size_t n)
{
    bool drop = ends(w, n, "e") && !ends(w, n, "ee") && !ends(w, n, "ye") && !ends(w, n, "oe");
    buf_add(out, w, drop ? n - 1 : n);
    buf_str(out, "ing");
}

void inflect(buf *out, const char *words, inflect_form form)
{
    static void (*const add[])(buf *, const char *, size_t) = {[INFLECT_S] = add_s,
                                                               [INFLECT_ED] = add_ed,
                                                               [INFLECT_ING] = add_ing,
                                                               [INFLECT_PLURAL] = add_s};
    size_t len = strlen(words), from = 0, to = len;
    if (form == INFLECT_PLURAL) {
        const char *last = strrchr(words, ' ');
        from = last != NULL ? (size_t)(last - words) + 1 : 0;
    } else {
        to = strcspn(words, " ");
    }
    buf_add(out, words, from);
    add[form](out, words + from, to - from);
    buf_add(out, words + to, len - to);
}

/* How answers are made comparable. */
#include "core/base/mem.h"
#include "core/eval/eval_int.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

char *text_trimmed(const char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        n--;
    return mem_strndup(s, n);
}

static bool is_article(const char *word, size_t n)
{
    static const char *const articles[] = {"a", "an", "the"};
    for (size_t i = 0; i < sizeof articles / sizeof *articles; i++)
        if (strlen(articles[i]) == n && memcmp(articles[i], word, n) == 0)
            return true;
    return false;
}

/* ASCII rules; bytes above 127 are letters. Source: the normalisation of SQuAD 1.1's evaluation. */
char *text_normalised(const char *s)
{
    char *low = mem_strdup(s), *out = mem_alloc(strlen(s) + 1);
    size_t n = 0, k = 0;
    for (const char *p = s; *p != '\0'; p++)
        if (!ispunct((unsigned char)*p))
            low[k++] = (char)((unsigned char)*p < 0x80 ? tolower((unsigned char)*p) : *p);
    low[k] = '\0';
    for (char *p = low; *p != '\0';) {
        size_t len = strcspn(p, " \t\r\n\f\v");
        if (len > 0 && !is_article(p, len)) {
            if (n > 0)
                out[n++] = ' ';
            memcpy(out + n, p, len);
            n += len;
        }
        p += len;
        p += strspn(p, " \t\r\n\f\v");
    }
    free(low);
    return out;
}

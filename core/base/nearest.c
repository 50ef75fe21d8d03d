#include "core/base/nearest.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MAX_LEN = 64 };

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Levenshtein distance; words longer than MAX_LEN are never near. */
static size_t distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b), row[MAX_LEN + 1];
    if (na > MAX_LEN || nb > MAX_LEN)
        return SIZE_MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t up = row[j];
            row[j] = min3(up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = up;
        }
    }
    return row[nb];
}

const char *nearest_name(const char *word, const char *const *names)
{
    const char *best = NULL;
    size_t n = strlen(word);
    size_t best_d = n / 3 + 2 < n ? n / 3 + 2 : n;
    for (size_t i = 0; names[i] != NULL; i++) {
        size_t d = distance(word, names[i]);
        if (d < best_d) {
            best = names[i];
            best_d = d;
        }
    }
    return best;
}

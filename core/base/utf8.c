#include "core/base/utf8.h"

#include <string.h>

static size_t sequence_len(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xC2 && c <= 0xDF)
        return 2;
    if (c >= 0xE0 && c <= 0xEF)
        return 3;
    if (c >= 0xF0 && c <= 0xF4)
        return 4;
    return 0;
}

/* Second bytes are narrower after E0, ED, F0 and F4 (overlong forms, surrogates, above U+10FFFF).
 */
static bool second_ok(unsigned char first, unsigned char second)
{
    unsigned char lo = 0x80, hi = 0xBF;
    if (first == 0xE0)
        lo = 0xA0;
    else if (first == 0xED)
        hi = 0x9F;
    else if (first == 0xF0)
        lo = 0x90;
    else if (first == 0xF4)
        hi = 0x8F;
    return second >= lo && second <= hi;
}

size_t utf8_next(const char *str, size_t n, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)str;
    if (n == 0)
        return 0;
    size_t len = sequence_len(s[0]);
    if (len == 0 || len > n)
        return 0;
    if (len == 1) {
        *cp = s[0];
        return 1;
    }
    if (!second_ok(s[0], s[1]))
        return 0;
    uint32_t c = s[0] & (0xFFU >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    *cp = c;
    return len;
}

size_t utf8_valid(const char *s, size_t n)
{
    size_t i = 0;
    uint32_t cp;
    while (i < n) {
        uint64_t eight;
        if (n - i >= sizeof eight) { /* most text is ASCII */
            memcpy(&eight, s + i, sizeof eight);
            if ((eight & 0x8080808080808080U) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        size_t k = utf8_next(s + i, n - i, &cp);
        if (k == 0)
            break;
        i += k;
    }
    return i;
}

size_t utf8_partial(const char *str, size_t n)
{
    const unsigned char *s = (const unsigned char *)str;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = s[n - back];
        if ((c & 0xC0) == 0x80)
            continue;
        if (sequence_len(c) <= back)
            return 0;
        return back == 1 || second_ok(c, s[n - back + 1]) ? back : 0;
    }
    return 0;
}

/* Character classes, and hand-written scanners for the split patterns of GPT-2, Llama 3 and Qwen2.
 * A scanner takes about a nanosecond a byte where the regular expression takes twenty; the test
 * compares them word for word. */
#include "core/text/tok_int.h"

#include <string.h>
#include <utf8proc.h>

const char tok_pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char tok_pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char tok_pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

enum { OTHER, LETTER, NUMBER, SPACE, END };

/* clang-format off */
static const unsigned char ascii_class[128] = {
    0,0,0,0,0,0,0,0,0,3,3,3,3,3,0,0, 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,
    3,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0, 2,2,2,2,2,2,2,2,2,2,0,0,0,0,0,0,
    0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1, 1,1,1,1,1,1,1,1,1,1,1,0,0,0,0,0,
    0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1, 1,1,1,1,1,1,1,1,1,1,1,0,0,0,0,0,
};
/* By utf8proc_category_t: Cn, five of L, three of M, three of N, seven of P, four of S, three of Z, Cc, Cf, Cs, Co. */
static const unsigned char category_class[] = {
    OTHER, LETTER, LETTER, LETTER, LETTER, LETTER, OTHER, OTHER, OTHER, NUMBER, NUMBER, NUMBER,
    OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, SPACE, SPACE,
    SPACE, OTHER, OTHER, OTHER, OTHER,
};
/* clang-format on */

static int class_of(uint32_t cp)
{
    if (cp < 128)
        return ascii_class[cp];
    if (cp == 0x85)
        return SPACE;
    return category_class[utf8proc_category((utf8proc_int32_t)cp)];
}

bool tok_is_space(uint32_t cp)
{
    return class_of(cp) == SPACE;
}

bool tok_is_letter(uint32_t cp)
{
    return class_of(cp) == LETTER;
}

bool tok_is_number(uint32_t cp)
{
    return class_of(cp) == NUMBER;
}

bool tok_is_word(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* the joiners, and the symbols that are alphabetic: letters in circles and squares */
        return cp == 0x200C || cp == 0x200D || (cp >= 0x24B6 && cp <= 0x24E9) ||
               (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
               (cp >= 0x1F170 && cp <= 0x1F189);
    }
}

bool tok_is_punct(uint32_t cp)
{
    if (cp < 128)
        return cp > 32 && cp < 127 && ascii_class[cp] == OTHER;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

/* Class of the character at s[i], END at the end; *len is its bytes. */
static inline int class_at(const char *s, size_t n, size_t i, size_t *len)
{
    if (i >= n)
        return END;
    if ((signed char)s[i] >= 0) {
        *len = 1;
        return ascii_class[(unsigned char)s[i]];
    }
    uint32_t cp;
    *len = tok_cp(s + i, &cp);
    return class_of(cp);
}

/* The end of the run of this class that begins at s[i]. */
static inline size_t run_of(const char *s, size_t n, size_t i, int class)
{
    size_t k;
    while (class_at(s, n, i, &k) == class)
        i += k;
    return i;
}

/* \s+(?!\S)|\s+ : a run of spaces leaves its last one to the word that follows. */
static size_t space_word(const char *s, size_t n)
{
    size_t i = 0, last = 0, k;
    while (class_at(s, n, i, &k) == SPACE) {
        last = i;
        i += k;
    }
    return i == n || last == 0 ? i : last;
}

/* Length of an English contraction at s, 0 when there is none. */
static size_t contraction(const char *s, size_t n)
{
    if (n < 2 || s[0] != '\'')
        return 0;
    switch (s[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
        return 2;
    case 'r':
    case 'v':
        return n > 2 && s[2] == 'e' ? 3 : 0;
    case 'l':
        return n > 2 && s[2] == 'l' ? 3 : 0;
    default:
        return 0;
    }
}

/* The same without regard to case, where the long s (U+017F) is an s. */
static size_t contraction_any_case(const char *s, size_t n)
{
    if (n < 2 || s[0] != '\'')
        return 0;
    if (n > 2 && s[1] == '\xC5' && s[2] == '\xBF')
        return 3;
    char folded[3] = {'\'', (char)(s[1] | 0x20), (char)(n > 2 ? s[2] | 0x20 : 0)};
    return contraction(folded, n > 2 ? 3 : 2);
}

static size_t scan_gpt2(const char *s, size_t n)
{
    size_t k = contraction(s, n), from = 0;
    if (k != 0)
        return k;
    int class = class_at(s, n, 0, &k);
    if (s[0] == ' ') {
        class = class_at(s, n, 1, &k);
        from = 1;
    }
    if (class == SPACE || class == END)
        return space_word(s, n);
    return run_of(s, n, from + k, class);
}

/* A run of spaces with a line end in it goes up to its last line end. */
static size_t line_end_word(const char *s, size_t n)
{
    size_t i = 0, end = 0, k;
    while (class_at(s, n, i, &k) == SPACE) {
        i += k;
        if (s[i - 1] == '\n' || s[i - 1] == '\r')
            end = i;
    }
    return end;
}

static size_t other_word(const char *s, size_t n, size_t from)
{
    size_t i = run_of(s, n, from, OTHER);
    while (i < n && (s[i] == '\n' || s[i] == '\r'))
        i++;
    return i;
}

static size_t number_word(const char *s, size_t n, int digits)
{
    size_t i = 0, k;
    while (digits-- > 0 && class_at(s, n, i, &k) == NUMBER)
        i += k;
    return i;
}

static inline size_t scan_llama3_digits(const char *s, size_t n, int digits)
{
    size_t k = 1, k2 = 1;
    int class = class_at(s, n, 0, &k);
    if (class == LETTER)
        return run_of(s, n, k, LETTER);
    if (class == NUMBER)
        return number_word(s, n, digits);
    size_t c = contraction_any_case(s, n);
    if (c != 0)
        return c;
    int next = class_at(s, n, k, &k2);
    if (next == LETTER && s[0] != '\n' && s[0] != '\r')
        return run_of(s, n, k + k2, LETTER);
    if (class == OTHER || (s[0] == ' ' && next == OTHER))
        return other_word(s, n, k);
    size_t end = line_end_word(s, n);
    return end != 0 ? end : space_word(s, n);
}

static size_t scan_llama3(const char *s, size_t n)
{
    return scan_llama3_digits(s, n, 3);
}

static size_t scan_qwen2(const char *s, size_t n)
{
    return scan_llama3_digits(s, n, 1);
}

tok_scan *tok_scan_find(const char *pattern)
{
    static const struct {
        const char *pattern;
        tok_scan *scan;
    } known[] = {
        {tok_pattern_gpt2, scan_gpt2},
        {tok_pattern_llama3, scan_llama3},
        {tok_pattern_qwen2, scan_qwen2},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].pattern, pattern) == 0)
            return known[i].scan;
    return NULL;
}

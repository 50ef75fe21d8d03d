/* Code points as Python's str sees them: white space, line breaks, classes and case, over
 * utf8proc's tables. */
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <string.h>
#include <utf8proc.h>

typedef struct range {
    uint32_t from, to;
} range;

static bool in_ranges(const range *v, size_t n, uint32_t c)
{
    for (size_t i = 0; i < n; i++)
        if (c >= v[i].from && c <= v[i].to)
            return true;
    return false;
}
#define IN(table, c) in_ranges(table, sizeof table / sizeof *table, c)

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool jchar_space(uint32_t c)
{
    static const range wide[] = {{0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
                                 {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                 {0x205F, 0x205F}, {0x3000, 0x3000}};
    if (c < 0x80)
        return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
    return IN(wide, c);
}

bool jchar_linebreak(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool jchar_printable(uint32_t c)
{
    if (c < 0x7F)
        return c >= 0x20;
    utf8proc_category_t k = category(c);
    return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS;
}

bool jchar_decimal(uint32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

bool jchar_digit(uint32_t c)
{
    static const range more[] = {
        {0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
        {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
        {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
        {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
        {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};
    return jchar_decimal(c) || IN(more, c);
}

bool jchar_alpha(uint32_t c)
{
    if (c < 0x80)
        return (c | 32) >= 'a' && (c | 32) <= 'z';
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool jchar_alnum(uint32_t c)
{
    if (jchar_alpha(c) || jchar_digit(c))
        return true;
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool jchar_upper(uint32_t c)
{
    static const range more[] = {{0x2160, 0x216F},
                                 {0x24B6, 0x24CF},
                                 {0x1F130, 0x1F149},
                                 {0x1F150, 0x1F169},
                                 {0x1F170, 0x1F189}};
    return category(c) == UTF8PROC_CATEGORY_LU || IN(more, c);
}

bool jchar_lower(uint32_t c)
{
    static const range more[] = {
        {0xAA, 0xAA},     {0xBA, 0xBA},     {0x2B0, 0x2B8},   {0x2C0, 0x2C1},   {0x2E0, 0x2E4},
        {0x345, 0x345},   {0x37A, 0x37A},   {0x1D2C, 0x1D6A}, {0x1D78, 0x1D78}, {0x1D9B, 0x1DBF},
        {0x2071, 0x2071}, {0x207F, 0x207F}, {0x2090, 0x209C}, {0x2170, 0x217F}, {0x24D0, 0x24E9},
        {0x2C7C, 0x2C7D}, {0xA69C, 0xA69D}, {0xA770, 0xA770}, {0xA7F8, 0xA7F9}, {0xAB5C, 0xAB5F}};
    return category(c) == UTF8PROC_CATEGORY_LL || IN(more, c);
}

bool jchar_cased(uint32_t c)
{
    return jchar_upper(c) || jchar_lower(c) || category(c) == UTF8PROC_CATEGORY_LT;
}

size_t jchar_skip_space(const char *p, size_t n)
{
    size_t i = 0;
    uint32_t c;
    while (i < n) {
        size_t k = utf8_next(p + i, n - i, &c);
        if (k == 0 || !jchar_space(c))
            break;
        i += k;
    }
    return i;
}

/* Start of the code point that ends at `end` (> 0). */
static size_t before(const char *p, size_t end)
{
    size_t i = end - 1;
    while (i > 0 && (p[i] & 0xC0) == 0x80)
        i--;
    return i;
}

size_t jchar_space_before(const char *p, size_t n)
{
    size_t end = n;
    uint32_t c;
    while (end > 0) {
        size_t i = before(p, end);
        if (utf8_next(p + i, end - i, &c) == 0 || !jchar_space(c))
            break;
        end = i;
    }
    return n - end;
}

/* ---- case ---- */

int jchar_map(uint32_t c, jcase to, uint32_t dst[3])
{
    if (c == 0x130 && to == JCASE_LOWER) {
        dst[0] = 'i';
        dst[1] = 0x307;
        return 2;
    }
    const uint32_t *special = to == JCASE_LOWER ? NULL : jcase_special(c, to == JCASE_TITLE);
    if (special != NULL) {
        int n = 0;
        while (n < 3 && special[n] != 0) {
            dst[n] = special[n];
            n++;
        }
        return n;
    }
    utf8proc_int32_t k = (utf8proc_int32_t)c;
    dst[0] = (uint32_t)(to == JCASE_UPPER   ? utf8proc_toupper(k)
                        : to == JCASE_LOWER ? utf8proc_tolower(k)
                                            : utf8proc_totitle(k));
    return 1;
}

static bool case_ignorable(uint32_t c)
{
    static const range marks[] = {{'\'', '\''},     {'.', '.'},       {':', ':'},
                                  {0xB7, 0xB7},     {0x2018, 0x2019}, {0x2024, 0x2024},
                                  {0x2027, 0x2027}, {'^', '^'},       {'`', '`'}};
    utf8proc_category_t k = category(c);
    return IN(marks, c) || k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME ||
           k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK;
}

/* A capital sigma at [at, after) ends a word: a letter before it and none after. */
static bool final_sigma(const jstr *s, size_t at, size_t after)
{
    uint32_t c = 0;
    size_t i = at;
    while (i > 0) {
        i = before(s->p, i);
        utf8_next(s->p + i, s->n - i, &c);
        if (!case_ignorable(c))
            break;
    }
    if (at == 0 || case_ignorable(c) || !jchar_cased(c))
        return false;
    for (i = after; i < s->n;) {
        i += utf8_next(s->p + i, s->n - i, &c);
        if (!case_ignorable(c))
            return !jchar_cased(c);
    }
    return true;
}

static size_t put_utf8(char *dst, const uint32_t *cp, int n)
{
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += (size_t)utf8proc_encode_char((utf8proc_int32_t)cp[i], (utf8proc_uint8_t *)dst + len);
    return len;
}

static jcase case_of(jtext_case how, bool first, bool after_letter)
{
    switch (how) {
    case JTEXT_UPPER:
        return JCASE_UPPER;
    case JTEXT_LOWER:
        return JCASE_LOWER;
    case JTEXT_TITLE:
        return after_letter ? JCASE_LOWER : JCASE_TITLE;
    default:
        return first ? JCASE_TITLE : JCASE_LOWER;
    }
}

int jchar_text(jrt *r, const jstr *s, jtext_case how, jval *out)
{
    jbuf b = {0};
    jtag tag = jstr_tag(s);
    bool after_letter = false;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n;) {
        uint32_t c = 0, to[3];
        char text[16];
        size_t k = utf8_next(s->p + i, s->n - i, &c);
        jcase want = case_of(how, i == 0, after_letter);
        int n = jchar_map(c, want, to);
        if (c == 0x3A3 && want == JCASE_LOWER && final_sigma(s, i, i + k))
            to[0] = 0x3C2;
        rc = jbuf_add(r, &b, text, put_utf8(text, to, n), tag);
        after_letter = jchar_cased(c);
        i += k;
    }
    if (rc == 0)
        rc = jbuf_done(r, &b, out);
    if (rc == 0)
        out->s->safe = s->safe;
    return rc;
}

/* Finds personal data in texts and has them replaced: e-mail addresses, phone numbers, IP
 * addresses, payment cards, IBANs. Scanners by hand, each looking at a bounded number of bytes from
 * where it starts: linear in the text whatever it holds. What has a checksum must satisfy it; what
 * has none needs a form or a word beside it that makes it a phone number.
 *
 * data.tag lists the spans, data.pii names their replacements: <EMAIL_1>, numbered by value within
 * a record, so that who is who stays readable. Records of the log and feedback are redacted whole.
 * It counts what it finds and says nothing of it. */
#include <hone_plugin.h>

#include <errno.h>
#include <stdlib.h>

enum { EMAIL, PHONE, IP, CARD, IBAN, N_KINDS };
enum { MAX_DIGITS = 20, MAX_GROUPS = 12, MAX_KEY = 4096, BLOCK = 64 };

static const char *const kind_names[N_KINDS] = {"email", "phone", "ip", "card", "iban"};
static const char *const upper_names[N_KINDS] = {"EMAIL", "PHONE", "IP", "CARD", "IBAN"};

typedef struct span {
    size_t start, end;
    int kind;
} span;

/* A value that the record at hand has shown already. */
typedef struct seen {
    uint64_t digest[2];
    int number; /* number 0: a free place of the table */
} seen;

typedef struct pii {
    int on[N_KINDS], private_ips, report;
    unsigned char key[BLOCK]; /* of the pseudonyms */
    int has_key;
    span *spans;
    size_t n_spans, cap_spans;
    seen *seen; /* [cap_seen] open addressing */
    size_t n_seen, cap_seen;
    int n_of[N_KINDS];
    unsigned long long total[N_KINDS];
} pii;

/* ---- characters ---- */

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_alpha(char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* What a number may not touch. Other scripts write no space there. */
static int is_word(char c)
{
    return is_digit(c) || is_alpha(c) || c == '_';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static int in_set(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* ---- words before a number ---- */

static int is_letter(char c)
{
    return is_word(c) || (unsigned char)c >= 0x80;
}

static int is_listed(const char *word, size_t n, const char *const *words)
{
    for (; *words != NULL; words++)
        if (word[0] == **words && strncmp(word, *words, n) == 0 && (*words)[n] == '\0')
            return 1;
    return 0;
}

/* Is one of these words among the `reach` bytes before i? */
static int has_context(const char *s, size_t i, size_t reach, const char *const *words)
{
    char word[40];
    size_t n = 0;
    for (size_t k = i < reach ? 0 : i - reach; k < i; k++) {
        if (is_letter(s[k]) && n < sizeof word)
            word[n++] = lower(s[k]);
        if (n > 0 && (k + 1 == i || !is_letter(s[k + 1]))) {
            if (is_listed(word, n, words))
                return 1;
            n = 0;
        }
    }
    return 0;
}

/* ---- e-mail ---- */

/* A byte of a Latin letter with an accent, U+00C0 to U+023F: other scripts may stand right before
 * an address that does not begin with them. */
static int is_accented(const char *s, size_t i)
{
    unsigned char c = (unsigned char)s[i], lead = i > 0 && c < 0xC0 ? (unsigned char)s[i - 1] : c;
    return c >= 0x80 && lead >= 0xC3 && lead <= 0xC8;
}

static int is_label(const char *s, size_t i)
{
    return is_digit(s[i]) || is_alpha(s[i]) || s[i] == '-' || is_accented(s, i);
}

/* May the label s[0..n) be a top level? */
static int is_top(const char *s, size_t n)
{
    size_t letters = 0;
    while (letters < n && is_alpha(s[letters]))
        letters++;
    return n >= 2 && s[n - 1] != '-' && (letters == n || (n > 4 && memcmp(s, "xn--", 4) == 0));
}

/* The end of a domain that begins at i: labels and a top level of letters, or 0. */
static size_t domain_end(const char *s, size_t n, size_t i)
{
    size_t end = 0, from = i, limit = i + 255 < n ? i + 255 : n;
    for (; i < limit; i++) {
        size_t start = i;
        while (i < limit && is_label(s, i))
            i++;
        if (i == start || i - start > 63 || s[start] == '-')
            break;
        if (start > from && is_top(s + start, i - start))
            end = i;
        if (i >= limit || s[i] != '.')
            break;
    }
    return end;
}

/* Around the '@' at `at`. Not logo@2x.png. */
static int find_email(const char *s, size_t n, size_t at, span *out)
{
    size_t start = at;
    while (start > 0 && at - start < 64 &&
           (is_label(s, start - 1) || in_set(s[start - 1], "._%+'")))
        start--;
    while (start < at && (in_set(s[start], ".'-+%") || ((unsigned char)s[start] & 0xC0) == 0x80))
        start++;
    size_t end = domain_end(s, n, at + 1);
    if (start == at || in_set(s[at - 1], ".'") || end == 0 || (end < n && s[end] == '@'))
        return 0;
    if (at + 2 < n && is_digit(s[at + 1]) && s[at + 2] == 'x' && s[at + 3] == '.')
        return 0;
    *out = (span){start, end, EMAIL};
    return 1;
}

/* ---- IP addresses ---- */

typedef struct net {
    unsigned char bytes[16];
    int bits;
} net;

/* Address blocks that belong to nobody: IANA special-purpose registries, multicast. */
/* clang-format off */
static const net special4[] = {
    {{0}, 8}, {{10}, 8}, {{100, 64}, 10}, {{127}, 8}, {{169, 254}, 16}, {{172, 16}, 12},
    {{192, 0, 0}, 24}, {{192, 0, 2}, 24}, {{192, 168}, 16}, {{198, 18}, 15}, {{198, 51, 100}, 24},
    {{203, 0, 113}, 24}, {{224}, 4}, {{240}, 4},
};
static const net special6[] = {
    {{0x20, 0x01, 0x0d, 0xb8}, 32}, {{0x20, 0x01}, 23}, {{0x20, 0x02}, 16}, {{0x3f, 0xff}, 20},
};
/* clang-format on */

static int in_nets(const unsigned char *ip, const net *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int bit = 0;
        while (bit < t[i].bits && ((ip[bit / 8] ^ t[i].bytes[bit / 8]) >> (7 - bit % 8) & 1) == 0)
            bit++;
        if (bit == t[i].bits)
            return 1;
    }
    return 0;
}

/* Dotted quad at i, no leading zeros; its end or 0. */
static size_t parse4(const char *s, size_t n, size_t i, unsigned char *ip)
{
    for (int part = 0; part < 4; part++) {
        size_t start = i;
        int value = 0;
        for (; i < n && i - start < 4 && is_digit(s[i]); i++)
            value = value * 10 + (s[i] - '0');
        if (i == start || value > 255 || (s[start] == '0' && i - start > 1))
            return 0;
        ip[part] = (unsigned char)value;
        if (part < 3 && (i >= n || s[i++] != '.'))
            return 0;
    }
    return i;
}

static const char *const version_words[] = {"version", "ver",      "v",     "release",
                                            "section", "chapter",  "build", "firmware",
                                            "kernel",  "revision", NULL};

/* "version 1.2.3.4" is none, nor is a part of 1.2.3.4.5. */
static int find_ip4(const pii *p, const char *s, size_t n, size_t i, span *out)
{
    unsigned char ip[16];
    size_t end = parse4(s, n, i, ip);
    if (end == 0 || (end < n && is_word(s[end])) ||
        (end + 1 < n && s[end] == '.' && is_word(s[end + 1])))
        return 0;
    if ((i > 0 && in_set(s[i - 1], ".-")) || has_context(s, i, 9, version_words))
        return 0;
    *out = (span){i, end, IP};
    return p->private_ips || !in_nets(ip, special4, sizeof special4 / sizeof *special4);
}

typedef struct six {
    unsigned char bytes[16];
    int n, gap; /* bytes read; where "::" stands, or -1 */
} six;

/* One group or a dotted tail at i; its end, or 0. */
static size_t group6(const char *s, size_t n, size_t i, six *x)
{
    size_t start = i;
    unsigned value = 0;
    for (; i < n && i - start < 4; i++) {
        char c = lower(s[i]);
        if (!is_digit(c) && (c < 'a' || c > 'f'))
            break;
        value = value * 16 + (unsigned)(is_digit(c) ? c - '0' : c - 'a' + 10);
    }
    size_t tail = i + 1 < n && s[i] == '.' && is_digit(s[i + 1]) && x->n <= 12
                      ? parse4(s, n, start, x->bytes + x->n)
                      : 0;
    if (tail > 0) {
        x->n += 4;
        return tail;
    }
    if (i == start || x->n > 14)
        return 0;
    x->bytes[x->n++] = (unsigned char)(value >> 8);
    x->bytes[x->n++] = (unsigned char)value;
    return i;
}

static size_t parse6(const char *s, size_t n, size_t i, six *x)
{
    *x = (six){{0}, 0, -1};
    if (i + 1 < n && s[i] == ':' && s[i + 1] == ':') {
        x->gap = 0;
        i += 2;
        if (i >= n || (!is_digit(s[i]) && !is_alpha(s[i])))
            return 0; /* "::" alone says nothing */
    }
    for (;;) {
        size_t end = group6(s, n, i, x);
        if (end == 0)
            return 0;
        i = end;
        if (i + 1 < n && s[i] == ':' && s[i + 1] == ':' && x->gap < 0) {
            x->gap = x->n;
            i += 2;
            if (i >= n || !in_set(lower(s[i]), "0123456789abcdef"))
                break;
        } else if (i + 1 < n && s[i] == ':' && x->n < 16 &&
                   in_set(lower(s[i + 1]), "0123456789abcdef")) {
            i++;
        } else {
            break;
        }
    }
    return (x->gap < 0) == (x->n == 16) ? i : 0;
}

static int find_ip6(const pii *p, const char *s, size_t n, size_t i, span *out)
{
    six x;
    unsigned char ip[16] = {0};
    size_t end = parse6(s, n, i, &x);
    if (end == 0 || end - i < 4 || (end < n && (is_word(s[end]) || s[end] == ':')))
        return 0;
    if (i > 0 && in_set(s[i - 1], ":."))
        return 0;
    size_t head = x.gap < 0 ? (size_t)x.n : (size_t)x.gap, tail = (size_t)x.n - head;
    memcpy(ip, x.bytes, head);
    memcpy(ip + 16 - tail, x.bytes + head, tail);
    *out = (span){i, end, IP};
    if (p->private_ips)
        return x.n >= 2;
    return (ip[0] & 0xe0) == 0x20 && /* 2000::/3 */
           !in_nets(ip, special6, sizeof special6 / sizeof *special6);
}

/* ---- IBAN ---- */

/* Length by country, as in the IBAN registry. */
static const char iban_lengths[] =
    "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24"
    "FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32"
    "LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24"
    "RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30";

static size_t iban_length(const char *country)
{
    for (const char *s = iban_lengths; *s != '\0'; s += 4)
        if (lower(s[0]) == lower(country[0]) && lower(s[1]) == lower(country[1]))
            return (size_t)((s[2] - '0') * 10 + s[3] - '0');
    return 0;
}

static int mod97(const char *iban, size_t len)
{
    int r = 0;
    for (size_t i = 0; i < len; i++) {
        char c = iban[(i + 4) % len];
        r = is_digit(c) ? (r * 10 + c - '0') % 97 : (r * 100 + c - 'a' + 10) % 97;
    }
    return r;
}

/* In one piece, or in groups of four with spaces or hyphens; letters of one case. */
static int find_iban(const char *s, size_t n, size_t i, span *out)
{
    char c[34] = {0};
    size_t len = 0, at = i, want = i + 15 <= n && is_digit(s[i + 2]) ? iban_length(s + i) : 0;
    int grouped = want > 0 && in_set(s[i + 4], " -");
    while (len < want) {
        at += grouped && len > 0 && len % 4 == 0 && at < n && s[at] == s[i + 4];
        if (at >= n || !(is_digit(s[at]) || (is_alpha(s[at]) && ((s[at] ^ s[i]) & 0x20) == 0)))
            return 0;
        c[len++] = lower(s[at++]);
    }
    if (want == 0 || (at < n && is_word(s[at])) || !is_digit(c[3]))
        return 0;
    *out = (span){i, at, IBAN};
    return mod97(c, len) == 1;
}

/* ---- runs of digits: cards and phone numbers ---- */

/* Digits in groups with one or two separators between, as far as there are at most MAX_DIGITS. */
typedef struct digits {
    char d[MAX_DIGITS];
    int n, n_groups;
    int upto[MAX_GROUPS];   /* digits up to the end of a group */
    size_t end[MAX_GROUPS]; /* where it ends in the text */
    char sep[MAX_GROUPS];   /* before the group; ')' for ") " */
    int plus, paren;
    int open; /* more digits follow directly */
} digits;

static size_t separator(const char *s, size_t n, size_t i, char *sep)
{
    size_t at = i;
    *sep = at < n ? s[at] : '\0';
    if (at < n && s[at] == ')') {
        at++;
        if (at < n && in_set(s[at], " -"))
            at++;
    } else if (at < n && *sep == '(') {
        at++; /* +49(0)30 */
    } else if (at < n && in_set(s[at], " -./")) {
        at++;
        if (at < n && s[at] == '(') {
            *sep = '(';
            at++;
        }
    }
    return at > i && at < n && is_digit(s[at]) ? at : 0;
}

static void read_digits(const char *s, size_t n, size_t i, digits *x)
{
    memset(x, 0, sizeof *x);
    x->plus = s[i] == '+';
    i += s[i] == '+';
    x->paren = i < n && s[i] == '(';
    i += (size_t)x->paren;
    char sep = '\0';
    while (x->n_groups < MAX_GROUPS && i < n && is_digit(s[i])) {
        while (i < n && is_digit(s[i]) && x->n < MAX_DIGITS)
            x->d[x->n++] = s[i++];
        x->upto[x->n_groups] = x->n;
        x->end[x->n_groups] = i;
        x->sep[x->n_groups++] = sep;
        x->open = i < n && is_digit(s[i]);
        if (x->n == MAX_DIGITS || x->open)
            break;
        i = separator(s, n, i, &sep);
        if (i == 0)
            break;
    }
}

static int group_size(const digits *x, int g)
{
    return x->upto[g] - (g > 0 ? x->upto[g - 1] : 0);
}

static int all_equal(const digits *x, int n)
{
    for (int i = 1; i < n; i++)
        if (x->d[i] != x->d[0])
            return 0;
    return 1;
}

static int luhn(const char *d, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++) {
        int v = d[n - 1 - i] - '0';
        sum += i % 2 == 0 ? v : v * 2 - (v > 4 ? 9 : 0);
    }
    return sum % 10 == 0;
}

/* First six digits from and to, and lengths, of the brands. */
/* clang-format off */
static const struct {
    int from, to, least, most;
} brands[] = {
    {220000, 220499, 16, 19}, /* Mir */
    {222100, 272099, 16, 16}, {510000, 559999, 16, 16}, /* Mastercard */
    {300000, 305999, 14, 19}, {309500, 309599, 14, 19}, /* Diners Club */
    {360000, 369999, 14, 19}, {380000, 399999, 14, 19},
    {340000, 349999, 15, 15}, {370000, 379999, 15, 15}, /* American Express */
    {352800, 358999, 16, 19}, /* JCB */
    {400000, 499999, 13, 13}, {400000, 499999, 16, 16}, {400000, 499999, 19, 19}, /* Visa */
    {500000, 509999, 12, 19}, {560000, 589999, 12, 19}, /* Maestro */
    {630400, 630499, 12, 19}, {675900, 676399, 12, 19},
    {601100, 601199, 16, 19}, {644000, 659999, 16, 19}, /* Discover */
    {620000, 629999, 16, 19}, /* UnionPay */
    {600000, 609999, 16, 16}, {817000, 829999, 16, 16}, /* RuPay */
};
/* clang-format on */

static int has_brand(const char *d, int n)
{
    int first = 0;
    for (int i = 0; i < 6; i++)
        first = first * 10 + d[i] - '0';
    for (size_t i = 0; i < sizeof brands / sizeof *brands; i++)
        if (first >= brands[i].from && first <= brands[i].to && n >= brands[i].least &&
            n <= brands[i].most)
            return 1;
    return 0;
}

/* Written in one piece, in fours, or as 4-6-5 and 4-6-4, with one kind of separator. */
static int card_groups(const digits *x, int groups)
{
    for (int g = 1; g < groups; g++)
        if (x->sep[g] != x->sep[1] || !in_set(x->sep[g], " -"))
            return 0;
    if (groups == 1)
        return 1;
    if (groups == 3 && group_size(x, 0) == 4 && group_size(x, 1) == 6)
        return group_size(x, 2) == 5 || group_size(x, 2) == 4;
    for (int g = 0; g < groups - 1; g++)
        if (group_size(x, g) != 4)
            return 0;
    return group_size(x, groups - 1) <= 4;
}

static int find_card(const char *s, size_t n, size_t i, const digits *x, span *out)
{
    if (x->plus || x->paren)
        return 0;
    for (int g = x->n_groups; g > 0; g--) {
        int len = x->upto[g - 1];
        size_t end = x->end[g - 1];
        if (len < 12 || len > 19 || (g == x->n_groups && x->open) || (end < n && is_word(s[end])))
            continue;
        if (card_groups(x, g) && !all_equal(x, len) && has_brand(x->d, len) && luhn(x->d, len)) {
            *out = (span){i, end, CARD};
            return 1;
        }
    }
    return 0;
}

/* clang-format off */
static const char *const phone_words[] = {
    "phone", "telephone", "tel", "call", "calls", "mobile", "cell", "cellphone", "fax", "whatsapp",
    "sms", "dial", "ring", "hotline", "telefon", "telefonnummer", "handy", "mobil", "anrufen",
    "fon", "t\xc3\xa9l", "t\xc3\xa9l\xc3\xa9phone", "portable", "appelez", "tel\xc3\xa9""fono",
    "telefono", "m\xc3\xb3vil", "ll\xc3\xa1mame", "celular", "telefone", "cellulare", NULL};
static const char *const other_words[] = {
    "isbn", "issn", "doi", "order", "invoice", "serial", "sku", "ticket", "account", "version",
    "part", "id", "ean", "imei", "article", "case", "reference", "tracking", "patent", "ssn", NULL};
/* clang-format on */

/* Three, three, four, the first two not beginning with 0 or 1; perhaps a 1 before. */
static int is_nanp(const digits *x)
{
    int g = x->n_groups == 4 && group_size(x, 0) == 1 && x->d[0] == '1';
    if (x->n_groups - g != 3 || group_size(x, g) != 3 || group_size(x, g + 1) != 3 ||
        group_size(x, g + 2) != 4)
        return 0;
    const char *d = x->d + g;
    return d[0] >= '2' && d[3] >= '2';
}

/* One kind of separator, but for what stands around an area code. */
static int is_even(const digits *x)
{
    for (int g = 2; g < x->n_groups; g++)
        if (x->sep[g] != x->sep[g - 1] && !(g == 2 && in_set(x->sep[1], ")(/ ")))
            return 0;
    return 1;
}

static int is_year(const digits *x, int g)
{
    const char *d = x->d + x->upto[g] - group_size(x, g);
    return group_size(x, g) == 4 && (d[0] == '1' || (d[0] == '2' && d[1] == '0'));
}

/* Dates, years, fractions, thousands, versions and decimals, which may stand after "call" too. */
static int is_quantity(const digits *x)
{
    int last = x->n_groups - 1, thousands = last > 1 && group_size(x, 0) < 3;
    for (int g = 1; g <= last; g++) {
        if (x->sep[g] == '/' || (g < last && group_size(x, g) < 2))
            return 1;
        thousands &= group_size(x, g) == 3;
    }
    if (last == 1)
        return (is_year(x, 0) && is_year(x, 1)) || (x->sep[1] == '.' && group_size(x, 0) != 3);
    return thousands || (last == 2 && group_size(x, 1) == 2 && (is_year(x, 0) || is_year(x, 2)));
}

static int is_phone(const char *s, size_t i, const digits *x)
{
    int national = x->d[0] == '0' && x->n_groups >= 2 && x->n >= 9 && x->n <= 12;
    if (x->plus)
        return x->n >= 8 && x->n <= 15 && x->d[0] != '0';
    if (x->n < 7 || x->n > 15 || !is_even(x) || has_context(s, i, 40, other_words))
        return 0;
    if (is_nanp(x) || (national && group_size(x, 0) >= 2 && group_size(x, x->n_groups - 1) >= 2))
        return 1;
    return group_size(x, 0) >= 2 && !is_quantity(x) && has_context(s, i, 40, phone_words);
}

/* The longest run of whole groups that is a number. */
static int find_phone(const char *s, size_t n, size_t i, const digits *x, span *out)
{
    digits y = *x;
    int inside = i > 1 && in_set(s[i - 1], " -./") && is_digit(s[i - 2]) && !x->plus;
    int unclosed = x->paren && (x->n_groups < 2 || x->sep[1] != ')');
    if (x->open || inside || unclosed || (i > 0 && in_set(s[i - 1], "#$.,")))
        return 0;
    for (; y.n_groups > 0; y.n_groups--) {
        size_t end = y.end[y.n_groups - 1];
        y.n = y.upto[y.n_groups - 1];
        int bounded = end >= n || (!is_word(s[end]) &&
                                   !(in_set(s[end], ".,:") && end + 1 < n && is_digit(s[end + 1])));
        if ((bounded || y.n_groups < x->n_groups) && !all_equal(&y, y.n) && is_phone(s, i, &y)) {
            *out = (span){i, end, PHONE};
            return 1;
        }
    }
    return 0;
}

/* ---- a text ---- */

static int add_span(pii *p, const span *x)
{
    if (!p->on[x->kind])
        return 1;
    if (p->n_spans == p->cap_spans) {
        size_t cap = p->cap_spans * 2 + 64;
        span *more = realloc(p->spans, cap * sizeof *more);
        if (more == NULL)
            return 0;
        p->spans = more;
        p->cap_spans = cap;
    }
    p->spans[p->n_spans++] = *x;
    return 1;
}

/* What begins at i, where no word goes on; *next is where to look on. */
static int find_at(const pii *p, const char *s, size_t n, size_t i, span *out, size_t *next)
{
    digits x;
    char c = s[i];
    int hex = in_set(lower(c), "0123456789abcdef") || c == ':';
    *next = i + 1;
    if ((hex && find_ip6(p, s, n, i, out)) || (is_alpha(c) && find_iban(s, n, i, out)))
        return 1;
    if (!is_digit(c) && c != '+' && c != '(')
        return 0;
    if (is_digit(c) && find_ip4(p, s, n, i, out))
        return 1;
    read_digits(s, n, i, &x);
    if (find_card(s, n, i, &x, out) || find_phone(s, n, i, &x, out))
        return 1;
    if (is_digit(c))
        *next = x.end[0];
    return 0;
}

/* s ends with a NUL. Two letters and a digit: an IBAN. */
static int may_begin(const char *s)
{
    char c = *s;
    return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'f') || c == ':' || c == '+' ||
           c == '(' || (is_alpha(c) && is_alpha(s[1]) && is_digit(s[2]));
}

static int scan_emails(pii *p, const char *s, size_t n)
{
    size_t from = 0;
    const char *at;
    span x;
    while (from < n && (at = memchr(s + from, '@', n - from)) != NULL) {
        size_t i = (size_t)(at - s);
        from = i + 1;
        if (find_email(s, n, i, &x)) {
            if (!add_span(p, &x))
                return 0;
            from = x.end;
        }
    }
    return 1;
}

static int by_start(const void *a, const void *b)
{
    return ((const span *)a)->start < ((const span *)b)->start ? -1 : 1;
}

/* All spans of a text in their order, none over another; 0 without memory. */
static int scan(pii *p, const char *s, size_t n)
{
    p->n_spans = 0;
    if (!scan_emails(p, s, n))
        return 0;
    size_t n_emails = p->n_spans, e = 0;
    for (size_t i = 0; i < n;) {
        span x = {0, 0, 0};
        size_t next = i + 1;
        while (e < n_emails && p->spans[e].end <= i)
            e++;
        if (e < n_emails && i >= p->spans[e].start) {
            i = p->spans[e].end;
            continue;
        }
        if (may_begin(s + i) && (i == 0 || !is_word(s[i - 1])) && find_at(p, s, n, i, &x, &next)) {
            if (!(e < n_emails && x.end > p->spans[e].start) && !add_span(p, &x))
                return 0;
            next = x.end;
        }
        i = next;
    }
    if (n_emails > 0)
        qsort(p->spans, p->n_spans, sizeof *p->spans, by_start);
    return 1;
}

/* ---- what it is replaced by ---- */

static void from_hex(unsigned char out[32], const char *hex)
{
    for (size_t i = 0; i < 64; i++) {
        unsigned v = (unsigned)(is_digit(hex[i]) ? hex[i] - '0' : hex[i] - 'a' + 10);
        out[i / 2] = (unsigned char)(i % 2 == 0 ? v << 4 : out[i / 2] | v);
    }
}

/* HMAC-SHA-256 (RFC 2104) of up to 512 bytes; the key is all zeros where there is none. */
static void digest(const hone_host *h, const pii *p, char out[65], const char *value, size_t n)
{
    unsigned char block[BLOCK + 512];
    n = n < 512 ? n : 512;
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = p->key[i] ^ 0x36;
    memcpy(block + BLOCK, value, n);
    h->sha256(out, block, BLOCK + n);
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = p->key[i] ^ 0x5c;
    from_hex(block + BLOCK, out);
    h->sha256(out, block, BLOCK + 32);
}

/* The same value, however it is written: letters in lower case, digits without separators. */
static size_t canonical(char *out, size_t size, int kind, const char *s, size_t n)
{
    size_t at = 0;
    out[at++] = (char)('0' + kind);
    for (size_t i = 0; i < n && at < size; i++)
        if (kind == EMAIL || kind == IP || is_digit(s[i]) || is_alpha(s[i]))
            out[at++] = lower(s[i]);
    return at;
}

static size_t seen_place(const pii *p, const uint64_t digest[2])
{
    size_t i = digest[0] & (p->cap_seen - 1);
    while (p->seen[i].number != 0 &&
           memcmp(p->seen[i].digest, digest, sizeof p->seen[i].digest) != 0)
        i = (i + 1) & (p->cap_seen - 1);
    return i;
}

/* Room for one more at a load of a half; 0 without memory. */
static int seen_reserve(pii *p)
{
    pii old = *p;
    if (p->n_seen * 2 < p->cap_seen)
        return 1;
    p->cap_seen = old.cap_seen > 0 ? old.cap_seen * 2 : 64;
    p->seen = calloc(p->cap_seen, sizeof *p->seen);
    if (p->seen == NULL) {
        p->seen = old.seen;
        p->cap_seen = old.cap_seen;
        return 0;
    }
    for (size_t i = 0; i < old.cap_seen; i++)
        if (old.seen[i].number != 0)
            p->seen[seen_place(p, old.seen[i].digest)] = old.seen[i];
    free(old.seen);
    return 1;
}

static void seen_clear(pii *p)
{
    free(p->seen);
    p->seen = NULL;
    p->cap_seen = 0;
    p->n_seen = 0;
    memset(p->n_of, 0, sizeof p->n_of);
}

/* "<EMAIL_1>", or "<EMAIL_9f2c01ab4d5e>" with a key. 0 without memory. */
static int name_of(const hone_host *h, pii *p, int kind, const char *s, size_t n, char out[40])
{
    char plain[512], hex[65];
    unsigned char bytes[32];
    uint64_t d[2];
    digest(h, p, hex, plain, canonical(plain, sizeof plain, kind, s, n));
    if (p->has_key)
        return snprintf(out, 40, "<%s_%.12s>", upper_names[kind], hex) > 0;
    from_hex(bytes, hex);
    memcpy(d, bytes, sizeof d);
    if (!seen_reserve(p))
        return 0;
    seen *x = &p->seen[seen_place(p, d)];
    if (x->number == 0) {
        memcpy(x->digest, d, sizeof d);
        x->number = ++p->n_of[kind];
        p->n_seen++;
    }
    return snprintf(out, 40, "<%s_%d>", upper_names[kind], x->number) > 0;
}

static void count(const hone_host *h, hone_call *call, pii *p, int kind)
{
    p->total[kind]++;
    h->count(call->ctx, kind_names[kind], 1);
}

/* ---- data.tag and data.pii ---- */

static int add_tag(const hone_host *h, hone_call *call, hone_value *list, const char *field,
                   const span *x)
{
    hone_value *o = h->new_object(call);
    hone_set_string(h, call, o, "field", field, strlen(field));
    h->set(call, o, "start", h->new_int(call, (int64_t)x->start));
    h->set(call, o, "end", h->new_int(call, (int64_t)x->end));
    hone_set_string(h, call, o, "kind", kind_names[x->kind], strlen(kind_names[x->kind]));
    return h->append(call, list, o);
}

/* Names are given here, where the record is read from front to back. */
static int tag(const hone_host *h, hone_call *call, void *user)
{
    pii *p = user;
    hone_value *tags = h->get(call->data, "tags"), *list = h->get(tags, "pii");
    hone_text t = {0};
    char name[40];
    size_t found = 0;
    seen_clear(p);
    if (h->type(list) != HONE_ARRAY)
        list = h->new_array(call);
    while (hone_text_next(h, h->get(call->data, "record"), &t)) {
        if (!scan(p, t.text, t.len))
            return h->error(call, "no memory");
        for (size_t i = 0; i < p->n_spans; i++) {
            const span *x = &p->spans[i];
            if (!name_of(h, p, x->kind, t.text + x->start, x->end - x->start, name) ||
                add_tag(h, call, list, t.field, x) != 0)
                return h->error(call, "no memory");
            count(h, call, p, x->kind);
        }
        found += p->n_spans;
    }
    if (found == 0)
        return HONE_CONTINUE;
    h->set(call, tags, "pii_found", h->new_int(call, (int64_t)found));
    if (!p->report)
        h->set(call, tags, "pii", list);
    return HONE_MODIFIED;
}

static int replace(const hone_host *h, hone_call *call, void *user)
{
    const char *kind = hone_get_string(h, call->data, "kind", NULL);
    size_t n;
    const char *s = hone_get_string(h, call->data, "span", &n);
    char name[40];
    for (int k = 0; k < N_KINDS; k++) {
        if (kind == NULL || s == NULL || strcmp(kind, kind_names[k]) != 0)
            continue;
        if (!name_of(h, user, k, s, n, name))
            return h->error(call, "no memory");
        hone_set_string(h, call, call->data, "replacement", name, strlen(name));
        return HONE_MODIFIED;
    }
    return HONE_CONTINUE; /* a kind of somebody else's */
}

/* ---- serve.log and feedback.ingest: every text of a tree ---- */

typedef struct tree {
    const hone_host *h;
    hone_call *call;
    pii *p;
    size_t n_found;
    int failed;
} tree;

/* A text with its spans replaced, or NULL where there are none. */
static hone_value *redact_text(tree *t, const char *s, size_t n)
{
    pii *p = t->p;
    if (!scan(p, s, n)) {
        t->failed = 1;
        return NULL;
    }
    if (p->n_spans == 0)
        return NULL;
    char *out = t->h->alloc(t->call, n + p->n_spans * 40 + 1);
    size_t at = 0, from = 0;
    for (size_t i = 0; out != NULL && i < p->n_spans; i++) {
        const span *x = &p->spans[i];
        memcpy(out + at, s + from, x->start - from);
        at += x->start - from;
        t->failed |= !name_of(t->h, p, x->kind, s + x->start, x->end - x->start, out + at);
        at += strlen(out + at);
        from = x->end;
        count(t->h, t->call, p, x->kind);
    }
    t->failed |= out == NULL;
    t->n_found += p->n_spans;
    if (out == NULL || p->report)
        return NULL;
    memcpy(out + at, s + from, n - from);
    return t->h->new_string(t->call, out, at + n - from);
}

/* Ours, and looked up by. */
static int is_id(const char *name)
{
    size_t n = strlen(name);
    return strcmp(name, "id") == 0 || (n > 3 && strcmp(name + n - 3, "_id") == 0);
}

static void redact(tree *t, hone_value *v)
{
    const hone_host *h = t->h;
    int named = h->type(v) == HONE_OBJECT;
    size_t len, n = named || h->type(v) == HONE_ARRAY ? h->length(v) : 0;
    for (size_t i = 0; i < n; i++) {
        const char *name = named ? h->key(v, i, &len) : "";
        hone_value *one = named ? h->get(v, name) : h->at(v, i), *with = NULL;
        const char *s = h->string(one, &len);
        if (s == NULL)
            redact(t, one);
        else if (!is_id(name))
            with = redact_text(t, s, len);
        if (with != NULL && named)
            h->set(t->call, v, name, with);
        else if (with != NULL)
            h->set_at(t->call, v, i, with);
    }
}

static int redact_record(const hone_host *h, hone_call *call, void *user)
{
    tree t = {h, call, user, 0, 0};
    seen_clear(t.p);
    redact(&t, call->data);
    if (t.failed)
        return h->error(call, "no memory");
    return t.n_found > 0 && !t.p->report ? HONE_MODIFIED : HONE_CONTINUE;
}

/* ---- start and end ---- */

/* The whole file but white space at its end; a key of more than a block is its own digest. */
static int read_key(const hone_host *h, hone_ctx *cx, pii *p, const char *path)
{
    char text[MAX_KEY], hex[65];
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return h->init_error(cx, "key_file %s: %s", path, strerror(errno));
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    while (n > 0 && in_set(text[n - 1], " \n\r\t"))
        n--;
    if (n < 16 || n == sizeof text)
        return h->init_error(cx, "key_file %s: %lu bytes, must be 16 to %d", path, (unsigned long)n,
                             MAX_KEY - 1);
    if (n <= BLOCK) {
        memcpy(p->key, text, n);
    } else {
        h->sha256(hex, text, n);
        from_hex(p->key, hex);
    }
    p->has_key = 1;
    return 0;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    const char *path = hone_get_string(h, s, "key_file", NULL);
    static const char *const points[] = {"data.tag", "data.pii", "serve.log", "feedback.ingest"};
    static hone_fn *const fns[] = {tag, replace, redact_record, redact_record};
    pii *p = calloc(1, sizeof *p);
    if (p == NULL)
        return h->init_error(cx, "no memory");
    for (int k = 0; k < N_KINDS; k++)
        p->on[k] = h->boolean(h->get(s, kind_names[k]), 1);
    p->private_ips = h->boolean(h->get(s, "private_ips"), 0);
    p->report = strcmp(hone_get_string(h, s, "mode", NULL), "report") == 0;
    int rc = path != NULL ? read_key(h, cx, p, path) : 0;
    for (size_t i = 0; rc == 0 && i < 4; i++)
        rc = h->on(cx, points[i], 0, fns[i], p);
    if (rc != 0)
        free(p);
    else
        h->set_state(cx, p);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    pii *p = h->state(cx);
    h->log(cx, HONE_LOG_INFO, "%s: email %llu, phone %llu, ip %llu, card %llu, iban %llu",
           p->report ? "found" : "replaced", p->total[EMAIL], p->total[PHONE], p->total[IP],
           p->total[CARD], p->total[IBAN]);
    free(p->spans);
    free(p->seen);
    free(p);
}

static const hone_setting settings[] = {
    {"mode", HONE_SET_ENUM, 0, "redact", 0, 0, "redact|report",
     "report: only count, change nothing"},
    {"email", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "e-mail addresses"},
    {"phone", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "phone numbers"},
    {"ip", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "IPv4 and IPv6 addresses"},
    {"card", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "payment cards"},
    {"iban", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "international bank account numbers"},
    {"private_ips", HONE_SET_BOOL, 0, "false", 0, 0, NULL, "IP addresses that are not global too"},
    {"key_file", HONE_SET_PATH, 0, NULL, 0, 0, NULL,
     "a secret of 16 bytes or more: names are keyed pseudonyms, the same in every record"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "pii",
    "1.1.0",
    "Apache-2.0",
    "replaces e-mail addresses, phone numbers, IP addresses, cards and IBANs",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

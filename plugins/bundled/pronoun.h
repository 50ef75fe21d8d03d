#pragma once
/* English pronouns, and the words that they stand among: is her the one of "I know her", which goes
 * with him, or of "her book", which goes with his? And his, with her or hers? The next word tells,
 * by lists of ours, and the one before where a verb may have two objects ("gave her books"); where
 * they do not tell, the answer is that.
 *
 * Part of the plugin counterfactual. */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_WORD = 64 };

typedef enum { NO_FORM, HIM, HIS, HER, HERS, N_FORMS } form;
/* In the order of form, from HIM on. */
static const char *const pronouns[] = {"him", "his", "her", "hers"};

/* ---- words ---- */

static utf8proc_int32_t next_char(const char *s, size_t n, size_t *len)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c);
    *len = got > 0 ? (size_t)got : 1;
    return got > 0 ? c : 0xFFFD;
}

/* A letter, mark or number. */
static int in_word(utf8proc_int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO) || c == '_';
}

static size_t word_len(const char *s, size_t n)
{
    size_t i = 0, len;
    while (i < n && in_word(next_char(s + i, n - i, &len)))
        i += len;
    return i;
}

/* 1 where it fits. */
static int lower_word(char out[MAX_WORD], const char *s, size_t n)
{
    size_t k = 0, len;
    for (size_t i = 0; i < n; i += len) {
        utf8proc_int32_t c = next_char(s + i, n - i, &len);
        if (k + 4 >= MAX_WORD)
            return 0;
        k += (size_t)utf8proc_encode_char(utf8proc_tolower(c), (utf8proc_uint8_t *)out + k);
    }
    out[k] = '\0';
    return 1;
}

static int is_hyphen(const char *s, size_t n)
{
    return n > 0 && (*s == '-' || (n >= 3 && (memcmp(s, "\xE2\x80\x90", 3) == 0 ||
                                              memcmp(s, "\xE2\x80\x91", 3) == 0)));
}

static int after_hyphen(const char *s, size_t i)
{
    return (i > 0 && s[i - 1] == '-') || (i >= 3 && is_hyphen(s + i - 3, 3));
}

/* ---- his and her ---- */

/* clang-format off */
/* Lists of words between spaces. After his and her these begin something new: articles and
 * pronouns, prepositions, conjunctions, forms of be, have and do, adverbs of place and time. */
static const char new_words[] =
    " a an the this that these those some any no another each both enough something anything"
    " nothing everything what who whom whose which where when why how if whether i you he she it"
    " we they me us them him his her hers my your our their its himself herself myself yourself"
    " about above across after against along among around as at before behind below beneath beside"
    " besides between beyond by despite during except for from in into like near of off on onto"
    " out over per since than through throughout to toward towards under underneath unless until"
    " up upon via with within without and or but nor because although though while so yet is are"
    " was were be been am isn aren wasn weren has have had hasn hadn do does did don doesn didn"
    " would could should must can may won wouldn couldn shouldn not shall cannot too also again"
    " away down there here today tomorrow yesterday tonight instead either anymore anyway"
    " somewhere anywhere everywhere together alone ago aside apart sometimes afterwards already"
    " otherwise cause till said says went came goes get gets got go know knows knew see become"
    " believe understand eat buy find ";
/* These do so as often as they do not, as do words in -ing and -ly: her back, saw her back. */
static const char either_words[] =
    " back home past right left inside outside well better most more less least much very all"
    " every one now then once still always never ever just almost soon later hard first last will"
    " named called overall deep second might need feel come take make keep think try use work look"
    " talk sleep cry walk run dance smile laugh stay live die play help fall stand sit read write"
    " speak say tell give leave happy sad angry safe open free quite rather even mine yours theirs"
    " ours thought close dead due next ";
/* But not these. */
static const char owned_words[] =
    " family only daily weekly monthly yearly elderly early lovely friendly lonely wedding morning"
    " evening king ring wing string spring thing things clothing sibling feelings earnings savings"
    " siblings building own ";
static const char numbers[] =
    " two three four five six seven eight nine ten eleven twelve half few several ";
/* What may have two objects, or one that then does or is something: gave her books, made her cry. */
static const char two_objects[] =
    " give gives gave giving given tell tells told telling show shows showed showing shown ask"
    " asks asked asking offer offers offered offering send sends sent sending buy buys bought"
    " buying pay pays paid paying owe owes owed lend lends lent bring brings brought bringing"
    " teach teaches taught teaching cost costs wish wishes wished make makes made making get gets"
    " got getting let lets letting help helps helped helping see sees saw seeing seen hear hears"
    " heard hearing watch watches watched watching notice noticed feel feels felt keep keeps kept"
    " keeping find finds found leave leaves left leaving call calls called calling consider"
    " considers considered drive drives drove driving set sets setting have has had having want"
    " wants wanted wanting name named hand hands handed handing pass passes passed passing feed"
    " feeds fed feeding serve serves served read reads reading write writes wrote writing sell"
    " sells sold selling loan loans loaned grant granted deny provide provides provided trade"
    " trades traded tip tips tipped treat treated appoint appointed place placed rate rated deem"
    " deemed put denied cook cooks cooked bake bakes baked bid promise promised save saves saved"
    " saving allow allows allowed earn earns earned earning charge charges charged order ordered"
    " turn turned render rendered bet fine fined refuse refused assign assigned guarantee"
    " guaranteed award awarded ";
/* clang-format on */

static int is_in(const char *list, const char *word)
{
    char key[MAX_WORD + 3];
    snprintf(key, sizeof key, " %s ", word);
    return strstr(list, key) != NULL;
}

static int ends_with(const char *word, const char *end)
{
    size_t n = strlen(word), k = strlen(end);
    return n > k + 1 && strcmp(word + n - k, end) == 0;
}

/* The word of ASCII letters that ends before s[i], a space or stroke between, in lower case; ""
 * where there is none. Returns where it begins. */
static size_t word_before(char out[MAX_WORD], const char *s, size_t i)
{
    size_t end = i > 0 && (s[i - 1] == ' ' || s[i - 1] == '/') ? i - 1 : i, k = end;
    while (k > 0 && end - k + 5 < MAX_WORD &&
           ((s[k - 1] | 0x20) >= 'a' && (s[k - 1] | 0x20) <= 'z'))
        k--;
    if (end == i || !lower_word(out, s + k, end - k))
        out[0] = '\0';
    return k;
}

/* What stands after a pronoun: something new, what is his or hers, or not to be told. */
typedef enum { NEW, OWNED, EITHER } follow;

/* spaced: white space lies between. A quote that closes ends something, one that opens does not
 * say. */
static follow follow_of_sign(const char *s, size_t n, int spaced)
{
    int single = *s == '\'' || (n >= 3 && memcmp(s, "\xE2\x80\x99", 3) == 0);
    int quote =
        single || *s == '"' ||
        (n >= 3 && (memcmp(s, "\xE2\x80\x9C", 3) == 0 || memcmp(s, "\xE2\x80\x9D", 3) == 0));
    size_t len;
    next_char(s, n, &len);
    if (quote)
        return spaced || (single && word_len(s + len, n - len) > 0) ? EITHER : NEW;
    return strchr("([{*<&", *s) != NULL ? EITHER : NEW;
}

/* "Took her 5 minutes", but "her 5 sisters" and "her 5 minute walk". */
static follow follow_of_number(const char *s, size_t n)
{
    char word[MAX_WORD];
    size_t i = 0;
    while (i < n && (s[i] == ' ' || s[i] == '.' || s[i] == ',' || (s[i] >= '0' && s[i] <= '9')))
        i++;
    size_t len = word_len(s + i, n - i);
    if (len == 0 || !lower_word(word, s + i, len))
        return EITHER;
    return is_in(" minutes hours seconds days weeks months years ", word) ? NEW : OWNED;
}

static follow follow_of_text(const char *s, size_t n)
{
    char word[MAX_WORD];
    size_t i = 0, lines = 0;
    for (; i < n && strchr(" \t\r\n", s[i]) != NULL; i++)
        lines += s[i] == '\n';
    size_t len = word_len(s + i, n - i), end = i + len;
    if (i == n || lines > 1)
        return NEW;
    if (len == 0)
        return follow_of_sign(s + i, n - i, i > 0);
    if (i == 0 || !lower_word(word, s + i, len))
        return EITHER;
    if (is_in(new_words, word) && !is_hyphen(s + end, n - end))
        return NEW;
    if (lines > 0)
        return EITHER;
    if (is_hyphen(s + end, n - end) || is_in(owned_words, word))
        return OWNED;
    if (s[i] >= '0' && s[i] <= '9')
        return follow_of_number(s + i, n - i);
    if (is_in(numbers, word))
        return follow_of_number(s + end, n - end);
    return is_in(either_words, word) || ends_with(word, "ing") || ends_with(word, "ly") ? EITHER
                                                                                        : OWNED;
}

/* The pronoun behind "or", "and" or a stroke (his or her, him/her), or NO_FORM; *end is its end. */
static form and_form(const char *s, size_t n, size_t *end)
{
    static const char *const joints[] = {" or ", " and ", "/"};
    for (size_t k = 0; k < 3; k++) {
        size_t i = strlen(joints[k]), len = n > i ? word_len(s + i, n - i) : 0;
        if (len == 0 || memcmp(s, joints[k], i) != 0)
            continue;
        for (int f = HIM; f < N_FORMS; f++) {
            if (strlen(pronouns[f - 1]) == len && memcmp(s + i, pronouns[f - 1], len) == 0) {
                *end = i + len;
                return (form)f;
            }
        }
    }
    return NO_FORM;
}

/* Is it the second of "him or her", "him/her"? */
static int is_after_him(const char *s, size_t i)
{
    char word[MAX_WORD];
    size_t at = word_before(word, s, i);
    if (strcmp(word, "or") == 0 || strcmp(word, "and") == 0)
        word_before(word, s, at);
    else if (i == 0 || s[i - 1] != '/')
        return 0;
    return strcmp(word, "him") == 0;
}

/* "A friend of his", which may go on with a verb. */
static int is_one_of_his(const char *s, size_t i)
{
    char word[MAX_WORD];
    size_t at = word_before(word, s, i);
    if (strcmp(word, "of") != 0)
        return 0;
    at = word_before(word, s, at);
    word_before(word, s, at);
    return strcmp(word, "a") == 0 || strcmp(word, "an") == 0;
}

/* Of his or her (f) at s[i..end) of the text s[0..n): NEW where it stands alone. */
static follow follow_of(form f, const char *s, size_t n, size_t i, size_t end)
{
    char word[MAX_WORD];
    size_t skip = 0;
    form other = and_form(s + end, n - end, &skip);
    if (other == HIM || other == HERS || is_after_him(s, i))
        return NEW;
    follow next = follow_of_text(s + end + skip, n - end - skip);
    word_before(word, s, i);
    if (f == HIS && next != NEW)
        return is_one_of_his(s, i) ? EITHER : OWNED; /* it has no object */
    return f == HER && next == OWNED && is_in(two_objects, word) ? EITHER : next;
}

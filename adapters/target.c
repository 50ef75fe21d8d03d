#include "adapters/target.h"

#include "core/base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MATCH_LIMIT = 100000 };

/* Does the pattern match the whole of name? */
static int full_match(const char *pattern, const char *name, bool *matches, hone_err *e)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    uint32_t flags = PCRE2_ANCHORED | PCRE2_ENDANCHORED;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, flags, &code, &at, NULL);
    if (re == NULL) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(code, text, sizeof text);
        return hone_fail(e, HONE_EFORMAT, "target pattern '%s': %s at character %zu", pattern,
                         (char *)text, (size_t)at);
    }
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(re, NULL);
    pcre2_set_match_limit(limits, MATCH_LIMIT);
    int n = pcre2_match(re, (PCRE2_SPTR)name, strlen(name), 0, 0, data, limits);
    pcre2_match_data_free(data);
    pcre2_match_context_free(limits);
    pcre2_code_free(re);
    *matches = n >= 0;
    if (n < 0 && n != PCRE2_ERROR_NOMATCH)
        return hone_fail(e, HONE_ELIMIT, "target pattern '%s': too costly to match", pattern);
    return 0;
}

static bool is_suffix(const char *key, const char *name)
{
    size_t nk = strlen(key), nn = strlen(name);
    if (nk > nn || strcmp(name + nn - nk, key) != 0)
        return false;
    return nk == nn || name[nn - nk - 1] == '.';
}

int target_match(const json_t *targets, const char *name, bool *matches, hone_err *e)
{
    *matches = targets == NULL;
    for (size_t i = 0; !*matches && i < json_array_size(targets); i++) {
        const char *key = json_string_value(json_array_get(targets, i));
        if (key == NULL)
            return hone_fail(e, HONE_EFORMAT, "target modules must be names");
        if (strncmp(key, "regex:", 6) == 0) {
            int rc = full_match(key + 6, name, matches, e);
            if (rc != 0)
                return rc;
        } else {
            *matches = strcmp(key, "all-linear") == 0 || is_suffix(key, name);
        }
    }
    return 0;
}

int target_pattern(const json_t *patterns, const char *name, const json_t **value, hone_err *e)
{
    const char *key;
    json_t *v;
    *value = NULL;
    json_object_foreach ((json_t *)patterns, key, v) {
        bool matches = false;
        char *whole = mem_printf("(.*\\.)?(%s)", key);
        int rc = full_match(whole, name, &matches, e);
        free(whole);
        if (rc != 0)
            return rc;
        if (matches) {
            *value = v;
            return 0;
        }
    }
    return 0;
}

#include "serve/store/keys.h"

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "serve/store/audit.h"
#include "tests/unit/aid_dir.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct place {
    char *dir;
    store *s;
} place;

/* Time goes on only when a test says so. */
static int64_t now_ms;

static int64_t test_now(void)
{
    return now_ms;
}

static const store_options options = {.now_ms = test_now};

static int open_place(void **state)
{
    now_ms = clock_unix_ms();
    place *p = mem_alloc(sizeof *p);
    hone_err e = {0};
    p->dir = aid_dir_quick();
    *state = p;
    return store_open(&p->s, p->dir, &options, &e);
}

static int close_place(void **state)
{
    place *p = *state;
    store_close(p->s);
    aid_dir_drop(p->dir);
    free(p);
    return 0;
}

static api_key wanted(const char *name, unsigned scopes)
{
    api_key k = {.scopes = scopes};
    snprintf(k.name, sizeof k.name, "%s", name);
    return k;
}

static api_key make(store *s, const api_key *want, char text[KEYS_TEXT + 1])
{
    api_key made;
    hone_err e = {0};
    if (keys_create(s, want, "cli:test", &made, text, &e) != 0)
        fail_msg("%s", e.msg);
    return made;
}

static keys_verdict verdict(store *s, const char *text)
{
    keys_verdict v;
    api_key k;
    hone_err e = {0};
    assert_int_equal(keys_check(s, text, &v, &k, &e), 0);
    return v;
}

static void fails_with(int rc, int want, const hone_err *e, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(e->msg, text) == NULL)
        fail_msg("'%s' does not say '%s'", e->msg, text);
}

static void test_a_key_opens(void **state)
{
    store *s = ((place *)*state)->s;
    char text[KEYS_TEXT + 1];
    api_key want = wanted("web", SCOPE_INFER | SCOPE_FEEDBACK_WRITE), got;
    want.rpm = 60;
    want.tpm = 1000;
    want.max_parallel = 2;
    want.daily_tokens = 5000;
    snprintf(want.models_allow, sizeof want.models_allow, "a,b");
    api_key made = make(s, &want, text);
    keys_verdict v;
    assert_int_equal(strncmp(text, "hk_live_", 8), 0);
    assert_int_equal(strlen(text), 8 + KEYS_ID + 1 + KEYS_SECRET + KEYS_CHECK);
    assert_int_equal(keys_check(s, text, &v, &got, NULL), 0);
    assert_int_equal(v, KEYS_OK);
    assert_string_equal(got.id, made.id);
    assert_string_equal(got.name, "web");
    assert_int_equal(got.scopes, SCOPE_INFER | SCOPE_FEEDBACK_WRITE);
    assert_int_equal(got.rpm, 60);
    assert_int_equal(got.tpm, 1000);
    assert_int_equal(got.max_parallel, 2);
    assert_int_equal(got.daily_tokens, 5000);
    assert_true(keys_allows_model(&got, "a"));
    assert_true(keys_allows_model(&got, "b"));
    assert_false(keys_allows_model(&got, "ab"));
    assert_false(keys_allows_model(&got, ""));
}

/* Changes every character of a key in turn; none of the changed keys may open. */
static void test_no_other_text_opens(void **state)
{
    store *s = ((place *)*state)->s;
    char text[KEYS_TEXT + 1], changed[KEYS_TEXT + 2];
    api_key want = wanted("web", SCOPE_INFER);
    make(s, &want, text);
    for (size_t i = 0; text[i] != '\0'; i++) {
        memcpy(changed, text, sizeof text);
        changed[i] = text[i] == 'a' ? 'b' : 'a';
        assert_int_not_equal(verdict(s, changed), KEYS_OK);
    }
    for (size_t n = 0; n < strlen(text); n++) {
        snprintf(changed, sizeof changed, "%.*s", (int)n, text);
        assert_int_equal(verdict(s, changed), KEYS_MALFORMED);
    }
    snprintf(changed, sizeof changed, "%sx", text);
    assert_int_equal(verdict(s, changed), KEYS_MALFORMED);
    assert_int_equal(verdict(s, ""), KEYS_MALFORMED);
    assert_int_equal(verdict(s, "sk-anything"), KEYS_MALFORMED);
    assert_int_equal(verdict(s, text), KEYS_OK);
}

/* The right form and check, but of an id or a secret that was never given out. */
static void test_a_forged_key_is_unknown(void **state)
{
    place *p = *state;
    char text[KEYS_TEXT + 1];
    char *dir = aid_dir_quick();
    store *other;
    api_key want = wanted("web", SCOPE_INFER);
    assert_int_equal(store_open(&other, dir, &options, NULL), 0);
    make(other, &want, text); /* well-formed, of another appliance */
    assert_int_equal(verdict(p->s, text), KEYS_UNKNOWN);
    store_close(other);
    aid_dir_drop(dir);
}

static bool holds(const char *path, const char *needle)
{
    char *data;
    size_t len;
    hone_err e = {0};
    if (file_read(&data, &len, path, 1 << 26, &e) != 0)
        return false;
    bool found = memmem(data, len, needle, strlen(needle)) != NULL;
    free(data);
    return found;
}

static void test_the_secret_is_not_stored(void **state)
{
    place *p = *state;
    char text[KEYS_TEXT + 1], secret[KEYS_SECRET + 1], hex[65];
    unsigned char raw[32];
    api_key want = wanted("needle-name", SCOPE_INFER);
    make(p->s, &want, text);
    snprintf(secret, sizeof secret, "%.*s", KEYS_SECRET, text + 8 + KEYS_ID + 1);
    assert_int_equal(sodium_base642bin(raw, sizeof raw, secret, KEYS_SECRET, NULL, NULL, NULL,
                                       sodium_base64_VARIANT_URLSAFE_NO_PADDING),
                     0);
    sodium_bin2hex(hex, sizeof hex, raw, sizeof raw);
    store_close(p->s);
    p->s = NULL;
    char *db = path_join(p->dir, "hone.db");
    assert_true(holds(db, "needle-name")); /* the search itself works */
    assert_false(holds(db, secret));
    assert_false(holds(db, hex));
    raw[31] = '\0'; /* and the raw bytes, up to the first NUL */
    if (strlen((char *)raw) > 8)
        assert_false(holds(db, (char *)raw));
    free(db);
}

static void test_expiry(void **state)
{
    store *s = ((place *)*state)->s;
    char text[KEYS_TEXT + 1];
    api_key want = wanted("short", SCOPE_INFER), made;
    hone_err e = {0};
    want.expires_ms = now_ms + 60;
    make(s, &want, text);
    assert_int_equal(verdict(s, text), KEYS_OK);
    int64_t n;
    assert_int_equal(keys_active(s, &n, NULL), 0);
    assert_int_equal(n, 1);
    now_ms += 60;
    assert_int_equal(verdict(s, text), KEYS_EXPIRED);
    assert_int_equal(keys_active(s, &n, NULL), 0);
    assert_int_equal(n, 0);
    fails_with(keys_create(s, &want, "t", &made, text, &e), HONE_EINVAL, &e,
               "key 'short': the expiry lies in the past");
    assert_int_equal(text[0], 0);
}

static void test_revocation_holds_at_once_everywhere(void **state)
{
    place *p = *state;
    store *other;
    char text[KEYS_TEXT + 1];
    api_key want = wanted("web", SCOPE_INFER);
    api_key made = make(p->s, &want, text);
    hone_err e = {0};
    assert_int_equal(store_open(&other, p->dir, &options, NULL), 0);
    assert_int_equal(verdict(other, text), KEYS_OK);
    char *long_id = mem_printf("hk_live_%s", made.id);
    assert_int_equal(keys_revoke(p->s, long_id, "cli:test", &e), 0);
    assert_int_equal(verdict(other, text), KEYS_REVOKED);
    assert_int_equal(verdict(p->s, text), KEYS_REVOKED);
    fails_with(keys_revoke(p->s, made.id, "cli:test", &e), HONE_EEXIST, &e, "was revoked before");
    api_key again;
    fails_with(keys_rotate(p->s, made.id, 0, "cli:test", &again, text, &e), HONE_EDENIED, &e,
               "is revoked; make a new one");
    fails_with(keys_revoke(p->s, "zzzzzzzz", "cli:test", &e), HONE_ENOTFOUND, &e,
               "no key 'zzzzzzzz'");
    free(long_id);
    store_close(other);
}

static void test_rotation_with_and_without_grace(void **state)
{
    store *s = ((place *)*state)->s;
    char first[KEYS_TEXT + 1], second[KEYS_TEXT + 1], third[KEYS_TEXT + 1];
    api_key want = wanted("web", SCOPE_INFER), k;
    api_key made = make(s, &want, first);
    assert_int_equal(keys_rotate(s, made.id, 150, "cli:test", &k, second, NULL), 0);
    assert_string_equal(k.id, made.id);
    assert_string_not_equal(first, second);
    assert_int_equal(verdict(s, first), KEYS_OK); /* in its grace time */
    assert_int_equal(verdict(s, second), KEYS_OK);
    now_ms += 150;
    assert_int_equal(verdict(s, first), KEYS_UNKNOWN);
    assert_int_equal(verdict(s, second), KEYS_OK);
    assert_int_equal(keys_rotate(s, made.id, 0, "cli:test", &k, third, NULL), 0);
    assert_int_equal(verdict(s, second), KEYS_UNKNOWN);
    assert_int_equal(verdict(s, third), KEYS_OK);
}

static void test_scopes_change_at_once(void **state)
{
    store *s = ((place *)*state)->s;
    char text[KEYS_TEXT + 1];
    api_key want = wanted("web", SCOPE_INFER), k;
    api_key made = make(s, &want, text);
    keys_verdict v;
    hone_err e = {0};
    assert_int_equal(keys_rescope(s, made.id, SCOPE_FEEDBACK_WRITE, "feedback", "t", &e), 0);
    assert_int_equal(keys_check(s, text, &v, &k, &e), 0);
    assert_int_equal(v, KEYS_OK); /* the secret stays */
    assert_int_equal(k.scopes, SCOPE_FEEDBACK_WRITE);
    assert_string_equal(k.role, "feedback");
    fails_with(keys_rescope(s, made.id, 0, "", "t", &e), HONE_EINVAL, &e, "no scope, so it could");
    fails_with(keys_rescope(s, "zzzzzzzz", SCOPE_INFER, "", "t", &e), HONE_ENOTFOUND, &e,
               "no key 'zzzzzzzz'");
    assert_int_equal(keys_revoke(s, made.id, "t", &e), 0);
    fails_with(keys_rescope(s, made.id, SCOPE_INFER, "", "t", &e), HONE_EDENIED, &e,
               "is revoked; make a new one");
}

static void test_scopes(void **state)
{
    (void)state;
    unsigned u;
    hone_err e = {0};
    char text[256];
    assert_int_equal(keys_scopes_parse(&u, "infer, feedback:write", &e), 0);
    assert_int_equal(u, SCOPE_INFER | SCOPE_FEEDBACK_WRITE);
    keys_scopes_text(u, text, sizeof text);
    assert_string_equal(text, "infer,feedback:write");
    fails_with(keys_scopes_parse(&u, "infer,feedback:wirte", &e), HONE_EINVAL, &e,
               "no scope 'feedback:wirte' (did you mean 'feedback:write'?)");
    fails_with(keys_scopes_parse(&u, "root", &e), HONE_EINVAL, &e, "no scope 'root'; there are ");
    assert_int_equal(keys_role_find("feedback")->scopes, SCOPE_FEEDBACK_WRITE);
    keys_scopes_text(keys_role_find("admin")->scopes, text, sizeof text);
    assert_string_equal(text, "infer,models:read,feedback:write,feedback:read,train,"
                              "adapters:write,keys:admin,metrics:read,erase");
    assert_null(keys_role_find("king"));
}

static void test_bad_wishes(void **state)
{
    store *s = ((place *)*state)->s;
    char text[KEYS_TEXT + 1];
    api_key k, made;
    hone_err e = {0};
    k = wanted("", SCOPE_INFER);
    fails_with(keys_create(s, &k, "t", &made, text, &e), HONE_EINVAL, &e, "a key needs a name");
    k = wanted("a", 0);
    fails_with(keys_create(s, &k, "t", &made, text, &e), HONE_EINVAL, &e,
               "key 'a': no scope and no role");
    k = wanted("a\nb", SCOPE_INFER);
    fails_with(keys_create(s, &k, "t", &made, text, &e), HONE_EINVAL, &e, "control characters");
    k = wanted("a\xff", SCOPE_INFER);
    fails_with(keys_create(s, &k, "t", &made, text, &e), HONE_EINVAL, &e, "not UTF-8");
    k = wanted("a", SCOPE_INFER);
    snprintf(k.env, sizeof k.env, "Li_ve");
    fails_with(keys_create(s, &k, "t", &made, text, &e), HONE_EINVAL, &e, "environment 'Li_ve'");
}

static int count(void *user, const api_key *k, hone_err *e)
{
    (void)e;
    buf_printf(user, "%s ", k->name);
    return 0;
}

static void test_list_touch_and_audit(void **state)
{
    store *s = ((place *)*state)->s;
    char text[KEYS_TEXT + 1];
    buf names;
    buf_init(&names, 256);
    api_key a = wanted("first", SCOPE_INFER), b = wanted("second", SCOPE_INFER), k;
    api_key made = make(s, &a, text);
    now_ms++;
    make(s, &b, text);
    assert_int_equal(keys_each(s, count, &names, NULL), 0);
    assert_string_equal(names.data, "first second ");
    buf_free(&names);
    assert_int_equal(keys_get(s, made.id, &k, NULL), 0);
    assert_int_equal(k.last_used_ms, 0);
    keys_touch(s, &k);
    assert_int_equal(store_flush(s, NULL), 0);
    assert_int_equal(keys_get(s, made.id, &k, NULL), 0);
    assert_int_equal(k.last_used_ms, now_ms);
    uint64_t written = store_counters(s).written;
    keys_touch(s, &k); /* within the minute: not again */
    assert_int_equal(store_counters(s).written, written);
    audit_report r;
    assert_int_equal(audit_verify(s, NULL, &r, NULL), 0);
    assert_int_equal(r.n, 2);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
#define T(f) cmocka_unit_test_setup_teardown(f, open_place, close_place)
    const struct CMUnitTest tests[] = {
        T(test_a_key_opens),
        T(test_no_other_text_opens),
        T(test_a_forged_key_is_unknown),
        T(test_the_secret_is_not_stored),
        T(test_expiry),
        T(test_revocation_holds_at_once_everywhere),
        T(test_rotation_with_and_without_grace),
        T(test_scopes_change_at_once),
        cmocka_unit_test(test_scopes),
        T(test_bad_wishes),
        T(test_list_touch_and_audit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

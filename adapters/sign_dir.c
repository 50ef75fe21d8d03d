/* Signatures of directories: every file, by name and digest. */
#include "adapters/sign.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/digest.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FILES = 65536, MAX_DEPTH = 8 };

static const char statement_type[] = "https://in-toto.io/Statement/v1";
static const char predicate_type[] = "https://model_signing/signature/v1.0";
static const char payload_type[] = "application/vnd.in-toto+json";

/* ---- the files of a directory ---- */

typedef struct tree {
    digest_file *files;
    size_t n, cap;
} tree;

static void tree_free(tree *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->files[i].name);
    free(t->files);
}

static int walk(tree *t, const char *dir, const char *under, int depth, hone_err *e);

static int visit(tree *t, const char *path, char *name, int depth, hone_err *e)
{
    struct stat st;
    int rc = 0;
    if (lstat(path, &st) != 0)
        rc = file_error(e, path, "cannot stat");
    else if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH)
        rc = walk(t, path, name, depth + 1, e);
    else if (S_ISDIR(st.st_mode) || t->n == MAX_FILES)
        rc = hone_fail(e, HONE_ELIMIT, "%s: more than %d folders deep, or than %d files", path,
                       MAX_DEPTH, MAX_FILES);
    else if (!S_ISREG(st.st_mode))
        rc = hone_fail(e, HONE_EFORMAT,
                       "%s: a link or special file; a signed directory holds files only", path);
    if (rc != 0 || S_ISDIR(st.st_mode)) {
        free(name);
        return rc;
    }
    t->files = mem_grow(t->files, &t->cap, t->n + 1, sizeof *t->files);
    t->files[t->n++].name = name;
    return file_sha256(t->files[t->n - 1].sha256, path, e);
}

/* `under` is the name of dir within the tree, "" for its root. */
static int walk(tree *t, const char *dir, const char *under, int depth, hone_err *e)
{
    char **names;
    int rc = dir_list(&names, dir, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        if (*under == '\0' && strcmp(names[i], SIGN_FILE) == 0)
            continue;
        char *path = path_join(dir, names[i]);
        char *name = *under == '\0' ? mem_strdup(names[i]) : path_join(under, names[i]);
        rc = visit(t, path, name, depth, e);
        free(path);
    }
    dir_list_free(names);
    return rc;
}

/* Part by part, as model_signing sorts: a '/' comes before every other character. */
static int order_of(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    int x = *a == '/' ? 1 : (unsigned char)*a + (*a != '\0');
    int y = *b == '/' ? 1 : (unsigned char)*b + (*b != '\0');
    return x - y;
}

static int by_name(const void *a, const void *b)
{
    return order_of(((const digest_file *)a)->name, ((const digest_file *)b)->name);
}

/* Over the digests as bytes, in the order of the names. */
static void root_of(char out[65], const tree *t)
{
    unsigned char *all = mem_alloc(t->n * 32 + 1);
    for (size_t i = 0; i < t->n; i++)
        sodium_hex2bin(all + i * 32, 32, t->files[i].sha256, 64, NULL, NULL, NULL);
    bytes_sha256(out, all, t->n * 32);
    free(all);
}

static int read_tree(tree *t, const char *dir, sign_report *out, hone_err *e)
{
    hone_err none = {0};
    int rc = walk(t, dir, "", 0, e);
    if (rc != 0)
        return rc;
    if (t->n > 0)
        qsort(t->files, t->n, sizeof *t->files, by_name);
    root_of(out->root, t);
    out->n_files = (int64_t)t->n;
    if (model_digest_of(out->weights, t->files, t->n, dir, &none) != 0)
        out->weights[0] = '\0';
    return 0;
}

/* ---- signing ---- */

static json_t *statement_of(const tree *t, const char *name, const char *root)
{
    json_t *resources = json_array();
    for (size_t i = 0; i < t->n; i++)
        json_array_append_new(resources,
                              json_pack("{s:s, s:s, s:s}", "name", t->files[i].name, "algorithm",
                                        "sha256", "digest", t->files[i].sha256));
    return json_pack("{s:s, s:[{s:s, s:{s:s}}], s:s, s:{s:{s:s, s:s, s:b, s:[s]}, s:o}}", "_type",
                     statement_type, "subject", "name", name, "digest", "sha256", root,
                     "predicateType", predicate_type, "predicate", "serialization", "method",
                     "files", "hash_type", "sha256", "allow_symlinks", 0, "ignore_paths", SIGN_FILE,
                     "resources", resources);
}

int sign_dir(const char *dir, const char *name, const char *key_dir, sign_report *out, hone_err *e)
{
    tree t = {0};
    json_t *envelope = NULL;
    *out = (sign_report){0};
    int rc = read_tree(&t, dir, out, e);
    json_t *statement = rc == 0 ? statement_of(&t, name, out->root) : NULL;
    if (rc == 0 && statement == NULL)
        rc = hone_fail(e, HONE_EFORMAT, "%s: a file whose name is not UTF-8", dir);
    if (rc == 0) {
        char *body = js_text(statement, false);
        rc = sign_envelope(&envelope, key_dir, payload_type, body, strlen(body), e);
        free(body);
    }
    if (rc == 0) {
        char *path = path_join(dir, SIGN_FILE);
        const json_t *first = json_array_get(json_object_get(envelope, "signatures"), 0);
        memcpy(out->key_id, json_string_value(json_object_get(first, "keyid")), SIGN_ID);
        rc = js_save(envelope, path, true, e);
        free(path);
    }
    json_decref(envelope);
    json_decref(statement);
    tree_free(&t);
    return rc;
}

/* ---- checking ---- */

static int read_statement(json_t **out, sign_report *report, const char *path, const sign_trust *t,
                          hone_err *e)
{
    json_t *envelope;
    char *body;
    size_t len;
    *out = NULL;
    int rc = js_load(&envelope, path, e);
    if (rc != 0)
        return rc;
    rc = sign_envelope_open(&body, &len, report->key_id, envelope, payload_type, t, e);
    if (rc == 0) {
        rc = js_parse(out, body, len, e);
        free(body);
    }
    json_decref(envelope);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", path);
}

static bool says(const json_t *o, const char *key, const char *want)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL && strcmp(s, want) == 0;
}

/* Every file that is there must be listed as it is; then every file that is listed must be there.
 * Both lists are sorted by name. */
static int compare(const json_t *resources, const tree *t, const char *dir, hone_err *e)
{
    size_t n = json_array_size(resources), r = 0;
    for (size_t i = 0; i < t->n; i++) {
        const digest_file *f = &t->files[i];
        const json_t *listed = json_array_get(resources, r);
        const char *name = json_string_value(json_object_get(listed, "name"));
        int order = name != NULL ? order_of(name, f->name) : 1;
        if (order < 0)
            return hone_fail(e, HONE_EFORMAT, "%s/%s: is missing since the directory was signed",
                             dir, name);
        if (order > 0)
            return hone_fail(e, HONE_EFORMAT, "%s/%s: is not part of what was signed", dir,
                             f->name);
        if (!says(listed, "digest", f->sha256))
            return hone_fail(e, HONE_EFORMAT, "%s/%s: was changed after it was signed", dir,
                             f->name);
        r++;
    }
    const char *name = json_string_value(json_object_get(json_array_get(resources, r), "name"));
    return r == n ? 0
                  : hone_fail(e, HONE_EFORMAT, "%s/%s: is missing since the directory was signed",
                              dir, name != NULL ? name : "?");
}

static int check_statement(const json_t *s, const tree *t, const sign_report *out, const char *dir,
                           hone_err *e)
{
    const json_t *predicate = json_object_get(s, "predicate");
    const json_t *subject = json_array_get(json_object_get(s, "subject"), 0);
    if (!says(s, "_type", statement_type) || !says(s, "predicateType", predicate_type) ||
        !says(json_object_get(predicate, "serialization"), "method", "files"))
        return hone_fail(e, HONE_EFORMAT, "%s/%s: a statement about something else", dir,
                         SIGN_FILE);
    int rc = compare(json_object_get(predicate, "resources"), t, dir, e);
    if (rc == 0 && !says(json_object_get(subject, "digest"), "sha256", out->root))
        rc = hone_fail(e, HONE_EFORMAT, "%s/%s: its root is not that of its files", dir, SIGN_FILE);
    return rc;
}

int sign_dir_check(const char *dir, const sign_trust *t, sign_report *out, hone_err *e)
{
    tree files = {0};
    json_t *statement = NULL;
    char *path = path_join(dir, SIGN_FILE);
    *out = (sign_report){0};
    int rc = file_exists(path) ? read_statement(&statement, out, path, t, e)
                               : hone_fail(e, HONE_ENOTFOUND, "%s: not signed", dir);
    if (rc == 0)
        rc = read_tree(&files, dir, out, e);
    if (rc == 0)
        rc = check_statement(statement, &files, out, dir, e);
    if (rc != 0)
        *out = (sign_report){0};
    json_decref(statement);
    tree_free(&files);
    free(path);
    return rc;
}

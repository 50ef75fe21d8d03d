#pragma once
/* Plugins and scripts of a settings file, loaded: the `plugins:` list of hone.yaml or of a run's
 * settings, each entry a path or a mapping (extend_rows). What a file is decides how it is opened:
 * .so is a plugin in C, .lua a script. */
#include "core/base/conf.h"
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/base/trust.h"

#include <jansson.h>
#include <stdio.h>

typedef struct extend extend;

/* Loads all of them, or none. list may be NULL: then nothing is loaded, and hooks are there all the
 * same. Paths are relative to the folder of config, in which plugins.lock lies; state_dir is where
 * scripts keep things (NULL: nowhere). Errors name the entry. */
int extend_open(extend **out, const json_t *list, const char *config, const char *state_dir,
                hone_err *e);

/* The same for the `plugins:` section of a settings file of any command; config NULL: nothing. */
int extend_open_file(extend **out, const char *config, hone_err *e);

hooks *extend_hooks(const extend *x);
/* Scripts whose files have changed are loaded anew where they are approved and pass their own
 * tests; else the old version stays and the log says why. told, which may be NULL, hears of each
 * that was: its name, and the digest of the old file and of the new. */
typedef void extend_told(void *user, const char *name, const char *was, const char *now);
void extend_reload(extend *x, extend_told *told, void *user);
/* Of what is loaded, with "" for the old one. */
void extend_each(const extend *x, extend_told *told, void *user);
void extend_close(extend *x); /* logs what could not be stopped; NULL is a no-op */

/* One line a plugin: name, version, where it listens; on standard error, or into the log. */
void extend_say(const extend *x);
void extend_log(const extend *x);
/* What they did so far, a line each. */
void extend_report(const extend *x, FILE *out);

/* Loads one file that the caller has opened, whatever approves it. Paths in its settings are
 * relative to dir. No thread watches it, and its calls have no limit; what a
 * script stores is gone with it. */
int extend_open_one(extend **out, const trust_file *f, const json_t *settings, const char *dir,
                    hone_err *e);

/* ---- for the commands that look at plugins without loading them ---- */

extern const conf_row extend_rows[]; /* of an entry, for the reference page */

/* Opens the file of entry i and, with `approved`, asks what approves it. Close with trust_close. */
int extend_file(trust_file *out, const json_t *list, size_t i, const char *config, bool approved,
                hone_err *e);

/* What a file says of itself, without loading it into hooks: {name, version, summary, sha256,
 * settings, ...}. New reference. */
int extend_describe(json_t **out, const trust_file *f, hone_err *e);

/* By its name: is it one of ours; is it one in C? */
bool extend_is_plugin(const char *path);
bool extend_is_object(const char *path);

/* Where plugins lie that come with the program; free with dir_list_free. */
char **extend_folders(void);

/* "<folder of config>/plugins.lock"; caller frees. */
char *extend_lock(const char *config);

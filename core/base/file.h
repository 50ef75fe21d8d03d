#pragma once
/* Files: whole reads with a limit, read-only maps, writes that are complete or not there at all,
 * digests, and the few directory verbs that we need. Every error names the path. */
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "<path>: <verb>: <errno text>" with the code that errno means. For modules that call the system
 * themselves. */
int file_error(hone_err *e, const char *path, const char *verb);

/* Reads a whole regular file to its end; *out is NUL-terminated past *len and the caller frees it.
 * ELIMIT when longer than max. */
int file_read(char **out, size_t *len, const char *path, size_t max, hone_err *e);

/* Read-only map of a whole file; an empty file is EFORMAT. Whoever cuts the file short while it is
 * mapped kills the reader, so map only what nobody rewrites in place. */
typedef struct file_map {
    const unsigned char *data;
    size_t len;
} file_map;
int file_map_open(file_map *m, const char *path, hone_err *e);
void file_map_close(file_map *m); /* safe on a zeroed map */

/* Replaces path by these bytes: written beside it (as "<path>.tmp-<8 hex digits>"), synced,
 * renamed, directory synced. The permissions of a file that is replaced stay; a new one gets 0644
 * less the umask. After an error the old file stands as it was and nothing is left beside it, with
 * one exception: "cannot sync its directory" says that the new file is complete and in place, but
 * that a power cut may bring the old one back. A process that is killed may leave the file beside
 * it. */
int file_write(const char *path, const void *data, size_t len, hone_err *e);

/* The same for a stream of writes. `mode` is the permission of the new file. After a failed write
 * the commit fails too. */
typedef struct file_out file_out;
int file_out_open(file_out **out, const char *path, unsigned mode, hone_err *e);
int file_out_write(file_out *f, const void *data, size_t len, hone_err *e);
int file_out_commit(file_out *f, hone_err *e); /* frees f in every case */
void file_out_abort(file_out *f);              /* removes what was written; NULL is a no-op */

/* Appends whole lines, each ended by a newline, to a log of one writer; with `sync` they are on
 * disk before it returns. After an error the file is as long as it was. Where a crash had cut the
 * last line short, the new ones begin on a line of their own. */
int file_append(const char *path, const void *data, size_t len, bool sync, hone_err *e);

/* SHA-256 as 64 hex digits and a terminator. */
int file_sha256(char out[65], const char *path, hone_err *e);
void bytes_sha256(char out[65], const void *data, size_t len);

bool file_exists(const char *path);
bool file_is_dir(const char *path);
int file_size(int64_t *out, const char *path, hone_err *e);
int file_copy(const char *from, const char *to, hone_err *e); /* as file_write, with from's mode */
int file_remove(const char *path, hone_err *e);               /* absent is no error */

int dir_make(const char *path, hone_err *e); /* and its parents, synced; existing is no error */
int dir_sync(const char *path, hone_err *e);
int dir_remove(const char *path, hone_err *e); /* with everything in it; absent is no error */

/* Puts a directory (or file) into place under a name that must be free (else EEXIST, and nothing
 * has changed). What is in it must have been synced; its own entries and the new name are synced
 * here. An error says that it stands under the old name still, or, as of file_write, that only the
 * last sync failed. */
int dir_rename(const char *from, const char *to, hone_err *e);

/* Names in a directory (without . and ..), sorted; NULL-ended; caller frees with dir_list_free. */
int dir_list(char ***out, const char *path, hone_err *e);
void dir_list_free(char **names);

/* "<dir>/<name>"; caller frees. */
char *path_join(const char *dir, const char *name);
/* The part after the last '/': empty for a path that ends in one. Borrowed. */
const char *path_base(const char *path);
/* The directory that holds path, slashes at its end ignored ("." when it names none); caller frees.
 */
char *path_dir(const char *path);

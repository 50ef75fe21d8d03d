#pragma once
/* The name of a set of weights: what an adapter was trained on, what an artefact is called by. */
#include "core/base/err.h"

/* SHA-256 over the lines "<sha256>  <name>\n" of the directory's weight files (*.safetensors),
 * sorted by name; 64 hex digits. ENOTFOUND when there are none. Settings and tokenizer are not part
 * of it. */
int model_dir_digest(char out[65], const char *dir, hone_err *e);

/* A file of a directory, whose hash is known. */
typedef struct digest_file {
    char *name; /* within the directory, parts parted by '/' */
    char sha256[65];
} digest_file;

/* The same from known hashes, sorted by name; files that are no weights are passed over. `dir` is
 * for the error. */
int model_digest_of(char out[65], const digest_file *files, size_t n, const char *dir, hone_err *e);

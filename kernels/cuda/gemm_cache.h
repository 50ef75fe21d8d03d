#pragma once
/* Which of cuBLASLt's algorithms a product takes, remembered between runs in a small text file.
 *
 * Timing picks an algorithm, and algorithms differ in the last bits of their sums: a file that is
 * kept makes the next run, and a run that goes on from a checkpoint, give the same bits. Plain host
 * code without CUDA's types. */
#include "kernels/kern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What an algorithm is valid for. kind holds dtypes, transposes, alignments, beta and bias. */
typedef struct gemm_key {
    int64_t m, n, k;
    uint32_t kind;
} gemm_key;

/* Of the row-major product c [m, n] = op(a) op(b); beta, bias: whether there is one. */
gemm_key gemm_key_of(const kern_tensor *a, const kern_tensor *b, const kern_tensor *c, bool ta,
                     bool tb, bool beta, bool bias);
/* The key under which a choice stands: sizes rounded up to four steps an octave, so that batches of
 * nearly the same length share it. */
gemm_key gemm_key_round(gemm_key k);
bool gemm_key_same(const gemm_key *a, const gemm_key *b);
/* Bytes to which a matrix's rows all are aligned: 2, 4, 8 or 16. */
unsigned gemm_alignment(const kern_tensor *x);

/* cublasLtMatmulAlgo_t, which may be stored for the same version of the library. */
typedef struct gemm_algo {
    uint64_t data[8];
} gemm_algo;

typedef struct gemm_choice {
    gemm_key key;
    gemm_algo algo;
} gemm_choice;

typedef struct gemm_choices {
    gemm_choice *at;
    size_t n, cap;
} gemm_choices;

enum { GEMM_MAX_CHOICES = 8192 };

/* NULL when there is none. */
const gemm_algo *gemm_choices_find(const gemm_choices *t, const gemm_key *k);
/* What stands there stays. ENOMEM without memory or with GEMM_MAX_CHOICES. */
int gemm_choices_add(gemm_choices *t, const gemm_key *k, const gemm_algo *a);
void gemm_choices_free(gemm_choices *t);

/* The file's text; caller frees; NULL without memory. */
char *gemm_choices_format(const gemm_choices *t, size_t *len);
/* Adds a file's choices. EINVAL, and nothing is added, when the text is not whole. */
int gemm_choices_parse(gemm_choices *t, const char *text, size_t len);

/* "<cache>/hone/gemm-<card>-<version>.txt" in $XDG_CACHE_HOME or ~/.cache. EUNSUPPORTED when there
 * is no such directory or the path is longer than cap. */
int gemm_cache_path(char *out, size_t cap, const char *card, const char *version);
/* HONE_GEMM_CACHE=off: no file, and no timing either. */
bool gemm_cache_off(void);
/* Adds the file's choices; a file that is absent, damaged or not ours gives none. */
void gemm_cache_load(gemm_choices *t, const char *path);
/* Adds a choice to t and to the file, which another process may have written meanwhile: what stands
 * in it already wins. The file is replaced at once or not at all; one that cannot be written is no
 * error. ENOMEM as of gemm_choices_add. */
int gemm_cache_add(gemm_choices *t, const char *path, const gemm_key *k, const gemm_algo *a);

#ifdef __cplusplus
}
#endif

#pragma once
/* The merge's proof. Private to merge.c: begin loads base and adapter, hands out the pairs, and
 * keeps the log-probabilities of real prompts; end loads the merged model and compares. */
#include "adapters/lora.h"
#include "adapters/merge.h"

typedef struct proof proof;
int proof_begin(proof **out, const merge_options *o, adapter_pair_fn *fn, void *user, hone_err *e);
/* Fills the report; ENUMERIC with the figures when they are beyond the tolerance. */
int proof_end(proof *p, const char *merged_dir, merge_report *report, hone_err *e);
void proof_free(proof *p);

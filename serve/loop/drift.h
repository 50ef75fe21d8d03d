#pragma once
/* Do users ask for something else than what was trained on? Histograms of the examples that a round
 * begins from (replay, else the holdout) against those of its feedback, with their population
 * stability index; subscribers of drift.measure add scores of their own. */
#include "core/base/err.h"
#include "core/base/hook.h"

#include <jansson.h>

/* current: array of records ({"messages"}); file: the reference, in any shape that training reads.
 * *out (new reference): {"reference": {name: {"edges", "counts"}}, "current": {...}, "n_reference",
 * "n_current", "scores": {"psi.prompt_bytes": ..., ...}}. The index is sum (p - q) ln(p / q) over
 * the bins, each count 0.5 larger; below 0.1 is usually called no drift, above 0.25 a large one; it
 * is biased upward for fewer than 500 examples. */
int drift_measure(json_t **out, const json_t *current, const char *file, hooks *h, hone_err *e);

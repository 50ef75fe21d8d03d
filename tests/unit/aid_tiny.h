#pragma once
/* A complete checkpoint small enough for any test: the weights of tests/golden/model/llama (random,
 * vocabulary of 67, context 64) with the tokenizer of tests/golden/tiny (specials, then letters,
 * digits and a few marks, no merges) and a chat template. */

/* Makes dir (which must not exist) and fills it. */
void aid_tiny_make(const char *dir);

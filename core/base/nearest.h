#pragma once
/* "Did you mean": the name of a NULL-ended list nearest to `word` by edit distance, or NULL when
 * none is near (a third of its letters and one more may differ, but never all of them). */
const char *nearest_name(const char *word, const char *const *names);

#pragma once
/* "Did you mean": the name of a NULL-ended list nearest to `word` by edit distance, or NULL when none is near
 * (more than a third of the word would have to change). */
const char *nearest_name(const char *word, const char *const *names);

#pragma once
/* A small language for text grammars: rules whose alternatives are text with placeholders. It makes
 * the corpus of the embedded model and the questions of its domain set, the same bytes for the same
 * seed everywhere.
 *
 *     # a comment
 *     animal: cat | dog | mouse//mice          alternatives; '/' parts the fields of a record
 *     story:
 *         3* The {a=animal} saw {b=animal!a}.  an alternative of weight 3
 *         Two {a=animal.pl} slept.             the plural, field 1 or made by rule
 *
 * A placeholder is {[^][var=|var:]name[.field][!var]...}: `^` makes the first letter a capital,
 * `var=` keeps the record for the rest of the text, `var:` keeps it and prints nothing, `!var`
 * picks until field 0 differs from the variable's. `name` is a variable of this text where one is
 * set, else a rule. Fields: 0 to 7, or for verbs s, ed, ing, en (1, 2, 3, 4; walks, walked,
 * walking, walked) and for nouns pl (1). In text `~` is a space kept at an edge, `a_` is "a " or
 * "an " by the letter after it, `\n` a new line, `\-` nothing, and `\s`, `\u`, `\a` begin the
 * system's, the user's and the assistant's turn of a conversation. */
#include "core/base/buf.h"
#include "core/base/rng.h"

enum {
    GRAMMAR_MAX_FILE = 4 << 20,
    GRAMMAR_MAX_FIELDS = 8,
    GRAMMAR_MAX_VARS = 32,
    GRAMMAR_MAX_DEPTH = 48,
    GRAMMAR_MAX_TEXT = 1 << 16,
};

/* The bytes that the turn marks become; they stand in no other place of a text. */
enum { GRAMMAR_SYSTEM = 1, GRAMMAR_USER = 2, GRAMMAR_ASSISTANT = 3 };

/* One alternative of a rule. */
typedef struct grammar_alt {
    unsigned weight; /* at least 1 */
    unsigned n_fields;
    char *field[GRAMMAR_MAX_FIELDS];
} grammar_alt;

typedef struct grammar_rule {
    char *name;
    int line;
    size_t n_alts, cap;
    uint64_t weight; /* of all alternatives */
    grammar_alt *alts;
} grammar_rule;

/* Read-only after grammar_open. */
typedef struct grammar {
    size_t n_rules, cap;
    grammar_rule *rules; /* sorted by name */
} grammar;

/* Reads a grammar. EFORMAT with file and line for what the language does not have; a placeholder
 * whose name is neither a rule nor a variable set somewhere in the file is named with the nearest
 * rule. */
int grammar_open(grammar **out, const char *path, hone_err *e);
void grammar_close(grammar *g); /* NULL is a no-op */

/* Borrowed; NULL when the grammar has no rule of that name (n bytes). */
const grammar_rule *grammar_find(const grammar *g, const char *name, size_t n);

/* Replaces what `text` holds by one expansion of `rule`. ENOTFOUND for an unknown rule; EFORMAT for
 * a field that a record does not have; ELIMIT for a text, a depth or a number of variables past the
 * limits above, or a `!` that leaves nothing to pick. */
int grammar_expand(const grammar *g, const char *rule, rng *r, buf *text, hone_err *e);

#pragma once
/* What a script's function gets at each hook point, and what its answers mean there. */
#include "core/base/hook.h"

typedef struct form {
    const char *point;
    /* Fields of the data that are arguments of their own; NULL: the first argument is all of it.
     * Where there is a first one, the fields that are no argument come last, as one table. */
    const char *first, *second;
    bool stream; /* that last table is kept from piece to piece */

    /* A table answer replaces this argument (1 or 2; 0: see merges), or adds to this field ("": to
     * the data itself). */
    int replaces;
    const char *merges;
    bool list; /* an empty table is a list of none */

    /* A text answer becomes this field, and a second answer (a table) the other. */
    const char *text, *with_text;

    /* Text answers with a meaning, "a|b": they become the field `word`. */
    const char *words, *word;
    const char *stops; /* the word that is a veto */
    const char *sets;  /* the word that makes the field of its name true */

    const char *call; /* how a script writes it, for the reference */
} form;

/* NULL for a point that scripts cannot hook into. */
const form *form_of(hook_point p);

/* "true, nil, ..." : what may be answered; caller frees. */
char *form_answers(const form *f);

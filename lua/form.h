#pragma once
/* What a script's function gets at each hook point, and what its answers mean there. */
#include "core/base/hook.h"

typedef struct form {
    const char *point;
    /* Fields of the data that are arguments of their own; NULL: the first argument is all of it.
     * Where there is a first one, the fields that are no argument come last, as one table. */
    const char *first, *second;
    /* The argument that a table answer replaces (1 or 2), or the field that it is merged into. */
    int replaces;
    const char *merges;  /* "": into the data itself */
    bool text;           /* a text answer replaces the first argument */
    bool stream;         /* the last table is kept from piece to piece */
    bool list;           /* an empty table is a list of none */
    const char *words;   /* text answers with a meaning: "pass|fail" */
    const char *word_to; /* the field that such a word is written to; NULL: it is a veto */
    const char *call;    /* how a script writes it, for the reference */
} form;

/* NULL for a point that scripts cannot hook into. */
const form *form_of(hook_point p);

/* "true, nil, ..." : what may be answered; caller frees. */
char *form_answers(const form *f);

#pragma once
/* Regular English word forms, by spelling rules alone; irregular ones stand in the grammar. */
#include "core/base/buf.h"

typedef enum inflect_form { INFLECT_S, INFLECT_ED, INFLECT_ING, INFLECT_PLURAL } inflect_form;

/* Appends a form of a word. In several words the first changes for a verb (look for, looks for) and
 * the last for a plural (coffee cup, coffee cups). */
void inflect(buf *out, const char *words, inflect_form form);

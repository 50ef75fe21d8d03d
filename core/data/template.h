#pragma once
/* data.template: what subscribers make of a rendered conversation, its text and what of it is
 * learnt. */
#include "core/data/encode.h"
#include "core/data/prep.h"
#include "core/text/chat.h"

/* t is of chat_encode with keep_text; where a subscriber changes something it becomes the tokens of
 * the new text, masked by the new spans: a token is learnt when it overlaps one. EVETO: the row is
 * refused. EINTERNAL: a subscriber failed, or left what cannot be used. */
int template_ask(chat_tokens *t, const json_t *record, const tok *tk, const prep *p, hone_err *e);

#pragma once
/* Shared by chat.c and chat_encode.c. */
#include "core/text/chat.h"
#include "core/text/jinja.h"

/* Renders the first n of the messages; spans may be NULL. */
int chat_text(const chat *c, const json_t *messages, size_t n, const chat_options *o, buf *out,
              jinja_spans *spans, hone_err *e);

#pragma once
/* Chat messages as clients send them, in the form that chat templates expect. Internal to
 * serve/http. */
#include "core/base/err.h"

#include <jansson.h>

/* New reference: each message with its content as text (a list of text parts is joined with
 * newlines; an assistant's content may be null beside tool calls), and tool-call arguments as
 * objects. Everything else of a message is passed on to the template. On an error `name`
 * (PARAMS_NAME bytes) says where: "messages[2].content". EUNSUPPORTED for parts that are not text.
 */
int messages_read(json_t **out, const json_t *v, char *name, hone_err *e);

#pragma once
/* A model's chat template: messages to the prompt, and for training to tokens with the supervision
 * mask. */
#include "core/base/buf.h"
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tok tok;
typedef struct chat chat; /* immutable after chat_open, shared by threads */

/* Finds and compiles the template: `template_file` when it is given, else chat_template.jinja in
 * dir (and additional_chat_templates/tool_use.jinja), else chat_template of tokenizer_config.json:
 * a string or a list of {name, template}, where "default" is taken and "tool_use" when a request
 * has tools. bos_token, eos_token and the other special tokens of tokenizer_config.json (else
 * special_tokens_map.json) become variables of the template. ENOTFOUND, with what to do, when there
 * is no template: there is no fallback. */
int chat_open(chat **out, const char *dir, const char *template_file, hone_err *e);
void chat_close(chat *c);

const char *chat_source(const chat *c);      /* the template text, to travel with an adapter */
const char *chat_tool_source(const chat *c); /* the "tool_use" template; NULL without one */
/* SHA-256 of the template text, 64 hex digits; where there is a "tool_use" template, of the two
 * texts with a NUL between them. */
const char *chat_digest(const chat *c);

/* Writes the template as chat_template.jinja (and additional_chat_templates/tool_use.jinja) into
 * dir. */
int chat_save(const chat *c, const char *dir, hone_err *e);

typedef struct chat_options {
    bool add_generation_prompt;
    bool train_lead;     /* see chat_encode */
    bool keep_text;      /* of chat_encode: also the text, and where each token lies in it */
    const json_t *tools; /* array of tool schemas, or NULL */
    const json_t *extra; /* object of more template variables (chat_template_kwargs), or NULL */
} chat_options;

/* Appends the prompt for `messages`, an array of objects that each have a role, to out. Messages
 * reach the template as transformers passes them on: without fields that are null, and with
 * reasoning under each of its names (reasoning_content, thinking); and without our field "train".
 * EFORMAT for messages of another shape and for what the template refuses. */
int chat_render(const chat *c, const json_t *messages, const chat_options *o, buf *out,
                hone_err *e);

/* Tokens of a rendering for training. The arrays have n elements. */
typedef struct chat_tokens {
    int32_t *id;
    uint8_t *mask; /* 1: this token is supervised (the model learns to write it) */
    int32_t *turn; /* index of the message that the token belongs to; -1 template text */
    size_t n;
    /* with chat_options.keep_text: the rendering, and the bytes [start, end) of each token in it */
    char *text;
    size_t text_len;
    uint32_t *start, *end;
} chat_tokens;

typedef enum { CHAT_TRAIN_ALL, CHAT_TRAIN_LAST } chat_turns;

/* Renders and encodes messages, and marks the assistant's turns.
 *
 * A token is supervised when it overlaps the span of an assistant message (see jinja_render; the
 * {% generation %} blocks where the template has them), also when it begins in the template text
 * before it. The turn goes on over the tokens that follow, up to and including the first special
 * token or stop id, which must be a stop id of the tokenizer. With o->train_lead a turn begins
 * where the generation prompt for that message ends, so that the model learns also what the
 * template writes before the message's first byte ("<think>", "<tool_call>").
 *
 * CHAT_TRAIN_LAST supervises only the last assistant message; a message with "train": false is
 * never supervised, an assistant's with "train": true always.
 *
 * EFORMAT "message 2: ..." when a supervised turn ends without a stop token, when the template does
 * not show it, and when the text begins with two BOS tokens; ENOTFOUND when no token is supervised
 * (a caller may take it for a rejected row). The caller frees with chat_tokens_free. */
int chat_encode(const chat *c, const tok *t, const json_t *messages, const chat_options *o,
                chat_turns turns, chat_tokens *out, hone_err *e);
void chat_tokens_free(chat_tokens *t); /* safe on a zeroed one */

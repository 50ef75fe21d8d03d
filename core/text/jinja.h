#pragma once
/* A bounded interpreter of the Jinja that chat templates are written in. Output is byte-exact
 * against Python Jinja2 in the settings of transformers: immutable sandbox, trim_blocks,
 * lstrip_blocks, loop controls, the
 * {% generation %} block, raise_exception and strftime_now, and a tojson that does not escape HTML.
 * What is not supported (include, import, extends, block, autoescape, i18n, random and urlize
 * filters) is refused by name and line when the template is compiled.
 *
 * Integers are 64 bits wide (ELIMIT beyond). strftime_now reads the context key `__now` (Unix
 * seconds, UTC) when it is there, else the clock in local time. */
#include "core/base/buf.h"
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct jinja jinja; /* a compiled template: immutable, shared by threads */

/* 0 means the default: 8 MB of output, 10 million steps, depth 200 (of nesting and of macro calls).
 * Memory of a rendering is bounded by 16 times max_output. */
typedef struct jinja_limits {
    size_t max_output;
    uint64_t max_steps;
    int max_depth;
} jinja_limits;

/* Bytes [start, end) of the output that came from messages[origin]. */
typedef struct jinja_span {
    size_t start, end;
    size_t said; /* end of the message's own last byte; == end unless `generation` */
    int origin;  /* index into the context's `messages`; -1: a generation block that shows none */
    bool generation; /* the output of a {% generation %} block */
} jinja_span;

/* The spans of messages in the order of the output, then those of generation blocks. Zero it before
 * use; jinja_render replaces the contents. */
typedef struct jinja_spans {
    jinja_span *v;
    size_t n, cap;
} jinja_spans;

/* Parses UTF-8 source. EFORMAT "template: line 3: ..." for a syntax error, EUNSUPPORTED for what is
 * refused by name, ELIMIT for nesting deeper than 200 or a source longer than 1 MB. */
int jinja_compile(jinja **out, const char *src, size_t len, hone_err *e);
void jinja_free(jinja *t);
bool jinja_has_generation(const jinja *t); /* it has a {% generation %} block */

/* Renders with the variables of `context` (an object) and appends to `out`.
 *
 * `spans` (may be NULL) says which bytes came from which message. Every scalar below
 * context["messages"][i], except `role`, carries the origin i; concatenation, slices, strip, split,
 * replace and loops keep it byte by byte, every other function gives its whole result the origin
 * that its tagged inputs share. The span of message i goes from its first to its last byte in a
 * stretch of output that no other message interrupts, so template text between two pieces of a
 * message belongs to it. A {% generation %} block has a span of its own, its whole output.
 *
 * EFORMAT "template: line 3: ..." where the template fails, "template: <message>" where it calls
 * raise_exception; ELIMIT. After an error `out` holds what it held before. */
int jinja_render(const jinja *t, const json_t *context, const jinja_limits *lim, buf *out,
                 jinja_spans *spans, hone_err *e);
void jinja_spans_free(jinja_spans *s); /* safe on a zeroed one */

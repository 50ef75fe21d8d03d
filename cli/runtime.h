#pragma once
/* What a command that runs a model opens, from options that are the same everywhere. A command puts
 * RUNTIME_ARGS into its table and RUNTIME_HELP into its usage. */
#include "adapters/lora.h"
#include "cli/args.h"
#include "core/model/model.h"
#include "core/text/chat.h"
#include "core/text/tok.h"

typedef struct runtime_args {
    const char *model, *adapter, *device, *dtype, *threads;
} runtime_args;

/* clang-format off */
#define RUNTIME_ARGS(type, field)                                                                  \
    {"model",   offsetof(type, field.model),   ARGS_TEXT},                                         \
    {"adapter", offsetof(type, field.adapter), ARGS_TEXT},                                         \
    {"device",  offsetof(type, field.device),  ARGS_TEXT},                                         \
    {"dtype",   offsetof(type, field.dtype),   ARGS_TEXT},                                         \
    {"threads", offsetof(type, field.threads), ARGS_TEXT}
#define RUNTIME_HELP                                                                               \
    "  --model DIR         checkpoint, as Hugging Face writes it\n"                                \
    "  --adapter DIR       LoRA adapter, as PEFT writes it\n"                                      \
    "  --device NAME       cpu, cuda or auto (a card where there is one); default auto\n"          \
    "  --dtype f32|bf16    arithmetic; default f32 on the CPU, bf16 on a card\n"                   \
    "  --threads N         of the CPU; default all\n"
/* clang-format on */

typedef struct runtime {
    kern_dev *dev;
    model *model;
    tok *tok;
    chat *chat; /* NULL: the model has no chat template */
    adapter *adapter;
    const char *dir;
} runtime;

/* After a failure there is nothing to close. EINVAL names an option that is missing or wrong. */
int runtime_open(runtime *r, const runtime_args *a, hone_err *e);
void runtime_close(runtime *r); /* safe on a zeroed one */

/* Ids of what a model is to read: plain text with the special tokens that its tokenizer adds, or
 * the rendering of messages (with what lets the model answer, when `answer` is set), in which the
 * template has put them. ENOTFOUND when messages need a template that is not there. */
int runtime_encode(const runtime *r, const char *text, size_t len, tok_ids *out, hone_err *e);
int runtime_render(const runtime *r, const json_t *messages, bool answer, tok_ids *out,
                   hone_err *e);

#include "core/train/inputs.h"

#include "core/base/file.h"

const char *train_inputs_dir(const train_conf *c)
{
    return c->tokenizer_config != NULL ? c->tokenizer_config : c->base_model;
}

/* Only data that need a template make its absence an error; a broken one always is. */
static int open_chat(train_inputs *in, const train_conf *c, hone_err *why, hone_err *e)
{
    int rc = chat_open(&in->chat, train_inputs_dir(c), c->chat_template_jinja, why);
    if (rc == 0 || (rc == HONE_ENOTFOUND && c->chat_template_jinja == NULL))
        return 0;
    return hone_fail(e, rc, "%s", why->msg);
}

static int open_data(train_inputs *in, const train_conf *c, const data_options *o, hone_err *e)
{
    int rc = dataset_open(&in->set, c->datasets, o, e);
    if (rc == 0 && c->test_datasets != NULL) {
        rc = dataset_open(&in->test, c->test_datasets, o, e);
        if (rc != 0)
            return hone_fail_at(e, "test_datasets");
        rc = data_view_split(&in->train, &in->eval, in->set, 0, e);
        if (rc == 0 && in->eval.n > 0)
            return hone_fail(e, HONE_EINVAL,
                             "data.split sends %zu sequences to val, but test_datasets are what is "
                             "evaluated; leave one of them out",
                             in->eval.n);
        data_view_free(&in->eval);
        data_view_all(&in->eval, in->test);
    } else if (rc == 0) {
        rc = data_view_split(&in->train, &in->eval, in->set, c->val_set_size, e);
    }
    return rc;
}

int train_inputs_open(train_inputs *in, const train_conf *c, hooks *h, bool preview, hone_err *e)
{
    hone_err no_chat = {0};
    *in = (train_inputs){0};
    int rc = tok_open(&in->tok, train_inputs_dir(c), e);
    if (rc == 0)
        rc = open_chat(in, c, &no_chat, e);
    data_options o = {.tok = in->tok,
                      .chat = in->chat,
                      .no_chat = no_chat.msg,
                      .sequence_len = c->sequence_len,
                      .excess = (data_excess)c->excess,
                      .train_on_inputs = c->train_on_inputs,
                      .turns = (chat_turns)c->train_turns,
                      .list_too_long = preview,
                      .hooks = h};
    if (rc == 0)
        rc = open_data(in, c, &o, e);
    if (rc != 0)
        train_inputs_close(in);
    return rc;
}

void train_inputs_close(train_inputs *in)
{
    data_view_free(&in->train);
    data_view_free(&in->eval);
    dataset_close(in->set);
    dataset_close(in->test);
    chat_close(in->chat);
    tok_close(in->tok);
    *in = (train_inputs){0};
}

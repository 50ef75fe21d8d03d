#pragma once
/* What the routes run: each sets a reply, or starts a generation. Internal to serve/http. */
#include "serve/http/http_req.h"

http_handler http_chat, http_completions;       /* http_chat.c, http_completions.c */
http_handler http_models_list, http_models_get; /* http_models.c */
http_handler http_tokenize, http_detokenize, http_apply_template; /* http_text.c */
http_handler http_feedback_put, http_feedback_list, http_feedback_get, http_feedback_change,
    http_feedback_delete, http_feedback_export;   /* http_feedback.c */
http_handler http_erasure, http_erasure_receipt;  /* http_erasure.c */
http_handler http_health_live, http_health_ready; /* http_health.c */
http_handler http_metrics;                        /* http_metrics.c */

/* The prompt of the chat request in r->gen, as its template writes it; false after an error reply.
 * In http_chat.c. */
bool http_chat_prompt(http_req *r, buf *out);

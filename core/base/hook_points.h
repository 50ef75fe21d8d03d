#pragma once
/* The one table of hook points. Its rows make the enum and the table of core/base/hook.h, the
 * reference page (`hone plugin hooks`), the stubs for scripts, and what `hone plugin check` feeds a
 * plugin with. A point without an example has a struct instead (hook_view). */

/* X(id, name, may_modify, may_veto, fails_closed, breaker, budget_us, what, example)
 *
 * breaker: an owner that is out (hook_breaker) is not asked here. Only where somebody waits, or
 * where nothing depends on the answer: what data and scores become must not depend on how busy the
 * machine is, so there each failure is judged by itself. */
/* clang-format off */
#define HOOK_POINTS(X) \
    X(DATA_OPEN, "data.open", 1, 1, 1, 0, 100000, \
      "a source of data is opened; what is added goes into the manifest", \
      "{\"path\": \"support.jsonl\", \"sha256\": \"9f2c\", \"type\": \"auto\"}") \
    X(DATA_RECORD, "data.record", 1, 1, 1, 0, 50000, \
      "a raw record was read; a list in its place makes several of it, or none", \
      "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", " \
      "\"content\": \"Hello.\"}]}") \
    X(DATA_NORMALIZE, "data.normalize", 1, 0, 0, 0, 20000, \
      "one text of a record: text may change", \
      "{\"text\": \"caf\\u00e9\\u200b\", \"field\": \"messages[0].content\", \"role\": " \
      "\"user\", \"source\": \"support.jsonl\", \"line\": 7}") \
    X(DATA_TAG, "data.tag", 1, 0, 0, 0, 20000, \
      "adds attributes to tags; pii is a list of spans: {field, start, end (bytes), kind}", \
      "{\"record\": {\"text\": \"Write to ann@example.org.\"}, \"source\": \"notes.txt\", " \
      "\"line\": 1, \"tags\": {}}") \
    X(DATA_FILTER, "data.filter", 0, 1, 1, 0, 20000, \
      "keep a record, or drop it with a reason", \
      "{\"record\": {\"text\": \"Write to ann@example.org.\"}, \"source\": \"notes.txt\", " \
      "\"line\": 1, \"tags\": {\"words\": 3}}") \
    X(DATA_PII, "data.pii", 1, 1, 1, 0, 10000, \
      "one span that data.tag found: replacement may change", \
      "{\"kind\": \"email\", \"span\": \"ann@example.org\", \"before\": \"Write to \", " \
      "\"after\": \".\", \"field\": \"text\", \"replacement\": \"<EMAIL>\", \"source\": " \
      "\"notes.txt\", \"line\": 1}") \
    X(DATA_SPLIT, "data.split", 1, 0, 1, 0, 5000, \
      "which part a row goes to: split becomes train, val or none; rows of one key fall on one " \
      "side where it stays null, and key may become another row's, or any text", \
      "{\"record\": {\"text\": \"A row.\"}, \"source\": \"notes.txt\", \"line\": 1, \"id\": " \
      "\"0f3c5e9b1a2d4c68\", \"key\": \"5b1f0c3a99d2e481\", \"split\": null}") \
    X(DATA_TEMPLATE, "data.template", 1, 1, 1, 0, 20000, \
      "the rendered text, and the spans of it that are learnt: [first byte, end]", \
      "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", " \
      "\"content\": \"Hello.\"}], \"text\": \"<user>Hi</user><bot>Hello.</bot>\", \"learn\": " \
      "[[20, 32]], \"tools\": null, \"source\": \"support.jsonl\", \"line\": 7}") \
    X(TRAIN_START, "train.start", 0, 1, 1, 0, 1000000, \
      "a run begins: settings, identity of model and data, length", \
      "{\"settings\": {\"base_model\": \"model\"}, \"identity\": {}, \"steps\": 100, " \
      "\"first_step\": 0, \"tokens\": 5000, \"output_dir\": \"out\"}") \
    X(TRAIN_BATCH, "train.batch", 1, 0, 1, 0, 2000, \
      "a micro-batch before its forward pass: weights of its examples may change", \
      NULL) \
    X(TRAIN_STEP, "train.step", 1, 1, 0, 1, 5000, \
      "after a step: lr_scale may change (of the next step on), save may become true; a " \
      "veto ends the run with what it has. A card does not go on before it is heard", \
      "{\"step\": 10, \"total_steps\": 100, \"epoch\": 0.1, \"loss\": 2.5, \"lr\": 0.0001, " \
      "\"grad_norm\": 0.8, \"tokens_per_second\": 1000.0, \"tokens\": 5000, \"lr_scale\": " \
      "1.0, \"save\": false}") \
    X(TRAIN_CHECKPOINT, "train.checkpoint", 0, 0, 0, 1, 1000000, \
      "a checkpoint stands on disk", \
      "{\"path\": \"out/checkpoint-10\", \"step\": 10, \"loss\": 2.5, \"eval_loss\": 2.7}") \
    X(TRAIN_END, "train.end", 0, 0, 0, 1, 1000000, \
      "a run ends", \
      "{\"status\": \"finished\", \"steps\": 100, \"loss\": 1.5, \"eval_loss\": 1.6}") \
    X(EVAL_METRIC, "eval.metric", 1, 0, 1, 0, 20000, \
      "one example: adds to scores, name: number or {value, smaller_is_better, info}; info " \
      "is shown and not judged. prediction is null where nothing was asked", \
      "{\"record\": {\"prompt\": \"How long is the warranty?\", \"completion\": \"Two " \
      "years.\"}, \"prediction\": \"Two years.\", \"reference\": \"Two years.\", \"line\": " \
      "7, \"nats\": 3.5, \"tokens\": 4.0, \"bytes\": 10.0, \"scores\": {}}") \
    X(EVAL_AGGREGATE, "eval.aggregate", 1, 0, 1, 0, 1000000, \
      "the report of an evaluation before it is returned", \
      "{\"data\": \"holdout.jsonl\", \"data_sha256\": \"87a3\", \"n\": 1, \"settings\": {}, " \
      "\"metrics\": " \
      "{\"exact_match\": {\"value\": 1, \"low\": 0.2, \"high\": 1, \"n\": 1}}, " \
      "\"examples\": {}}") \
    X(BIAS_PROBE, "bias.probe", 1, 0, 1, 0, 1000000, \
      "phase items: appends items {probe, group, texts: [{context, text}], prompts}; phase " \
      "score: reads ll and answers of each, adds to scores: {examples, ends, min_n} or {value, " \
      "low, high}", \
      "{\"phase\": \"items\", \"items\": [], \"scores\": {}}") \
    X(MERGE_PRE, "merge.pre", 0, 1, 1, 0, 1000000, \
      "before a merge", \
      "{\"model\": \"base\", \"adapter\": \"out/adapter\"}") \
    X(MERGE_POST, "merge.post", 0, 1, 1, 0, 1000000, \
      "after a merge and its proof", \
      "{\"max_abs_diff\": 0.001, \"mean_kl\": 0.00001, \"agreement\": 1.0}") \
    X(PROMOTE_GATE, "promote.gate", 1, 1, 1, 0, 5000000, \
      "candidate against live, before the verdict holds: verdict (pass, fail, inconclusive) " \
      "may become stricter, reasons longer", \
      "{\"verdict\": \"pass\", \"reasons\": [\"pass: holdout exact_match: change [-0.0100, " \
      "+0.0500], bound -0.0200\"], \"holdout\": {\"n\": 200, \"metrics\": {\"exact_match\": " \
      "{\"before\": 0.5, \"after\": 0.52, \"difference\": 0.02, \"low\": -0.01, \"high\": " \
      "0.05}}}, \"feedback\": null, \"run\": \"run-1\"}") \
    X(SERVE_REQUEST, "serve.request", 1, 1, 1, 1, 5000, \
      "an authenticated request: body may change", \
      "{\"request_id\": \"req-1\", \"key_id\": \"k1\", \"route\": \"/v1/chat/completions\", " \
      "\"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"max_tokens\": " \
      "16}}") \
    X(SERVE_ROUTE, "serve.route", 1, 0, 1, 1, 1000, \
      "which model answers: alias becomes one of aliases, the names that are served (the live " \
      "model's, and with canary: true that of the one beside it); bucket is 0 to 99, the same for " \
      "a user or key", \
      "{\"request_id\": \"req-1\", \"key_id\": \"k1\", \"model\": \"support\", \"alias\": " \
      "\"support\", \"aliases\": [\"support\", \"support-canary\"], \"bucket\": 37}") \
    X(SERVE_PROMPT, "serve.prompt", 1, 1, 1, 1, 5000, \
      "the rendered prompt: text may change", \
      "{\"request_id\": \"req-1\", \"key_id\": \"k1\", \"text\": \"<user>Hi</user><bot>\"}") \
    X(SERVE_LOGITS, "serve.logits", 1, 0, 0, 1, 50, \
      "one row of logits before a token is picked: it may change", \
      NULL) \
    X(SERVE_CHUNK, "serve.chunk", 1, 1, 1, 1, 1000, \
      "a piece of a streamed answer: text may change; a veto ends the stream", \
      "{\"request_id\": \"req-1\", \"choice\": 0, \"text\": \"Hello\", \"eof\": false}") \
    X(SERVE_RESPONSE, "serve.response", 1, 1, 1, 1, 5000, \
      "a complete answer before it is sent", \
      "{\"id\": \"req-1\", \"object\": \"chat.completion\", \"created\": 1795648227, \"model\": " \
      "\"support\", \"system_fingerprint\": \"fp_ece5\", " \
      "\"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", \"content\": " \
      "\"Hello.\", \"refusal\": null}, \"logprobs\": null, \"finish_reason\": \"stop\"}], " \
      "\"usage\": {\"prompt_tokens\": 5, " \
      "\"completion_tokens\": 2, \"total_tokens\": 7}}") \
    X(SERVE_LOG, "serve.log", 1, 1, 1, 1, 5000, \
      "the record of a request before it is stored; a veto drops it", \
      "{\"id\": \"req-1\", \"key_id\": \"k1\", \"ip\": \"127.0.0.1\", \"route\": " \
      "\"/v1/chat/completions\", \"status\": 200, \"model\": \"support\", \"finish_reason\": " \
      "\"stop\", \"ts\": 1795648227940, \"tok_in\": 5, \"tok_out\": 2, \"ttft_ms\": 1, " \
      "\"e2e_ms\": 4, \"params\": {\"max_tokens\": 16}, \"keep\": \"full\", \"messages\": " \
      "[{\"role\": \"user\", \"content\": \"Hi\"}], \"choices\": [{\"index\": 0, \"text\": " \
      "\"Hello.\", \"finish_reason\": \"stop\"}]}") \
    X(FEEDBACK_INGEST, "feedback.ingest", 1, 1, 1, 1, 10000, \
      "feedback before it is stored", \
      "{\"response_id\": \"r1\", \"rating\": 1, \"comment\": \"good\"}") \
    X(FEEDBACK_TO_EXAMPLE, "feedback.to_example", 1, 1, 1, 0, 20000, \
      "feedback becomes a training example: example may change; a veto leaves it out", \
      "{\"feedback\": {\"id\": \"f1\", \"rating\": 1, \"correction\": null}, \"example\": " \
      "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", " \
      "\"content\": \"Hello.\"}]}}") \
    X(DRIFT_MEASURE, "drift.measure", 1, 0, 0, 0, 1000000, \
      "histograms of the reference and of now: adds named numbers to scores", \
      "{\"reference\": {\"prompt_length\": {\"edges\": [0, 10, 100], \"counts\": [5, 20]}}, " \
      "\"current\": {\"prompt_length\": {\"edges\": [0, 10, 100], \"counts\": [15, 10]}}, " \
      "\"n_reference\": 25, \"n_current\": 25, \"scores\": {\"psi.prompt_length\": 1.1}}") \
    X(AUDIT_EVENT, "audit.event", 0, 0, 0, 1, 5000, \
      "an audit record was appended", \
      "{\"ts\": 1795648227588, \"seq\": 10, \"action\": \"key.create\", \"actor\": \"cli:op\", " \
      "\"target\": \"k1\"}")
/* clang-format on */

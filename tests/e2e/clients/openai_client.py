"""Holds a running server against the openai package, which checks every field of every reply.

    python3 tests/e2e/clients/openai_client.py http://127.0.0.1:8080 KEY

A check for development: neither the program nor its tests need Python. The key needs the scopes
infer, models:read and feedback:write. The model must be one that goes on writing: stories260k with a
chat template that joins the contents.
"""
import json
import sys
import urllib.request

import openai

base, key = sys.argv[1], sys.argv[2]


def client_of(api_key, strict=True):
    return openai.OpenAI(base_url=base + "/v1", api_key=api_key, max_retries=0,
                         _strict_response_validation=strict)


# Two things that OpenAI sends are not in its own schema, which says that they are never null: the
# finish_reason of a completion's chunk, and the log-probability of a prompt's first token.
client, lax = client_of(key), client_of(key, strict=False)
model = client.models.list().data[0].id
hello = [{"role": "user", "content": "Once upon a time"}]


def models():
    assert client.models.retrieve(model).id == model


def chat():
    r = client.chat.completions.create(model=model, messages=hello, max_completion_tokens=8, n=2,
                                       temperature=0, seed=1, user="me", metadata={"a": "b"})
    assert len(r.choices) == 2 and r.choices[0].message.role == "assistant"
    assert r.choices[0].message.content == r.choices[1].message.content
    assert r.choices[0].finish_reason == "length"
    assert r.usage.completion_tokens == 16 and r._request_id == r.id


def chat_logprobs():
    r = client.chat.completions.create(model=model, messages=hello, max_tokens=4, temperature=0,
                                       logprobs=True, top_logprobs=3)
    tokens = r.choices[0].logprobs.content
    assert len(tokens) == 4 and all(len(t.top_logprobs) == 3 for t in tokens)
    assert b"".join(bytes(t.bytes) for t in tokens).decode() == r.choices[0].message.content
    assert all(t.logprob == t.top_logprobs[0].logprob for t in tokens)


def chat_stream():
    whole = client.chat.completions.create(model=model, messages=hello, max_tokens=12,
                                           temperature=0).choices[0].message.content
    text, usage, finish = "", None, None
    for c in client.chat.completions.create(model=model, messages=hello, max_tokens=12,
                                            temperature=0, stream=True,
                                            stream_options={"include_usage": True}):
        if c.choices:
            text += c.choices[0].delta.content or ""
            finish = c.choices[0].finish_reason or finish
        usage = c.usage or usage
    assert text == whole and finish == "length" and usage.completion_tokens == 12


def completions():
    r = client.completions.create(model=model, prompt=["Once", "Lily"], max_tokens=3, n=2,
                                  temperature=0, logprobs=2)
    assert len(r.choices) == 4 and len(r.choices[3].logprobs.tokens) == 3
    text = "".join(c.choices[0].text for c in lax.completions.create(
        model=model, prompt="Once", max_tokens=3, temperature=0, stream=True))
    assert text == r.choices[0].text


def echo():
    r = lax.completions.create(model=model, prompt="Lily", max_tokens=0, logprobs=1, echo=True)
    assert r.choices[0].text == "Lily" and r.usage.completion_tokens == 0
    assert r.choices[0].logprobs.token_logprobs[0] is None
    assert all(p <= 0 for p in r.choices[0].logprobs.token_logprobs[1:])


def stop_and_bias():
    r = client.chat.completions.create(model=model, messages=hello, max_tokens=40, temperature=0,
                                       stop=[" was"])
    assert r.choices[0].finish_reason == "stop" and " was" not in r.choices[0].message.content


def errors():
    cases = [
        (openai.NotFoundError, "model_not_found", dict(model="other", messages=hello)),
        (openai.BadRequestError, "unsupported_parameter",
         dict(model=model, messages=hello, response_format={"type": "json_object"})),
        (openai.BadRequestError, "invalid_value",
         dict(model=model, messages=hello, temperature=9)),
        (openai.BadRequestError, "context_length_exceeded",
         dict(model=model, messages=hello, max_tokens=10 ** 6)),
    ]
    for kind, code, args in cases:
        try:
            client.chat.completions.create(**args)
            raise AssertionError(code + " did not fail")
        except kind as e:
            assert e.code == code and e.request_id.startswith("chatcmpl-"), (e.code, code)
    try:
        client_of("hk_live_wrong").models.list()
        raise AssertionError("a wrong key works")
    except openai.AuthenticationError as e:
        assert e.code == "invalid_api_key" and e.type == "authentication_error"


def feedback():
    r = client.chat.completions.with_raw_response.create(model=model, messages=hello, max_tokens=4)
    token = r.headers["x-feedback-token"]
    body = json.dumps({"response_id": r.parse().id, "rating": "up"}).encode()
    q = urllib.request.Request(base + "/v1/feedback", body, method="POST", headers={
        "Content-Type": "application/json", "Authorization": "Bearer " + token})
    with urllib.request.urlopen(q) as reply:
        assert reply.status == 201 and json.load(reply)["rating"] == 1


for check in (models, chat, chat_logprobs, chat_stream, completions, echo, stop_and_bias,
              errors, feedback):
    check()
    print("ok  ", check.__name__)

#!/usr/bin/env python3
"""Makes the expected texts of this folder with transformers' own template compiler (Jinja2 3.1).

    gen_jinja.py        fills in the "-- expected" parts of cases.txt, and writes families.json from
                        the templates beside it and conversations.json

A group of cases.txt whose last part is "-- error" must fail in Python too; the message is ours.
"""
import datetime
import json
import pathlib
import re

from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = pathlib.Path(__file__).parent
NOW = 1700000000  # 2023-11-14 22:13:20 UTC


def render(source, context):
    template = _compile_jinja_template(source)
    now = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)
    template.globals["strftime_now"] = lambda f: now.strftime(f)
    return template.render(**context)


def fill(path):
    groups = re.split(r"(?m)^(?=== )", path.read_text())
    out = [groups[0]]
    for group in groups[1:]:
        parts = re.split(r"(?m)^-- (\w+)\n", group)
        parts[-1] = parts[-1].rstrip("\n") + "\n" if parts[-2] != "expected" else "\n"
        body = dict(zip(parts[1::2], (p[:-1] for p in parts[2::2])))
        context = json.loads(body.get("context", "{}"))
        try:
            got = render(body["template"], context)
        except Exception as error:
            if "error" not in body and "unsupported" not in body:
                raise SystemExit(f"{parts[0]}: {error}")
        else:
            if "unsupported" not in body:
                if "error" in body:
                    raise SystemExit(f"{parts[0]}: Python renders it: {got!r}")
                body["expected"] = got
        out.append(parts[0] + "".join(f"-- {k}\n{v}\n" for k, v in body.items()) + "\n")
    path.write_text("".join(out))


def families():
    conversations = json.loads((HERE / "conversations.json").read_text())
    rows = []
    for path in sorted(HERE.glob("*.jinja")):
        source = path.read_text()
        for c in conversations:
            context = {"tools": None, "bos_token": "<s>", "eos_token": "</s>", **c["context"]}
            for prompt in (False, True):
                context["add_generation_prompt"] = prompt
                row = {"template": path.name, "conversation": c["name"], "prompt": prompt}
                try:
                    row["expected"] = render(source, context)
                except Exception as error:
                    row["error"] = str(error)
                rows.append(row)
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    (HERE / "families.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    fill(HERE / "cases.txt")
    families()

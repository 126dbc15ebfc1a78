"""A tokenizer's chat template: a program of the folder's, tried before it is used."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from srlm.errors import UserError

LIMIT = 60.0
"""Seconds for the trial, the start of its process included; of the processor it gets 2."""
REFUSALS = (
    TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip
"""What a template raises that cannot render some messages: it is a program."""
OTHER = "give a tokenizer with another chat template, or use --chat never"


def check_template(tokenizer: Any, arguments: Mapping[str, Any]) -> None:
    """Try the tokenizer's chat template in a process of its own, with limits to time and memory;
    warn where what it makes does not depend on the prompt.

    Only some short messages are tried; a template that hangs on others is not found.

    Raises:
        UserError: it takes too long or too much memory.
    """
    texts = [str(x) for x in _templates(tokenizer)]
    names = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
    for text in texts:
        _try(
            text, json.dumps({"tools": None, "documents": None, **names, **arguments}, default=str)
        )
    try:
        made = {
            tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=False,
                **arguments,
            )
            for content in ("What is 2 + 3?", "Name a river.")
        }
    except REFUSALS:
        return  # told prompt by prompt, with the reason
    if len(made) == 1:
        logging.getLogger("srlm").warning(
            "the chat template makes the same text of every prompt: no response can depend on it "
            "(--chat never leaves the template out)"
        )


def _templates(tokenizer: Any) -> list[Any]:
    """Those that may be used for messages without tools."""
    found = tokenizer.chat_template
    return list(found.values()) if isinstance(found, dict) else [found]


@lru_cache(maxsize=64)
def _try(template: str, arguments: str) -> None:
    user, answer = {"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": "5"}
    chats = [[user], [user, answer, user]]
    question = {"template": template, "chats": chats, "arguments": json.loads(arguments)}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("template_worker.py"))],
            input=json.dumps(question),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            timeout=LIMIT,
            check=False,
        )
        what = {0: "", 3: "takes more than a gigabyte"}.get(done.returncode, "does not end")
    except subprocess.TimeoutExpired:
        what = "does not end"
    if what:
        raise UserError(f"the tokenizer's chat template {what} on two short messages", OTHER)

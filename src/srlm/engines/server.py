"""Samples from an OpenAI-compatible server: vLLM, SGLang, llama.cpp and others.

One request asks for all samples of a prompt that are still missing; servers that give fewer at a
time are asked again. Requests run in threads, ``concurrency`` at once. What a server answers with
trouble (a status of 429 or 5xx, no connection, half an answer, no answer in time) is tried again
after a pause, ``retries`` times; then, and at once for other errors, the work stops with an error
that says which. Prompts that are done have been handed over by then.

Only the standard library: a request takes seconds, so connections need not be kept open, and a
request has one deadline, which reading in pieces keeps whatever the server does.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from srlm.engines.files import Problems, Sampled, choice
from srlm.errors import UserError
from srlm.types import Prompt

PAUSE = 1.0
"""Seconds before the first try more; doubled after each."""
LONGEST_PAUSE = 60.0
PIECE = 1 << 16
SHOWN = 200
"""Characters of a server's message that are shown."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where and how to ask."""

    url: str
    """As ``http://localhost:8000/v1``."""
    model: str
    chat: bool = True
    """Chat completions; else completions of prompts that are text."""
    system: str | None = None
    logprobs: bool = False
    """Ask for the log-probabilities of the tokens."""
    max_tokens: int = 256
    concurrency: int = 16
    timeout: float = 600.0
    """Seconds of a request."""
    retries: int = 4
    key: str | None = None
    sleep: Callable[[float], None] = time.sleep


class _Again(Exception):
    """Trouble that may pass; ``pause`` seconds are asked for."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


def check(server: Server, prompts: Sequence[Prompt]) -> None:
    """Refuse what cannot be asked before anything is.

    Raises:
        UserError: no http address; prompts that are no text where completions are asked for.
    """
    if not server.url.startswith(("http://", "https://")):
        raise UserError(
            f"--server {server.url}: no http address", "give it as http://localhost:8000/v1"
        )
    for prompt in prompts:
        text = isinstance(prompt.content, str)
        messages = server.chat and not text and isinstance(prompt.content[0], dict)
        if not (text or messages):
            raise UserError(
                f"--server: the prompt of line {prompt.line} is neither text nor messages"
                if server.chat
                else f"--server with --chat never: the prompt of line {prompt.line} is no text",
                "give prompts that are text" + ("" if server.chat else ", or use --chat auto"),
            )


def sample(
    server: Server, prompts: Sequence[Prompt], count: int, *, seed: int
) -> Iterator[tuple[int, list[Sampled]]]:
    """Index and ``count`` samples of each prompt, as they come.

    Args:
        seed: sent with each request; a server may not heed it.

    Raises:
        UserError: the server cannot be reached, refuses, or keeps failing.
    """
    todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, list[Sampled] | BaseException]] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while (p := todo.get()) is not None and not stop.is_set():
            try:
                done.put((p, _one(server, prompts[p], count, seed, stop)))
            except BaseException as error:  # raised again where the results are read
                stop.set()  # here: no further prompt is asked before it is read
                done.put((p, error))

    for p in range(len(prompts)):
        todo.put(p)
    for _ in range(min(server.concurrency, len(prompts))):
        todo.put(None)
        threading.Thread(target=work, daemon=True).start()  # Ctrl-C waits for no answer
    failed: BaseException | None = None
    try:
        for _ in range(len(prompts)):
            if failed is not None and done.empty():
                break
            p, found = done.get()
            if isinstance(found, BaseException):
                failed = failed or found
                stop.set()
            else:
                yield p, found
    finally:
        stop.set()
    if failed is not None:
        raise failed


def _one(
    server: Server, prompt: Prompt, count: int, seed: int, stop: threading.Event
) -> list[Sampled]:
    """All samples of a prompt."""
    found: list[Sampled] = []
    tries = 0
    while len(found) < count:
        try:
            found += _ask(server, prompt, count - len(found), seed + len(found))[
                : count - len(found)
            ]
            tries = 0
        except _Again as trouble:
            tries += 1
            if tries > server.retries or stop.is_set():
                times = "once" if tries == 1 else f"{tries} times"
                raise UserError(
                    f"{server.url}: {trouble} ({times}; prompt of line {prompt.line})",
                    "see to the server, then give the same command: it continues where it stopped",
                ) from None
            pause = PAUSE * 2 ** (tries - 1) if trouble.pause is None else trouble.pause
            server.sleep(min(pause, LONGEST_PAUSE))
    return found


def _ask(server: Server, prompt: Prompt, count: int, seed: int) -> list[Sampled]:
    """One request."""
    asked: dict[str, Any] = {
        "model": server.model, "n": count, "max_tokens": server.max_tokens,
        "temperature": 1.0, "top_p": 1.0, "seed": _seed(seed, prompt.id),
    }  # fmt: skip
    if server.chat:
        messages = prompt.content
        if isinstance(messages, str):
            own = [] if server.system is None else [{"role": "system", "content": server.system}]
            messages = [*own, {"role": "user", "content": messages}]
        asked |= {"messages": messages} | ({"logprobs": True} if server.logprobs else {})
    else:
        asked |= {"prompt": prompt.content} | ({"logprobs": 1} if server.logprobs else {})
    kind = "chat/completions" if server.chat else "completions"
    answer = _send(server, f"{server.url.rstrip('/')}/{kind}", asked)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise _Again(f"an answer without choices: {_short(json.dumps(answer))}")
    problems = Problems()
    try:
        return [choice(c, prompt.id, problems) for c in choices]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Again(f"an answer that cannot be read: {_short(str(error))}") from None


def _seed(seed: int, prompt_id: str) -> int:
    """31 bits for one request."""
    text = f"{seed} {prompt_id}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1


def _send(server: Server, url: str, asked: dict[str, Any]) -> Any:
    """The JSON that a request is answered with, within the server's ``timeout``."""
    headers = {"Content-Type": "application/json"}
    if server.key:
        headers["Authorization"] = f"Bearer {server.key}"
    request = urllib.request.Request(url, json.dumps(asked).encode(), headers)
    deadline = time.monotonic() + server.timeout
    late = f"no answer within {server.timeout:g} s"
    try:
        with urllib.request.urlopen(request, timeout=server.timeout) as response:
            body = b"".join(_pieces(response, deadline, late))
    except urllib.error.HTTPError as error:
        raise _refused(server, error) from None
    except TimeoutError:
        raise _Again(late) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _Again(late) from None
        raise _Again(f"no connection ({error.reason})") from None
    except (http.client.HTTPException, ConnectionError) as error:
        raise _Again(f"half an answer ({type(error).__name__})") from None
    try:
        return json.loads(body)
    except ValueError:
        raise _Again(f"no JSON: {_short(body.decode(errors='replace'))}") from None


def _pieces(response: Any, deadline: float, late: str) -> Iterator[bytes]:
    while piece := response.read1(PIECE):
        yield piece
        if time.monotonic() > deadline:
            raise _Again(late)
    if response.length:
        raise _Again(f"half an answer ({response.length} bytes are missing)")


def _refused(server: Server, error: urllib.error.HTTPError) -> Exception:
    """Trouble that may pass, or an error that says what the server said."""
    with error:
        try:
            said = _short(error.read(PIECE).decode(errors="replace"))
        except (OSError, http.client.HTTPException):
            said = ""
    status = f"status {error.code} {said}".strip()
    if error.code == 429 or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return _Again(status, float(after) if after.isdecimal() else None)
    remedy = {
        401: "set OPENAI_API_KEY",
        403: "set OPENAI_API_KEY to a key that may use the model",
        404: f"check --server (it often ends in /v1) and --model {server.model}",
    }.get(error.code, "see what the server says; base models need --chat never")
    return UserError(f"{server.url}: {status}", remedy)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"

"""Samples from an OpenAI-compatible server: vLLM, SGLang, llama.cpp and others.

One request asks for all samples of a prompt that are still missing; servers that give fewer at a
time are asked again, and those that refuse so many (llama.cpp's gives as many as it has slots) for
half as many. Requests run in threads, ``concurrency`` at once a server. What a server
answers with trouble (a status of 429 or 5xx, no connection, half an answer, no answer in time) is
tried again after a pause, ``retries`` times; then, and at once for other errors, the server is
left out, and where there is no other the work stops with an error that says which. Prompts that are
done have been handed over by then.

Only the standard library: a request takes seconds, so connections need not be kept open, and a
request has one deadline, which reading in pieces keeps whatever the server does.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from srlm.engines.files import Problems, Sampled, choice
from srlm.errors import UserError
from srlm.types import Prompt

WAYS: tuple[dict[str, Any], ...] = (
    {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0},
    {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    {},
)
"""How nothing is cut off: vLLM and llama.cpp; SGLang; servers that know none of these words. Their
own defaults are otherwise: vLLM takes them from the model's generation_config, llama-cpp-python
samples from the likeliest 40 tokens of at least a twentieth of the likeliest's probability."""
WRONG = (400, 422)
"""Statuses by which a server says that it does not take a request of this form."""
J = TypeVar("J")
T = TypeVar("T")
ANOTHER = 1_000_003
"""Added to the seed at each try more: some servers fail at a response (llama.cpp's at one whose
bytes are no text), and would at the same one again. Such responses are lost to the samples."""
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
    ways: list[dict[str, Any]] = field(default_factory=lambda: list(WAYS))
    """Those of ``WAYS`` that it has not refused."""


class Again(Exception):
    """Trouble that may pass; ``pause`` seconds are asked for."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Refusal(UserError):
    """What a server will not do, with the ``status`` that it gave."""

    def __init__(self, problem: str, remedy: str, status: int) -> None:
        super().__init__(problem, remedy)
        self.status = status


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

    def ask(server: Server, p: int, count: int, seed: int) -> list[Sampled]:
        return _ask(server, prompts[p], count, seed)

    def where(p: int) -> str:
        return f"prompt of line {prompts[p].line}"

    yield from spread([server], iter(range(len(prompts))), count, ask, where, seed=seed)


def spread(
    servers: Sequence[Server],
    jobs: Iterator[J],
    count: int,
    ask: Callable[[Server, J, int, int], list[T]],
    where: Callable[[J], str],
    *,
    seed: int,
) -> Iterator[tuple[J, list[T]]]:
    """Each job with its ``count`` results, as they come. Few more jobs are taken than are at work.

    Args:
        servers: that are asked; the first that is free takes a job.
        ask: (server, job, how many, seed) -> results of one request.
        where: a job in words, for errors.

    Raises:
        UserError: the last server that was left fails.
    """
    todo: queue.SimpleQueue[J | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[J, Server, list[T] | BaseException]] = queue.SimpleQueue()
    stop, left = threading.Event(), {id(server) for server in servers}
    most = {id(server): count for server in servers}

    def work(server: Server) -> None:
        while (job := todo.get()) is not None:
            if id(server) not in left:
                todo.put(job)
                return
            try:
                done.put((job, server, _one(server, job, count, seed, stop, ask, where, most)))
            except BaseException as error:  # raised again where the results are read
                left.discard(id(server))  # here: it is asked no more before it is read
                if not left:
                    stop.set()
                done.put((job, server, error))

    out = 0
    threads = sum(server.concurrency for server in servers)
    for job in itertools.islice(jobs, threads):
        todo.put(job)
        out += 1
    for server in servers:
        for _ in range(min(server.concurrency, out)):
            threading.Thread(target=work, args=(server,), daemon=True).start()  # Ctrl-C waits not
    failed: BaseException | None = None
    try:
        while out and not (failed is not None and done.empty()):
            job, _, found = done.get()
            out -= 1
            if not isinstance(found, BaseException):
                yield job, found
                if failed is None and (more := next(jobs, None)) is not None:
                    todo.put(more)
                    out += 1
            elif left and isinstance(found, UserError):
                todo.put(job)
                out += 1
            else:
                failed = failed or found
    finally:
        stop.set()
        for _ in range(threads):
            todo.put(None)
    if failed is not None:
        raise failed


def _one(
    server: Server,
    job: J,
    count: int,
    seed: int,
    stop: threading.Event,
    ask: Callable[[Server, J, int, int], list[T]],
    where: Callable[[J], str],
    most: dict[int, int],
) -> list[T]:
    """All results of a job.

    Args:
        most: results that a server is asked for at once; halved where it refuses so many.
    """
    found: list[T] = []
    tries = 0
    while len(found) < count:
        asked = min(count - len(found), most[id(server)])
        try:
            found += ask(server, job, asked, seed + len(found) + ANOTHER * tries)[:asked]
            tries = 0
        except Refusal as refusal:
            if refusal.status not in WRONG or asked == 1:
                raise
            most[id(server)] = min(most[id(server)], asked // 2)
        except Again as trouble:
            tries += 1
            if tries > server.retries or stop.is_set():
                times = "once" if tries == 1 else f"{tries} times"
                raise UserError(
                    f"{server.url}: {trouble} ({times}; {where(job)})",
                    "see to the server, then give the same command: it continues where it stopped",
                ) from None
            pause = PAUSE * 2 ** (tries - 1) if trouble.pause is None else trouble.pause
            server.sleep(min(pause, LONGEST_PAUSE))
    return found


def _ask(server: Server, prompt: Prompt, count: int, seed: int) -> list[Sampled]:
    """One request."""
    asked: dict[str, Any] = {
        "model": server.model, "n": count, "max_tokens": server.max_tokens,
        "temperature": 1.0, "top_p": 1.0, "seed": request_seed(seed, prompt.id),
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
    choices = choices_of(_sent_plainly(server, kind, asked))
    problems = Problems()
    try:
        return [choice(c, prompt.id, problems) for c in choices]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Again(f"an answer that cannot be read: {short(str(error))}") from None


def _sent_plainly(server: Server, kind: str, asked: dict[str, Any]) -> Any:
    """The answer in the first of ``WAYS`` that the server takes.

    A way is given up where one token of one response is refused too: a prompt may be too long, or
    the responses too many.
    """
    while True:
        way = server.ways[0]
        try:
            return send(server, kind, asked | way)
        except Refusal as refusal:
            if refusal.status not in WRONG or not way or _takes(server, kind, asked | way):
                raise
            with suppress(ValueError):  # another thread saw it first
                server.ways.remove(way)


def _takes(server: Server, kind: str, asked: dict[str, Any]) -> bool:
    """Whether one token is given in the same words, to any prompt."""
    prompt = (
        {"messages": [{"role": "user", "content": "a"}]} if "messages" in asked else {"prompt": "a"}
    )
    try:
        send(server, kind, asked | prompt | {"n": 1, "max_tokens": 1})
    except Refusal as refusal:
        if refusal.status not in WRONG:
            raise
        return False
    return True


def choices_of(answer: Any) -> list[Any]:
    """What an answer offers.

    Raises:
        Again: it offers nothing.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Again(f"an answer without choices: {short(json.dumps(answer))}")
    return choices


def request_seed(seed: int, prompt_id: str) -> int:
    """31 bits for one request."""
    text = f"{seed} {prompt_id}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1


def send(server: Server, path: str, asked: dict[str, Any] | None = None) -> Any:
    """The JSON that a request is answered with, within the server's ``timeout``.

    Args:
        path: below the server's address; from its root where it begins with a slash.
        asked: sent; None: only read.

    Raises:
        Again: trouble that may pass.
        Refusal: the server refuses.
    """
    root = server.url.rstrip("/")
    root = root.removesuffix("/v1") if path.startswith("/") else f"{root}/"
    headers = {"Content-Type": "application/json"}
    if server.key:
        headers["Authorization"] = f"Bearer {server.key}"
    data = None if asked is None else json.dumps(asked).encode()
    request = urllib.request.Request(root + path, data, headers)
    deadline = time.monotonic() + server.timeout
    late = f"no answer within {server.timeout:g} s"
    try:
        with urllib.request.urlopen(request, timeout=server.timeout) as response:
            body = b"".join(_pieces(response, deadline, late))
    except urllib.error.HTTPError as error:
        raise _refused(server, error) from None
    except TimeoutError:
        raise Again(late) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise Again(late) from None
        raise Again(f"no connection ({error.reason})") from None
    except (http.client.HTTPException, ConnectionError) as error:
        raise Again(f"half an answer ({type(error).__name__})") from None
    try:
        return json.loads(body or "null")
    except ValueError:
        raise Again(f"no JSON: {short(body.decode(errors='replace'))}") from None


def _pieces(response: Any, deadline: float, late: str) -> Iterator[bytes]:
    while piece := response.read1(PIECE):
        yield piece
        if time.monotonic() > deadline:
            raise Again(late)
    if response.length:
        raise Again(f"half an answer ({response.length} bytes are missing)")


def _refused(server: Server, error: urllib.error.HTTPError) -> Exception:
    """Trouble that may pass, or an error that says what the server said."""
    with error:
        try:
            said = short(error.read(PIECE).decode(errors="replace"))
        except (OSError, http.client.HTTPException):
            said = ""
    status = f"status {error.code} {said}".strip()
    if error.code == 429 or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return Again(status, float(after) if after.isdecimal() else None)
    remedy = {
        401: "set OPENAI_API_KEY",
        403: "set OPENAI_API_KEY to a key that may use the model",
        404: f"check --server (it often ends in /v1) and --model {server.model}",
    }.get(error.code, "see what the server says; base models need --chat never")
    return Refusal(f"{server.url}: {status}", remedy, error.code)


def short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"

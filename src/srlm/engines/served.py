"""The sampler of a run whose samples come from OpenAI-compatible servers.

Prompts are sent as the policy's own tokens where the server takes them (vLLM, SGLang, llama.cpp's
``llama-server``), else as the text that they are after the chat template, through ``completions``.
Responses come back as token ids where the server gives them (vLLM: ``return_token_ids``; llama.cpp
beside the log-probabilities), else as the texts of their tokens, each of which is looked up, else
they are tokenized anew; then their log-probabilities are not taken, since they are those of other
tokens.

Temperature 1 and nothing cut off is asked for in the words of each kind of server
(``server.WAYS``). What a server takes is found out by one request of one token.

Before the samples of each policy the servers are given its weights: by ``reload``, a command in
which ``{policy}`` stands for their folder and after which the servers are waited for; else by
``reload_weights`` by vLLM's ``/collective_rpc`` (``VLLM_SERVER_DEV_MODE=1``). The folder must be
one that the servers see. A server that can do neither can serve the base alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from srlm.engines.base import Advance, Shard, Weights, untrusted
from srlm.engines.server import (
    WAYS,
    WRONG,
    Again,
    Refusal,
    Server,
    choices_of,
    request_seed,
    send,
    short,
    spread,
)
from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.types import Prompt, Samples, Tokens

LOST = "\N{REPLACEMENT CHARACTER}"
PIECE = {"token_ids": "id", "tokens": "token", "token_logprobs": "logprob"}
"""What llama.cpp's server says of each token, in the place of a list of each."""


class Lossy(Again):
    """A response whose bytes are no text, and whose tokens the server does not give."""


@dataclass(frozen=True, slots=True)
class Row:
    """A response."""

    tokens: Tokens
    finished: bool
    logp: float
    """As the server gives it; not-a-number where it gives none."""


@dataclass(frozen=True)
class Reading:
    """How a server's answers become tokens of a policy."""

    policy: CausalLM

    @cached_property
    def token_of(self) -> dict[str, int]:
        """The token of each text that is one token alone, of those that spell something."""
        size = self.policy.network.vocabulary
        texts = self.policy.tokenizer.batch_decode([[i] for i in range(size)])
        found: dict[str, int] = {}
        for i, text in enumerate(texts):
            if text in found or LOST in text or not text:
                found[text] = -1
            else:
                found[text] = i
        return {text: i for text, i in found.items() if i >= 0}

    @property
    def end(self) -> int:
        """The end token that is meant where a server says that a response ended."""
        own = self.policy.tokenizer.eos_token_id
        return own if own in self.policy.ends else min(self.policy.ends)

    def row(self, choice: Any) -> Row:
        """One of the choices of an answer.

        Raises:
            Lossy: another response must be asked for.
            Again: it cannot be read.
            UserError: its token ids are not the policy's.
        """
        if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
            raise Again(f"an answer that cannot be read: {short(repr(choice))}")
        told = choice.get("logprobs")
        told = told if isinstance(told, dict) else {}
        pieces = told.get("content")
        if isinstance(pieces, list) and all(isinstance(x, dict) for x in pieces):
            told = {name: [x.get(key) for x in pieces] for name, key in PIECE.items()}
            if not self._listed(told):
                told = {}
        value = told.get("token_logprobs")
        known = isinstance(value, list) and all(isinstance(x, int | float) for x in value)
        logp = [float(x) for x in value] if known and value else []
        tokens = self._tokens(choice["text"], choice.get("token_ids"), told)
        if tokens is None and LOST in choice["text"]:
            raise Lossy(f"a response whose bytes are no text: {short(choice['text'])!r}")
        if tokens is None:
            tokens, logp = self._anew(choice["text"]), []
        ended = choice.get("finish_reason") == "stop"
        return self._ended(tokens, logp, ended=ended)

    def _tokens(self, text: str, own: Any, told: dict[str, Any]) -> list[int] | None:
        for ids in (own, told.get("token_ids")):
            if isinstance(ids, list) and all(isinstance(i, int) for i in ids):
                self._check(ids, text)
                return ids
        texts = told.get("tokens")
        if isinstance(texts, list) and "".join(map(str, texts)) == text:
            found = [self.token_of.get(text, -1) for text in texts]
            if -1 not in found:
                return found
        return None

    def _listed(self, told: dict[str, Any]) -> bool:
        """Whether each token has its own text: llama.cpp leaves out those that end inside a
        character, whose text the next one has."""
        size = self.policy.network.vocabulary
        for i, text in zip(told["token_ids"], told["tokens"], strict=True):
            if isinstance(i, int) and 0 <= i < size and isinstance(text, str):
                own = self.policy.text((i,))  # a control token has none
                if own and text and _letters(own) != _letters(text):
                    return False
        return True

    def _check(self, ids: Sequence[int], text: str) -> None:
        size = self.policy.network.vocabulary
        beyond = [i for i in ids if not 0 <= i < size]
        own = "" if beyond else self.policy.text(tuple(ids))
        if beyond or (LOST not in own + text and _letters(own) != _letters(text)):
            raise UserError(
                f"the server's tokens are not those of the model: {short(repr(ids))} is "
                + (f"beyond its {size} tokens" if beyond else f"{short(own)!r} here")
                + f", {short(text)!r} there",
                "let the server serve the run's model, with its own tokenizer",
            )

    def _anew(self, text: str) -> list[int]:
        return list(self.policy.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ended(self, tokens: list[int], logp: list[float], *, ended: bool) -> Row:
        """Cut at the first end token; with one where the server left it out."""
        at = next((k for k, i in enumerate(tokens) if i in self.policy.ends), None)
        if at is not None:
            tokens, logp, ended = tokens[: at + 1], logp[: at + 1], True
        elif ended or not tokens:
            tokens, ended = [*tokens, self.end], True
        whole = len(logp) == len(tokens)
        return Row(tuple(tokens), ended, float(np.sum(logp)) if whole else np.nan)


def _letters(text: str) -> str:
    return "".join(text.split())


@dataclass(frozen=True)
class Served:
    """A sampler: see the module.

    Args:
        servers: where and how to ask; ``model`` empty: the only one that a server has.
        base: folder of the run's model: what the servers serve at first.
        reload: command that makes them serve other weights.
        logprobs: ask for log-probabilities; to some servers they cost more than the samples.
        wait: seconds until they must answer after it, or after having taken new weights.
    """

    servers: tuple[Server, ...]
    base: Path
    reload: str | None = None
    wait: float = 600.0
    logprobs: bool = True
    sleep: Callable[[float], None] = time.sleep

    def __call__(
        self, weights: Weights, shards: Iterable[Shard], advance: Advance
    ) -> Iterator[tuple[Shard, Samples]]:
        """The shards, a request a prompt."""
        policy = language_model(weights, "server")
        with whole(weights) as folder:
            first = weights.folder is not None and weights.folder.resolve() == self.base.resolve()
            self._give(folder.resolve(), first=first)
            servers = [known(server) for server in self.servers]
            reading = Reading(policy)
            some = Prompt("00", "a")
            ways = {s.url: way_of(s, policy, some) for s in servers}
            yield from self._sampled(servers, ways, reading, shards, advance)

    def _sampled(
        self,
        servers: Sequence[Server],
        ways: dict[str, Way],
        reading: Reading,
        shards: Iterable[Shard],
        advance: Advance,
    ) -> Iterator[tuple[Shard, Samples]]:
        shards = iter(shards)
        first = next(shards, None)
        if first is None:
            return
        settings, seed = first.settings, first.seed
        got: dict[int, dict[int, list[Row]]] = {}

        def jobs() -> Iterator[tuple[Shard, int]]:
            shard: Shard | None = first
            while shard is not None:
                yield from ((shard, p) for p in range(len(shard.prompts)))
                shard = next(shards, None)

        def ask(server: Server, job: tuple[Shard, int], count: int, seed: int) -> list[Row]:
            shard, p = job
            prompt = shard.prompts[p]
            asked = {
                **ways[server.url].request(prompt),
                "model": server.model,
                "n": count,
                "max_tokens": settings.max_tokens,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "seed": request_seed(seed, prompt.id),
                **({"logprobs": 1} if self.logprobs else {}),
            }
            rows: list[Row] = []
            lossy: Lossy | None = None
            for choice in choices_of(send(server, "completions", asked)):
                try:
                    rows.append(reading.row(choice))
                except Lossy as found:
                    lossy = found
            if lossy is not None and not rows:
                raise lossy
            return rows

        def where(job: tuple[Shard, int]) -> str:
            return f"prompt of line {job[0].prompts[job[1]].line}"

        each = spread(servers, jobs(), settings.per_prompt, ask, where, seed=seed)
        for (shard, p), rows in each:
            there = got.setdefault(shard.number, {})
            there[p] = rows
            advance(1)
            if len(there) == len(shard.prompts):
                yield shard, _samples(reading.policy, [there[p] for p in range(len(there))])
                del got[shard.number]

    def _give(self, folder: Path, *, first: bool) -> None:
        """Let the servers serve the weights in a folder."""
        if self.reload is not None:
            self._run(self.reload.replace("{policy}", str(folder)))
        for server in self.servers:
            if self.reload is None:
                self._rpc(server, folder, first=first)
            self._until_it_answers(server)

    def _run(self, command: str) -> None:
        """The command to its end; what it started ends with it where it does not return in time."""
        process = subprocess.Popen(
            command,
            shell=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run, not for the servers
        )
        said: bytes | None = None
        try:
            _, said = process.communicate(timeout=self.wait)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"--reload {command}: not done after {self.wait:g} s",
                "let it return when the server is started (`&`, its output to a file); it is "
                "waited for until it answers",
            ) from None
        finally:
            if said is None:
                with suppress(ProcessLookupError):  # its group may have ended meanwhile
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode:
            words = short(said.decode(errors="replace").strip())
            raise UserError(
                f"--reload {command}: ended with {process.returncode} {words}",
                "mend the command; then give the same command again: it continues",
            )

    def _rpc(self, server: Server, folder: Path, *, first: bool) -> None:
        """vLLM's hook; a server that has none can serve the base."""
        asked = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        try:
            send(replace(server, timeout=self.wait), "/collective_rpc", asked)
            send(server, "/reset_prefix_cache", {})  # it holds what the weights before made
        except Refusal as refusal:
            if not first:
                raise UserError(
                    f"{server.url}: cannot take the weights of a round: {refusal.problem}",
                    "give --reload COMMAND, or start vLLM with VLLM_SERVER_DEV_MODE=1",
                ) from None
        except Again as trouble:
            raise UserError(
                f"{server.url}: did not take the weights in {folder}: {trouble}",
                "see what the server says; it must see that folder, and have that model",
            ) from None

    def _until_it_answers(self, server: Server) -> None:
        began, trouble = time.monotonic(), ""
        while time.monotonic() - began <= self.wait:
            try:
                send(replace(server, timeout=min(server.timeout, 10.0)), "models")
                return
            except Again as error:
                trouble = str(error)
                if self.reload is None:
                    break
            self.sleep(1.0)
        raise UserError(
            f"{server.url}: {trouble}",
            "start the server, or see --server and --reload; then give the same command again",
        )


def language_model(weights: Weights, engine: str) -> CausalLM:
    """The policy that an engine is to sample.

    Raises:
        UserError: it is no language model.
    """
    policy = weights.policy
    if not isinstance(policy, CausalLM):
        raise UserError(
            f"--engine {engine} with {type(policy).__name__}: it samples language models alone",
            "use --engine local",
        )
    return policy


@contextmanager
def whole(weights: Weights) -> Iterator[Path]:
    """A Hugging Face folder of the weights: their own, or a copy where that holds adapters."""
    folder = weights.folder
    if folder is not None and (folder / "config.json").is_file():
        yield folder
        return
    with TemporaryDirectory(dir=weights.scratch, prefix="whole-") as place:
        weights.policy.save(Path(place) / "policy")
        yield Path(place) / "policy"


def known(server: Server) -> Server:
    """The server with the name of the model that it is to be asked for.

    Raises:
        UserError: it does not serve that, or several and none was named.
    """
    try:
        answer = send(server, "models")
    except Again as trouble:
        raise UserError(f"{server.url}: {trouble}", "see that the server runs") from None
    data = answer.get("data") if isinstance(answer, dict) else None
    names = [str(x["id"]) for x in data or () if isinstance(x, dict) and "id" in x]
    if server.model in names or (not server.model and len(names) == 1):
        return replace(server, model=server.model or names[0])
    what = f"serves {', '.join(names)}" if names else "names no model that it serves"
    asked = f", not {server.model}" if server.model else ""
    raise UserError(f"{server.url}: {what}{asked}", "name one of them with --served-model")


@dataclass(frozen=True, slots=True)
class Way:
    """What a server takes."""

    prompt: Callable[[Prompt], Any]
    words: dict[str, Any]

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The part of a request that is the same for all servers of the kind."""
        return {"prompt": self.prompt(prompt), **self.words}


def way_of(server: Server, policy: CausalLM, some: Prompt) -> Way:
    """Found out by asking for one token.

    Raises:
        UserError: the server takes nothing of all this, or fails.
    """
    beside = {"return_token_ids": True, "stop_token_ids": sorted(policy.ends)}
    last: Exception | None = None
    for prompt in (policy.encode, partial(rendered, policy)):
        for words in WAYS:
            way = Way(prompt, words | (beside if words else {}))
            asked = way.request(some) | {"model": server.model, "max_tokens": 1, "n": 1}
            for _ in range(server.retries + 1):
                try:
                    choices_of(send(server, "completions", asked))
                    return way
                except Refusal as refusal:
                    if refusal.status not in WRONG:
                        raise
                    last = refusal
                    break
                except Again as trouble:
                    last = UserError(f"{server.url}: {trouble}", "see what the server says")
                    server.sleep(1.0)
    assert last is not None
    raise last


def rendered(policy: CausalLM, prompt: Prompt) -> str:
    """The prompt as text, its control tokens written out."""
    return str(policy.tokenizer.decode(policy.encode(prompt)))


def _samples(policy: CausalLM, rows_P: Sequence[Sequence[Row]]) -> Samples:
    """The responses to some prompts."""
    rows = [row for rows in rows_P for row in rows]
    count_P = np.array([len(rows) for rows in rows_P])
    return untrusted(
        Samples(
            prompt_R=np.arange(len(rows_P)).repeat(count_P),
            tokens_R=tuple(row.tokens for row in rows),
            logp_R=np.array([row.logp for row in rows]),
            weight_R=(1.0 / count_P).repeat(count_P),
            finished_R=np.array([row.finished for row in rows]),
            text_R=tuple(policy.text(row.tokens) for row in rows),
        )
    )

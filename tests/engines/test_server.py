"""Samples from a server, and a server that misbehaves: errors with names, in bounded time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from srlm.cli import main
from srlm.data import prompt_id
from srlm.engines.files import open_samples
from srlm.engines.server import Server, check, sample
from srlm.errors import UserError
from srlm.types import Prompt

Answer = Callable[[Any, BaseHTTPRequestHandler], Any]
PROMPTS = [Prompt(prompt_id(f"{i}+{i}="), f"{i}+{i}=", (str(2 * i),), i + 1) for i in range(6)]


def choices(asked: Any, n: int | None = None) -> dict[str, Any]:
    """Right, or one too many every fourth time."""
    prompt = asked.get("prompt") or asked["messages"][-1]["content"]
    right = 2 * int(prompt.partition("+")[0])
    made = []
    for k in range(asked["n"] if n is None else n):
        text = f"it is {right + (k % 4 == 3)}"
        content = [{"token": t, "bytes": None, "logprob": -0.5} for t in (text[:5], text[5:])]
        made.append(
            {
                "message": {"content": text},
                "finish_reason": "stop",
                "logprobs": {"content": content},
            }
            if "messages" in asked
            else {"text": text, "finish_reason": "length"}
        )
    return {"choices": made}


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[Any]]]:
    """A server and what it was asked; ``answer`` gives a status, bytes, or an object as JSON."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
            made = answer(asked[-1], self)
            if made is None:
                return
            status, data = (made, b"trouble") if isinstance(made, int) else (200, made)
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def of(url: str, **changes: Any) -> Server:
    settings = {"retries": 2, "timeout": 5.0, "sleep": lambda seconds: None} | changes
    return Server(url, "m", **settings)


def test_every_prompt_gets_its_samples() -> None:
    with serving(lambda asked, h: choices(asked)) as (url, asked):
        server = of(url, logprobs=True, key="secret", system="short", concurrency=3)
        found = dict(sample(server, PROMPTS, 8, seed=3))
    assert sorted(found) == list(range(6))
    for p, rows in found.items():
        assert [row.text for row in rows[:2]] == [f"it is {2 * p}"] * 2
        assert {(row.key, row.logp, row.tokens, row.finished) for row in rows} == {
            (PROMPTS[p].id, -1.0, 2, True)
        }
    first = asked[0]
    assert first["path"] == "/v1/chat/completions" and first["key"] == "Bearer secret"
    assert (first["n"], first["temperature"], first["top_p"], first["model"]) == (8, 1, 1, "m")
    assert (first["top_k"], first["min_p"], first["repetition_penalty"]) == (0, 0, 1)
    assert first["messages"][0] == {"role": "system", "content": "short"}
    assert len({a["seed"] for a in asked}) == 6


def test_completions_for_base_models() -> None:
    with serving(lambda asked, h: choices(asked)) as (url, asked):
        found = dict(sample(of(url, chat=False), PROMPTS[:1], 4, seed=0))
    assert asked[0]["path"] == "/v1/completions" and asked[0]["prompt"] == "0+0="
    assert [row.finished for row in found[0]] == [False] * 4


@pytest.mark.parametrize(("given", "requests"), [(1, 4), (3, 2), (9, 1)])
def test_other_counts_than_asked_for(given: int, requests: int) -> None:
    with serving(lambda asked, h: choices(asked, given)) as (url, asked):
        found = dict(sample(of(url), PROMPTS[:1], 4, seed=0))
    assert len(found[0]) == 4 and len(asked) == requests
    assert len({a["seed"] for a in asked}) == requests


def test_servers_that_do_not_know_a_word_are_asked_without_it() -> None:
    def strict(asked: Any, h: BaseHTTPRequestHandler) -> Any:
        return 400 if "min_p" in asked else choices(asked)

    with serving(strict) as (url, asked):
        found = dict(sample(of(url, concurrency=1), PROMPTS[:3], 4, seed=0))
    assert [len(found[p]) for p in range(3)] == [4] * 3
    assert ["min_p" in a for a in asked] == [True] * 4 + [False] * 3


def refuses(asked: Any, most: int, longest: int) -> Any:
    """As a server that gives so many responses at once to prompts of so many letters."""
    prompt = asked.get("prompt") or asked["messages"][-1]["content"]
    if asked["n"] > most or len(prompt) > longest:
        return 400
    return {"choices": [{"text": "x"}]} if prompt == "a" else choices(asked)


def test_so_many_responses_as_a_server_gives_are_asked_for() -> None:
    with serving(lambda asked, h: refuses(asked, 3, 9)) as (url, asked):
        found = dict(sample(of(url, chat=False, concurrency=1), PROMPTS[:2], 8, seed=0))
    assert [len(found[p]) for p in range(2)] == [8, 8]
    assert [a["n"] for a in asked if a["max_tokens"] > 1] == [8, 4, *[2] * 8]
    assert all(a["top_k"] == 0 for a in asked)
    sent = [(a["prompt"], a["seed"]) for a in asked if a["n"] == 2]
    assert len(set(sent)) == len(sent)


def test_a_prompt_that_is_refused_is_no_word_that_is_not_known() -> None:
    long = Prompt("0", "2+2=" + " " * 9, (), 9)
    with (
        serving(lambda asked, h: refuses(asked, 9, 9)) as (url, asked),
        pytest.raises(UserError, match="400"),
    ):
        list(sample(of(url, chat=False, concurrency=1), [*PROMPTS[:1], long], 1, seed=0))
    assert all(a["top_k"] == 0 for a in asked) and len(asked) == 3


def half(asked: Any, h: BaseHTTPRequestHandler) -> None:
    h.send_response(200)
    h.send_header("Content-Length", "1000")
    h.end_headers()
    h.wfile.write(b'{"choices": [')


def dribble(asked: Any, h: BaseHTTPRequestHandler) -> None:
    h.send_response(200)
    h.send_header("Content-Length", "1000")
    h.end_headers()
    for _ in range(30):
        h.wfile.write(b" ")
        time.sleep(0.05)


def stall(asked: Any, h: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)


TROUBLE: dict[str, tuple[Answer, str]] = {
    "500": (lambda asked, h: 500, "500"),
    "429": (lambda asked, h: 429, "429"),
    "half an answer": (half, "half an answer"),
    "stall": (stall, "no answer within"),
    "dribble": (dribble, "no answer within"),
    "no choices": (lambda asked, h: {"choices": []}, "without choices"),
    "no text": (lambda asked, h: {"choices": [{"text": 5}]}, "cannot be read"),
    "no object": (lambda asked, h: {"choices": [None]}, "cannot be read"),
    "no JSON": (lambda asked, h: b"<html>", "no JSON"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_tried_again_and_named(name: str) -> None:
    answer, named = TROUBLE[name]
    with serving(answer) as (url, asked), pytest.raises(UserError) as error:
        list(sample(of(url, timeout=0.2), PROMPTS[:1], 2, seed=0))
    assert named in error.value.problem and "3 times" in error.value.problem
    assert len(asked) == 3


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_passes_is_no_trouble(name: str) -> None:
    answer, _ = TROUBLE[name]
    told: list[int] = []

    def once(asked: Any, h: BaseHTTPRequestHandler) -> Any:
        told.append(1)
        return answer(asked, h) if len(told) == 1 else choices(asked)

    with serving(once) as (url, _):
        assert len(dict(sample(of(url, timeout=0.2), PROMPTS[:1], 2, seed=0))[0]) == 2


@pytest.mark.parametrize(("status", "remedy"), [(400, "--chat"), (401, "KEY"), (404, "--model")])
def test_a_refusal_is_said_at_once(status: int, remedy: str) -> None:
    with serving(lambda asked, h: status) as (url, asked), pytest.raises(UserError) as error:
        list(sample(of(url), PROMPTS[:1], 2, seed=0))
    assert str(status) in error.value.problem and "trouble" in error.value.problem
    assert remedy in error.value.remedy
    # three ways, two of them tried on a token more; then one response
    assert len(asked) == (6 if status == 400 else 1)


def test_no_server_is_named() -> None:
    with serving(lambda asked, h: 500) as (url, _):
        pass
    with pytest.raises(UserError, match="no connection"):
        list(sample(of(url), PROMPTS[:2], 2, seed=0))


def test_a_response_that_a_server_fails_at_is_not_asked_for_again() -> None:
    first: list[int] = []

    def fails(asked: Any, h: BaseHTTPRequestHandler) -> Any:
        first.append(asked["seed"])
        return 500 if asked["seed"] == first[0] else choices(asked)

    with serving(fails) as (url, _):
        found = dict(sample(of(url), PROMPTS[:1], 2, seed=0))
    assert len(found[0]) == 2 and len(set(first)) == 2


def test_a_pause_that_is_asked_for_is_kept() -> None:
    slept: list[float] = []

    def busy(asked: Any, h: BaseHTTPRequestHandler) -> None:
        h.send_response(429)
        h.send_header("Retry-After", "7")
        h.send_header("Content-Length", "0")
        h.end_headers()

    with serving(busy) as (url, _), pytest.raises(UserError):
        list(sample(of(url, sleep=slept.append), PROMPTS[:1], 2, seed=0))
    assert slept == [7.0, 7.0]


def test_what_cannot_be_asked_is_refused_before() -> None:
    with pytest.raises(UserError, match="http"):
        check(of("localhost:8000"), PROMPTS)
    with pytest.raises(UserError, match="line 9"):
        check(of("http://x", chat=False), [Prompt("0", [{"role": "user", "content": "a"}], (), 9)])
    with pytest.raises(UserError, match="line 9"):
        check(of("http://x"), [Prompt("0", [1.0, 2.0], (), 9)])


# ---- the command


def srlm(monkeypatch: pytest.MonkeyPatch, *words: Any) -> int:
    monkeypatch.setattr("sys.argv", ["srlm", "forecast", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "p.jsonl"
    rows = [{"prompt": x.content, "answer": x.answers[0]} for x in PROMPTS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_what_was_done_is_kept_and_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A server that fails after two prompts; then the same command, and one without a break."""
    failing = True

    def answer(asked: Any, h: BaseHTTPRequestHandler) -> Any:
        return 500 if failing and len(log) > 2 else choices(asked)

    out = tmp_path / "out"
    words = ["--prompts", prompts, "--model", "m", "--samples", 8, "--max-tokens", 9, "--reward",
             "all", "--rounds", 2, "--retries", 0, "--concurrency", 1, "-q"]  # fmt: skip
    with serving(answer) as (url, log):
        assert srlm(monkeypatch, *words, "--out", out, "--server", url) == 2
        assert "500" in capsys.readouterr().err
        kept = {p: p.read_bytes() for p in (out / "samples").glob("*.parquet")}
        assert len(kept) == 2
        assert len(list(open_samples(out))) == 16  # what is there can be forecast
        failing = False
        asked = len(log)
        assert not srlm(monkeypatch, *words, "--out", out, "--server", url)
        assert len(log) - asked == 4
        assert not srlm(monkeypatch, *words, "--out", tmp_path / "whole", "--server", url)
        assert not srlm(monkeypatch, *words, "--out", out, "--server", "http://127.0.0.1:9/v1")
        other = [*words, "--out", out, "--server", url, "--seed", 5]
        assert srlm(monkeypatch, *other) == 2 and "seed" in capsys.readouterr().err
    assert all(p.read_bytes() == data for p, data in kept.items())
    made, whole = (json.loads((x / "forecast.json").read_text()) for x in (out, tmp_path / "whole"))
    made.pop("file"), whole.pop("file")
    assert made == whole
    assert made["base"]["accuracy"]["value"] == pytest.approx(0.75, abs=0.03)
    assert [p["reward"] for p in made["paths"]][3:] == ["likelihood", "likelihood-per-token"]


def test_rewards_that_need_the_model_are_refused(
    monkeypatch: pytest.MonkeyPatch, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompts", prompts, "--model", "m", "--server", "http://127.0.0.1:9/v1", "-q"]
    assert srlm(monkeypatch, *words, "--reward", "judge") == 2
    assert "judge" in capsys.readouterr().err
    assert not srlm(monkeypatch, *words, "--reward", "consistency", "--dry-run")
    assert srlm(monkeypatch, *words, "--reward", "consistency", "--budget", "1m") == 2

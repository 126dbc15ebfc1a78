"""A run whose samples come from a server: the tokens, the weights, and what may go wrong."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from srlm.cli import app
from srlm.config import SampleSettings
from srlm.engines import base
from srlm.engines.base import Engine, MemoryShelf, Shelf, drawn
from srlm.engines.served import Lossy, Reading, Served
from srlm.engines.server import Server
from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.run_folder import read_run
from srlm.run_folder.tables import read_samples
from srlm.runner import run
from srlm.samples import sample
from srlm.types import Samples
from tests import tiny
from tests.engines.serving import serving

SETTINGS = SampleSettings(per_prompt=4, max_tokens=5)
PROMPTS = tiny.texts(6)


@dataclass
class Fake:
    """A server of a policy, as vLLM answers."""

    policy: CausalLM
    ids: bool = True
    """Takes and gives token ids."""
    off: float | None = 0.0
    """Nats a response; None: no log-probabilities."""
    given: int | None = None
    """Choices of an answer; None: as many as are asked for."""
    slots: int = 99
    """More are refused."""
    names: tuple[str, ...] = ("m",)
    trouble: Callable[[int], Any] = lambda count: None
    """By the number of the request for samples: a status or bytes in the answer's place."""
    rpc: bool = True
    asked: list[Any] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def answer(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": name} for name in self.names]}
        if path == "/collective_rpc":
            if not self.rpc:
                return 404
            self.loaded.append(body["kwargs"]["weights_path"])
            self.policy = load(Path(self.loaded[-1]))
            return None
        if path == "/reset_prefix_cache":
            self.loaded.append("reset")
            return None
        if isinstance(body["prompt"], list) and not self.ids:
            return 422
        if body["n"] > self.slots:
            return 400
        self.asked.append(body)
        if (wrong := self.trouble(len(self.asked))) is not None:
            return wrong
        text = body["prompt"]
        if isinstance(text, list):
            text = self.policy.tokenizer.decode(text)
        (prompt,) = tiny.prompts([text])
        n = body["n"] if self.given is None else self.given
        found = sample(
            self.policy,
            [prompt],
            SampleSettings(per_prompt=max(2, n), max_tokens=body["max_tokens"]),
            body.get("seed", 0),
        )
        return {"choices": [self.choice(found, r) for r in range(n)]}

    def choice(self, found: Samples, r: int) -> dict[str, Any]:
        logp = list(map(float, found.token_logp_R[r]))
        words = [tiny.WORDS[i] for i in found.tokens_R[r]]
        out: dict[str, Any] = {"text": found.text_R[r]}
        out["finish_reason"] = "stop" if found.finished_R[r] else "length"
        if not self.ids and found.finished_R[r]:
            logp, words = logp[:-1], words[:-1]
        if self.off is not None and logp:
            logp[0] += self.off
        if self.off is not None:
            out["logprobs"] = {"tokens": words, "token_logprobs": logp}
        if self.ids:
            out["token_ids"] = list(found.tokens_R[r])
        return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture
def policy(folder: Path) -> CausalLM:
    made = load(folder)
    assert isinstance(made, CausalLM)
    return made


def engine(folder: Path, *urls: str, **changes: Any) -> Engine:
    settings: dict[str, Any] = {"retries": 1, "timeout": 5.0, "sleep": lambda seconds: None}
    model = changes.pop("model", "")
    own = {k: changes.pop(k) for k in ("reload", "wait") if k in changes}
    servers = tuple(Server(url, model, **settings | changes) for url in urls)
    return Engine(Served(servers, folder, **own), "server", rescored=0.5)


def taken(made: Engine, policy: CausalLM, folder: Path, shelf: Shelf | None = None) -> Samples:
    shelf = shelf or MemoryShelf(folder)
    return Samples.joined(list(drawn(made, policy, PROMPTS, SETTINGS, 3, shelf)))


@pytest.mark.parametrize("ids", [True, False])
def test_responses_are_the_policys_tokens(policy: CausalLM, folder: Path, ids: bool) -> None:
    fake = Fake(load(folder), ids=ids)
    with serving(fake) as url:
        found = taken(engine(folder, url), policy, folder)
    assert list(found.prompt_R) == [p for p in range(6) for _ in range(4)]
    own = policy.log_prob(PROMPTS, found.prompt_R, found.tokens_R)
    assert found.gap_R is not None
    assert found.logp_R == pytest.approx(own, abs=1e-4)
    if ids:
        assert np.abs(found.gap_R[np.isfinite(found.gap_R)]).max() < 1e-4
        assert np.isfinite(found.gap_R).sum() == 12
        assert [t[-1] in policy.ends for t in found.tokens_R] == list(found.finished_R)
    else:  # the log-probability of the end was not given
        assert np.isinf(found.gap_R[found.finished_R]).all()
    asked = fake.asked[-1]
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["min_p"]) == (1, 1, 0, 0)
    assert fake.loaded == [str(folder.resolve()), "reset"]


def test_two_servers_share_the_prompts_and_one_may_fail(policy: CausalLM, folder: Path) -> None:
    good, bad = Fake(load(folder)), Fake(load(folder), trouble=lambda k: 500 if k > 2 else None)
    with serving(good) as one, serving(bad) as two:
        found = taken(engine(folder, one, two, concurrency=1), policy, folder)
    assert len(found) == 24 and len(good.asked) + 2 >= 6


def test_more_choices_than_a_server_gives_are_asked_for_in_parts(
    policy: CausalLM, folder: Path
) -> None:
    fake = Fake(load(folder), slots=3)
    with serving(fake) as url:
        found = taken(engine(folder, url), policy, folder)
    assert list(np.bincount(found.prompt_R)) == [4] * 6
    assert {a["n"] for a in fake.asked} == {1, 2}


@pytest.mark.parametrize("given", [1, 3])
def test_too_few_choices_are_asked_for_again(policy: CausalLM, folder: Path, given: int) -> None:
    with serving(Fake(load(folder), given=given)) as url:
        found = taken(engine(folder, url), policy, folder)
    assert list(np.bincount(found.prompt_R)) == [4] * 6


@pytest.mark.parametrize("whole", [0, 1])
def test_a_response_whose_bytes_are_no_text_is_asked_for_again(
    policy: CausalLM, folder: Path, whole: int
) -> None:
    choices = [{"text": "\ufffd"}, *[{"text": "a", "finish_reason": "stop"}] * whole]
    fake = Fake(
        load(folder),
        ids=False,
        trouble=lambda k: json.dumps({"choices": choices}).encode() if k in (2, 4) else None,
    )
    with serving(fake) as url:
        found = taken(engine(folder, url, concurrency=1), policy, folder)
    assert list(np.bincount(found.prompt_R)) == [4] * 6
    assert fake.asked[2]["n"] == 4 - whole


def test_log_probabilities_that_are_off_are_replaced(policy: CausalLM, folder: Path) -> None:
    for off in (0.6, None):
        with serving(Fake(load(folder), off=off)) as url:
            found = taken(engine(folder, url), policy, folder)
        own = policy.log_prob(PROMPTS, found.prompt_R, found.tokens_R)
        assert found.logp_R == pytest.approx(own, abs=1e-4)
        assert found.gap_R is not None
        assert found.gap_R == pytest.approx(-off if off else np.inf, abs=1e-4)


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no choices": ({"trouble": lambda k: b'{"choices": []}' if k > 1 else None}, {}, "without"),
    "nonsense": ({"trouble": lambda k: b"<html>"}, {}, "no JSON"),
    "no text": ({"trouble": lambda k: b'{"choices": [{}]}' if k > 1 else None}, {}, "read"),
    "failing": ({"trouble": lambda k: 500 if k > 2 else None}, {}, "500"),
    "refusing": ({"trouble": lambda k: 400}, {}, "400"),
    "other name": ({"names": ("x",)}, {"model": "m"}, "serves x, not m"),
    "several": ({"names": ("x", "y")}, {}, "serves x, y"),
    "nothing": ({"names": ()}, {}, "names no model"),
    "reload fails": ({}, {"reload": "echo broken >&2; exit 3"}, "broken"),
    "reload stalls": ({}, {"reload": "sleep 5", "wait": 0.2}, "not done"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_have_names(policy: CausalLM, folder: Path, name: str) -> None:
    of_server, of_engine, word = FAULTS[name]
    with serving(Fake(load(folder), **of_server)) as url, pytest.raises(UserError, match=word):
        taken(engine(folder, url, **of_engine), policy, folder)


@pytest.mark.parametrize("command", ["sleep 0.6; touch {}", "(sleep 0.6; touch {}) &"])
def test_what_a_reload_started_ends_with_it(
    policy: CausalLM, folder: Path, tmp_path: Path, command: str
) -> None:
    """Also where its shell is done and what it started holds its output."""
    late = tmp_path / "late"
    how = {"reload": command.format(late), "wait": 0.2}
    with serving(Fake(load(folder))) as url, pytest.raises(UserError, match="not done"):
        taken(engine(folder, url, **how), policy, folder)
    time.sleep(0.7)
    assert not late.exists()


def test_a_server_that_is_not_there_or_stalls_is_named(policy: CausalLM, folder: Path) -> None:
    with serving(Fake(load(folder))) as url:
        pass
    with pytest.raises(UserError, match="connection"):
        taken(engine(folder, url), policy, folder)
    stalls = Fake(load(folder), trouble=lambda k: time.sleep(0.3))
    with serving(stalls) as url, pytest.raises(UserError, match="no answer within"):
        taken(engine(folder, url, timeout=0.1), policy, folder)


def test_tokens_of_another_vocabulary_are_named(policy: CausalLM) -> None:
    reading = Reading(policy)
    for ids, text in (([4, 99], "a"), ([4], "b")):
        with pytest.raises(UserError, match="tokens are not those"):
            reading.row({"text": text, "token_ids": ids, "finish_reason": "stop"})
    row = reading.row({"text": "abz", "finish_reason": "length"})  # z is no token: anew
    assert row.tokens == (4, 5, tiny.UNKNOWN) and np.isnan(row.logp) and not row.finished
    pieces = [{"id": i, "token": w, "logprob": -0.5} for i, w in ((4, "a"), (tiny.EOS, ""))]
    told = reading.row({"text": "a", "finish_reason": "stop", "logprobs": {"content": pieces}})
    assert (told.tokens, told.logp, told.finished) == ((4, tiny.EOS), -1.0, True)  # llama.cpp
    pieces[1] = {"id": 5, "token": "zb", "logprob": -0.5}  # a token is missing before it
    anew = reading.row({"text": "azb", "finish_reason": "length", "logprobs": {"content": pieces}})
    assert anew.tokens == (4, tiny.UNKNOWN, 5) and np.isnan(anew.logp)
    pieces[1]["token"] = "\ufffdb"  # and its bytes are no text
    with pytest.raises(Lossy):
        reading.row({"text": "a\ufffdb", "logprobs": {"content": pieces}})
    cut = reading.row({"text": "ab", "token_ids": [4, tiny.EOS, 5], "finish_reason": "length"})
    assert cut.tokens == (4, tiny.EOS) and cut.finished


def test_a_run_by_a_server_that_takes_each_rounds_weights(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by the server's failure, taken up, and from its samples alone the same bytes."""
    monkeypatch.setattr(base, "_rows", lambda policy, tokens: 8)
    tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(16), ["a"] * 16)
    config = tiny.config(folder, tmp_path / "p.jsonl", rounds=2)
    failing = True
    fake = Fake(load(folder), trouble=lambda k: 500 if failing and k > 8 else None)
    with serving(fake) as url:
        made = {"kind": "server", "url": url, "retries": 0, "concurrency": 1, "rescore": 0.9}
        served = config.model_copy(update={"engine": config.engine.model_copy(update=made)})
        with pytest.raises(UserError, match="500"):
            run(served, tmp_path / "run")
        kept = list((tmp_path / "run/rounds/000/shards/samples").glob("*.parquet"))
        assert len(kept) == 3  # 7 requests for samples, 2 a shard
        failing, before = False, len(fake.asked)
        run(served, tmp_path / "run")
        assert len(fake.asked) - before < 2 * 16
    assert not (tmp_path / "run/rounds/000/shards").exists()
    assert fake.loaded[-2:] == [str((tmp_path / "run/rounds/001/policy").resolve()), "reset"]
    record = read_run(tmp_path / "run").rounds[1]
    assert record.rewards is not None
    assert record.rewards["facts"]["engine: |gap|, nats"] < 1e-4
    assert record.rewards["facts"]["engine: checked"] == 1.0  # ceil(.9 * 8) of 8


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    """A round whose samples are there, gone on with by another engine than made them."""
    tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(10), ["a"] * 10)
    config = tiny.config(folder, tmp_path / "p.jsonl", rounds=1)
    with serving(Fake(load(folder), off=0.6)) as url:
        made = {"kind": "server", "url": url, "retries": 0}
        run(
            config.model_copy(update={"engine": config.engine.model_copy(update=made)}),
            tmp_path / "one",
        )
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two/rounds/001")
    for name in ("pairs.parquet", "rewards.json"):
        (tmp_path / "two/rounds/000" / name).unlink()
    run(config, tmp_path / "two")  # here, and no server is there any more
    names = ["000/samples.parquet", "000/pairs.parquet", "000/rewards.json"]
    names += ["001/policy/model.safetensors", "001/round.json", "001/held_out.parquet"]
    for name in names:
        one, two = (tmp_path / x / "rounds" / name for x in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name


@pytest.mark.parametrize(
    "words", [["measure"], ["forecast"], ["forecast", "--reward", "consistency"]]
)
def test_a_forecast_of_a_servers_samples(folder: Path, tmp_path: Path, words: list[str]) -> None:
    """The model is here too: it searches, and its log-probabilities are the ones that count."""
    prompts = tiny.write_prompts(tmp_path / "p.jsonl", PROMPTS, ["a"] * len(PROMPTS))
    command = [*words, "--model", str(folder), "--prompts", str(prompts), "--max-tokens", "4"]
    command += ["--samples", "8", "--answer", "text", "-q", "--out", str(tmp_path / "out")]
    fake = Fake(load(folder))
    with serving(fake) as url:
        more = ["--engine", "server", "--server", url, "--rescore", "1"]
        done = CliRunner().invoke(app, [*command, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        with pytest.raises(UserError, match="engine"):  # its samples are no others'
            CliRunner().invoke(app, command, catch_exceptions=False)
    parts = [read_samples(p) for p in sorted((tmp_path / "out/samples").glob("*.parquet"))]
    found = Samples.joined(parts)
    assert len(found) == 8 * len(PROMPTS)
    assert found.gap_R is not None and not np.isnan(found.gap_R).any()  # all are scored here
    policy = load(folder)
    made = [policy.log_prob(PROMPTS, x.prompt_R, x.tokens_R) for x in parts]
    assert found.logp_R == pytest.approx(np.concatenate(made), abs=1e-4)

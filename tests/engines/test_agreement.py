"""Do samples from a server have the policy's distribution? Tested against it, exactly.

The model is so small that every response can be written down with its probability. A server that
samples from it by transformers' ``generate`` serves a run and a forecast, and what they kept is
tested four ways; a server that cuts off, sharpens, or serves other weights fails the same test.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2, norm
from transformers import AutoModelForCausalLM, AutoTokenizer

from srlm.cli import main
from srlm.engines.files import open_samples
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.run_folder import read_run
from srlm.types import Prompt
from tests import tiny
from tests.engines.serving import serving

pytestmark = pytest.mark.slow

LENGTH, SAMPLES = 3, 300
LEAST = 5.0
"""Expected count of a cell of a chi-square test, at least."""
PROMPTS = tiny.texts(10)
AGREES, DIFFERS = 0.01, 1e-6
"""A p-value over one and under the other: the same distribution, another."""

Chances = Mapping[Any, float]
"""Probability of each response to a prompt."""


# ---- the test


def exact(policy: CausalLM, prompt: Prompt) -> Chances:
    """Every response of at most ``LENGTH`` tokens with its probability."""
    open_, whole = [()], []
    for _ in range(LENGTH):
        grown = [(*y, i) for y in open_ for i in range(policy.network.vocabulary)]
        whole += [y for y in grown if y[-1] in policy.ends]
        open_ = [y for y in grown if y[-1] not in policy.ends]
    whole += open_
    logp_M = policy.log_prob([prompt], np.zeros(len(whole), dtype=int), whole)
    assert np.exp(logp_M).sum() == pytest.approx(1.0, abs=1e-5)
    return dict(zip(whole, np.exp(logp_M), strict=True))


def seen_as(of: Callable[[Any], Any], chances: Chances) -> dict[Any, float]:
    """The distribution of a function of the response."""
    out: dict[Any, float] = {}
    for response, p in chances.items():
        out[of(response)] = out.get(of(response), 0.0) + p
    return out


def chi_square(counts: Mapping[Any, int], chances: Mapping[Any, float]) -> tuple[float, int]:
    """Statistic and degrees of freedom; cells that expect less than ``LEAST`` together."""
    n = sum(counts.values())
    cells = sorted(chances, key=lambda key: -chances[key])
    big = [key for key in cells if n * chances[key] >= LEAST]
    seen = np.array([counts.get(key, 0) for key in big], dtype=float)
    expected = n * np.array([chances[key] for key in big])
    seen, expected = np.append(seen, n - seen.sum()), np.append(expected, n - expected.sum())
    if expected[-1] < LEAST:
        seen[-2] += seen[-1]
        expected[-2] += expected[-1]
        seen, expected = seen[:-1], expected[:-1]
    return float(((seen - expected) ** 2 / expected).sum()), len(seen) - 1


VIEWS: dict[str, Callable[[Any], Any]] = {
    "response": lambda y: y,
    "first token": lambda y: y[:1],
    "length": len,
}


def p_values(
    responses_P: Sequence[Sequence[Any]], chances_P: Sequence[Chances]
) -> dict[str, float]:
    """Of samples from exactly these distributions: chi-square of responses, their first tokens and
    their lengths, added over prompts, and the mean of log pi(y) against its expectation."""
    out = {}
    for name, of in VIEWS.items():
        found = [
            chi_square(Counter(map(of, some)), seen_as(of, chances))
            for some, chances in zip(responses_P, chances_P, strict=True)
        ]
        out[name] = float(chi2.sf(sum(x for x, _ in found), sum(free for _, free in found)))
    off, variance = 0.0, 0.0
    for some, chances in zip(responses_P, chances_P, strict=True):
        p_M = np.array(list(chances.values()))
        mean = float(p_M @ np.log(p_M))
        off += float(np.mean([math.log(chances[y]) for y in some])) - mean
        variance += (float(p_M @ np.log(p_M) ** 2) - mean**2) / len(some)
    out["log-probability"] = float(2 * norm.sf(abs(off) / math.sqrt(variance)))
    return out


def p_value(responses_P: Sequence[Sequence[Any]], chances_P: Sequence[Chances]) -> float:
    """The least of ``p_values`` times their number (Bonferroni)."""
    found = p_values(responses_P, chances_P)
    return min(1.0, len(found) * min(found.values()))


# ---- a server that samples by generate


@dataclass
class Generating:
    """A server of a folder's model. Its own words are as small as llama.cpp's are beside a real
    vocabulary: ``top_k`` of 12 tokens."""

    folder: Path
    ids: bool = True
    """Takes and gives token ids, as vLLM; else text, as llama.cpp."""
    heeds: bool = True
    """Samples as it is asked to."""
    temperature: float = 1.0
    top_k: int = 6
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.network = AutoModelForCausalLM.from_pretrained(self.folder)
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)

    def answer(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": "m"}]}
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return 404
        if "messages" in body:
            asked = self.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_dict=False
            )
        elif isinstance(body["prompt"], str):
            asked = self.tokenizer(body["prompt"])["input_ids"]
        elif self.ids:
            asked = body["prompt"]
        else:
            return 422
        with self._lock, torch.random.fork_rng(devices=[]):
            torch.manual_seed(body.get("seed", 0))
            rows = self.sample(asked, body)
        chat = "messages" in body
        return {"choices": [self.choice(row, chat) for row in rows]}

    def sample(self, prompt: list[int], body: Any) -> list[list[int]]:
        own = {"temperature": self.temperature, "top_k": self.top_k, "top_p": 1.0}
        heard = {k: body[k] for k in own if k in body} if self.heeds else {}
        made = self.network.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=True,
            num_return_sequences=body["n"],
            max_new_tokens=body["max_tokens"],
            eos_token_id=tiny.EOS,
            pad_token_id=tiny.PAD,
            **own | heard,
        )
        rows = made[:, len(prompt) :].tolist()
        return [y[: y.index(tiny.EOS) + 1] if tiny.EOS in y else y for y in rows]

    def choice(self, row: list[int], chat: bool) -> dict[str, Any]:
        text = self.tokenizer.decode(row, skip_special_tokens=True)
        out: dict[str, Any] = {"finish_reason": "stop" if row[-1] == tiny.EOS else "length"}
        if chat:
            return out | {"message": {"role": "assistant", "content": text}}
        return out | {"text": text} | ({"token_ids": row} if self.ids else {})


# ---- what is kept


def srlm(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr("sys.argv", ["srlm", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code


Kept = dict[str, list[Any]]
"""Responses by prompt."""


def of_a_run(mp: pytest.MonkeyPatch, place: Path, folder: Path, server: Generating) -> Kept:
    """The training samples of ``srlm run --engine server``: tokens, or texts from a server that
    gives no tokens."""
    words = {
        "--model": folder, "--prompts": prompts_file(place), "--out": place / "run",
        "--engine": "server", "--retries": 0, "--rounds": 1, "--samples": SAMPLES,
        "--max-tokens": LENGTH, "--held-out": 0.3, "--measure-samples": 4, "--measure-nodes": 1,
        "--reward": "likelihood", "--lr": 1e-3, "--epochs": 1,
    }  # fmt: skip
    with serving(server) as url:
        srlm(mp, "run", *(w for pair in words.items() for w in pair), "--server", url, "-q")
    out: Kept = {}
    for rows in read_run(place / "run").by_prompt(0, "samples.parquet"):
        own = [tuple(row["tokens"]) if server.ids else row["text"] for row in rows]
        out[rows[0]["prompt_id"]] = own
    return out


def of_a_forecast(mp: pytest.MonkeyPatch, place: Path, chat: str, server: Generating) -> Kept:
    """The texts of ``srlm forecast --server``."""
    words = {
        "--model": "m", "--prompts": prompts_file(place), "--out": place / "out", "--chat": chat,
        "--retries": 0, "--rounds": 1, "--samples": SAMPLES, "--max-tokens": LENGTH,
        "--reward": "consistency", "--answer": "text",
    }  # fmt: skip
    with serving(server) as url:
        srlm(mp, "forecast", *(w for pair in words.items() for w in pair), "--server", url, "-q")
    out: Kept = {}
    for row in open_samples(place / "out"):
        out.setdefault(row.key, []).append(row.text)
    return out


def prompts_file(place: Path) -> Path:
    return tiny.write_prompts(place / "p.jsonl", PROMPTS)


@dataclass(frozen=True)
class Model:
    """A folder, and what its policy says."""

    folder: Path
    policy: CausalLM
    chances: dict[str, Chances]
    """By prompt."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Model]:
    """Without a chat template and with one."""
    out = {}
    for chat in (False, True):
        words = tiny.tokenizer(template=tiny.TEMPLATE if chat else None)
        folder = tiny.saved(tmp_path_factory.mktemp("models") / "m", words=words)
        policy = load(folder)
        assert isinstance(policy, CausalLM) and policy.chat == chat
        out[chat] = Model(folder, policy, {x.id: exact(policy, x) for x in PROMPTS})
    return out


WAYS = {"run, tokens": True, "run, texts": False, "forecast": False, "forecast, chat": False}
"""Whether the server speaks in tokens."""
FAULTS: dict[str, dict[str, Any]] = {
    "cut off": {"heeds": False},
    "colder": {"heeds": False, "top_k": 0, "temperature": 0.8},
}


def p_of(way: str, mp: pytest.MonkeyPatch, place: Path, model: Model, server: Generating) -> float:
    """p-value of what a run or a forecast kept of the server's samples."""
    policy = model.policy

    def anew(y: Any) -> str:
        ids = policy.tokenizer(policy.text(y), add_special_tokens=False)["input_ids"]
        return policy.text(ids)

    if way.startswith("run"):
        kept = of_a_run(mp, place, model.folder, server)
        of: Callable[[Any], Any] = (lambda y: y) if server.ids else anew
    else:
        kept = of_a_forecast(mp, place, "auto" if policy.chat else "never", server)
        of = policy.text
    assert len(kept) >= 4 and all(len(rows) == SAMPLES for rows in kept.values())
    return p_value(list(kept.values()), [seen_as(of, model.chances[x]) for x in kept])


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_samples_by_generate_agrees(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: dict[bool, Model], way: str
) -> None:
    model = models[way.endswith("chat")]
    server = Generating(model.folder, WAYS[way])
    assert p_of(way, monkeypatch, tmp_path, model, server) > AGREES


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        *(("run, tokens", fault) for fault in (*FAULTS, "other weights")),
        ("run, texts", "other weights"),
        ("forecast", "colder"),
        ("forecast, chat", "cut off"),
    ],
)
def test_one_that_samples_otherwise_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    models: dict[bool, Model],
    way: str,
    fault: str,
) -> None:
    model = models[way.endswith("chat")]
    served = model.folder
    if fault == "other weights":  # each is 10% off
        network = AutoModelForCausalLM.from_pretrained(served)
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(1.1)
        served = tmp_path / "other"
        network.save_pretrained(served)
        model.policy.tokenizer.save_pretrained(served)
    server = Generating(served, WAYS[way], **FAULTS.get(fault, {}))
    assert p_of(way, monkeypatch, tmp_path, model, server) < DIFFERS


def test_the_test_is_right_as_often_as_it_says(models: dict[bool, Model]) -> None:
    """p-values of samples that are drawn from the distributions themselves."""
    rng = np.random.default_rng(0)
    some = list(models[False].chances.values())
    times = 200
    found: dict[str, int] = dict.fromkeys([*VIEWS, "log-probability"], 0)
    for _ in range(times):
        drawn_P = []
        for chances in some:
            keys, p_M = list(chances), np.array(list(chances.values()))
            drawn_P.append([keys[m] for m in rng.choice(len(keys), SAMPLES, p=p_M / p_M.sum())])
        for name, p in p_values(drawn_P, some).items():
            found[name] += p < 0.1
    low, high = binom.interval(0.999, times, 0.1)
    assert all(low <= count <= high for count in found.values()), found

"""The worker processes of vLLM, with stand-ins for them: shares, deaths, stalls, nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srlm.config import RunConfig, SampleSettings
from srlm.engines import base, opened
from srlm.engines.base import Engine, drawn
from srlm.engines.vllm import Vllm, require_vllm
from srlm.errors import UserError
from srlm.policies.hf import CausalLM
from srlm.policies.load import load
from srlm.run_folder.shelf import FolderShelf
from srlm.types import Samples
from tests import tiny
from tests.engines.worker import (
    DIES,
    FAILS,
    GIVES_NONSENSE,
    GIVES_ONE,
    STALLS,
    stand_in,
)

SETTINGS = SampleSettings(per_prompt=2, max_tokens=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(autouse=True)
def one_prompt_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_rows", lambda policy, tokens: 2)
    monkeypatch.setattr(base, "FOREIGN", 100.0)


def taken(vllm: Vllm, folder: Path, place: Path, lengths: list[int]) -> Samples:
    policy = load(folder)
    assert isinstance(policy, CausalLM)
    prompts = tiny.prompts(["abcdefgh"[k % 8] * n for k, n in enumerate(lengths)])
    engine = Engine(vllm, "vllm", rescored=1.0)
    return Samples.joined(
        list(drawn(engine, policy, prompts, SETTINGS, 0, FolderShelf(place / "shards", folder)))
    )


@pytest.mark.parametrize("gpus", [(None,), (None, None)])
def test_workers_share_the_shards(folder: Path, tmp_path: Path, gpus: Any) -> None:
    vllm = Vllm(gpus=gpus, anew=len(gpus) == 1, work=stand_in)
    try:
        for t in range(2):  # the second time it is loaded into the same workers
            found = taken(vllm, folder, tmp_path / str(t), [1, 2, 3])
            assert list(found.prompt_R) == [0, 0, 1, 1, 2, 2]
            assert found.tokens_R == ((4, tiny.EOS),) * 6 and found.finished_R.all()
            own = load(folder).log_prob(
                tiny.prompts(["a", "bb", "ccc"]), found.prompt_R, found.tokens_R
            )
            assert found.logp_R == pytest.approx(own, abs=1e-4)
            assert found.gap_R == pytest.approx(own + 1.0, abs=1e-4)
        assert len(vllm._workers) == len(gpus)
    finally:
        vllm.close()


FAULTS = {
    DIES: "ended with 3",
    STALLS: "no answer within",
    FAILS: "too long",
    GIVES_ONE: "gave",
    GIVES_NONSENSE: "token 99",
}


@pytest.mark.parametrize("length", FAULTS)
def test_faults_have_names_and_what_came_is_kept(folder: Path, tmp_path: Path, length: int) -> None:
    vllm = Vllm(anew=False, work=stand_in)
    taken(vllm, folder, tmp_path / "good", [1])
    vllm.timeout = 1.0
    with pytest.raises(UserError, match=FAULTS[length]):
        taken(vllm, folder, tmp_path / "bad", [1, 2, length])
    assert not vllm._workers  # ended
    assert len(list((tmp_path / "bad" / "shards").glob("*.parquet"))) == 2


def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("srlm.engines.vllm.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        require_vllm()
    config = tiny.config(folder, tmp_path / "p.jsonl")
    for changes in ({"kind": "vllm"}, {"kind": "server"}, {"url": "http://x"}):
        with pytest.raises(UserError):
            opened.check(changed(config, **changes).engine)
    served = changed(config, kind="server", url="http://a/v1,http://b/v1")
    opened.check(served.engine, served.samples)
    mu = served.samples.model_copy(update={"mu": 5.0})
    with pytest.raises(UserError, match="mu"):
        opened.check(served.engine, mu)
    with opened.opened(served, folder) as engine:
        assert [s.url for s in engine.sampler.servers] == ["http://a/v1", "http://b/v1"]


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"engine": config.engine.model_copy(update=changes)})


def test_no_number_is_taken_for_a_gap(folder: Path) -> None:
    assert np.isnan(base.untrusted(load(folder).greedy(tiny.texts(2), max_tokens=3)).gap_R).all()

"""The forecast of a file of samples."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from srlm.engines.files import open_samples
from srlm.errors import UserError
from srlm.forecast import dynamics
from srlm.forecast.answers import Shares
from srlm.forecast.from_samples import SamplesForecast, forecast_file
from srlm.forecast.recommend import of_path
from srlm.forecast.reward_paths import VOTES, About, vote_path
from srlm.forecast.tally import known_answers
from srlm.grading import grader
from srlm.report.samples_forecast import print_samples_forecast
from srlm.types import Floats
from tests.engines.make_files import FILES, SUMS
from tests.forecast.test_dynamics import hard_vote, log_vote

NUMBER = grader("last-number")


def written(
    path: Path, shares: list[Floats], N: int = 32, *, cut: float = 0.0, seed: int = 0, **more: Any
) -> Path:
    """Samples of known shares; answer 0 is right."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        for i, v in enumerate(shares):
            said = rng.choice(len(v), N, p=v)
            ends = np.where(rng.random(N) < cut, "length", "stop").tolist()
            row = {"prompt": f"q{i}", "answer": "0", "finish_reason": ends}
            row["responses"] = [f"step {n}: it is {a}" for n, a in enumerate(said)]
            file.write(json.dumps(row | {k: f(said, v) for k, f in more.items()}) + "\n")
    return path


def forecast(path: Path, **settings: Any) -> SamplesForecast:
    return forecast_file(open_samples(path), NUMBER, **settings)


def shares(P: int, right: float, others: int = 4, seed: int = 1) -> list[Floats]:
    weight = np.array([right, *[(1 - right) / others] * others])
    return list(np.random.default_rng(seed).dirichlet(3 * weight, size=P))


def inside(e: Any, truth: float, slack: float = 0.0) -> bool:
    return bool(e.low - slack <= truth <= e.high + slack)


def test_where_the_mode_is_right_it_is_go(tmp_path: Path) -> None:
    v = shares(80, 0.5)
    found = forecast(written(tmp_path / "x", v), beta=1.0)
    assert found.verdict == "go" and "consistency" in found.best
    end, now = np.mean([a.argmax() == 0 for a in v]), np.mean([a[0] for a in v])
    assert inside(found.destination["accuracy_these"], end, 0.02)
    assert inside(found.base["accuracy"], now, 0.02)
    assert inside(found.terms["gain"], end - now, 0.02)
    assert inside(found.base["kappa_answer"], np.mean([1 / a.max() for a in v]), 0.02)
    path = next(p for p in found.paths if p.reward == "vote share")
    assert path.accuracy[0].value == found.base["accuracy"].value
    for t in range(1, 6):
        v = [dynamics.vote_round(a[None], dynamics.by_share, 1.0)[0] for a in v]
        assert inside(path.accuracy[t], np.mean([a[0] for a in v]), 0.02)
        assert inside(path.kappa[t], np.mean([1 / a.max() for a in v]), 0.02)


def test_where_the_mode_is_wrong_it_is_no_go(tmp_path: Path) -> None:
    found = forecast(written(tmp_path / "x", shares(150, 0.1)))
    assert found.verdict == "no-go"
    assert (found.terms["gain"].high or 0) < 0.01


def test_few_prompts_are_unclear_and_flagged(tmp_path: Path) -> None:
    found = forecast(written(tmp_path / "x", shares(8, 0.3), N=8))
    assert found.verdict == "unclear"
    assert any("8 prompts" in d for d in found.doubts)


def test_format_is_told_from_amplification(tmp_path: Path) -> None:
    """Right whenever it is read, and cut off half of the time."""
    v = [np.array([0.98, 0.02])] * 60
    found = forecast(written(tmp_path / "x", v, cut=0.5))
    assert found.terms["format repair"].value == pytest.approx(0.49, abs=0.03)
    assert found.terms["amplification"].value == pytest.approx(0.02, abs=0.02)
    assert found.base["truncated"].value == pytest.approx(0.5, abs=0.03)
    assert "format" in found.advice
    assert found.terms["transfer"].value is None


def test_terms_add_up(tmp_path: Path) -> None:
    found = forecast(written(tmp_path / "x", shares(80, 0.4), cut=0.2))
    parts = sum(found.terms[k].value or 0.0 for k in ("amplification", "format repair"))
    assert parts == pytest.approx(found.terms["gain"].value, abs=0.01)


def test_the_vote_is_the_vote(tmp_path: Path) -> None:
    found = forecast(written(tmp_path / "x", [np.array([0.7, 0.3])] * 100, N=9))
    exact = 0.7**4 + 4 * 0.7**3 * 0.3 + 6 * 0.7**2 * 0.3**2 / 2  # a tie by lot
    assert found.vote[1].value == pytest.approx(0.7, abs=0.05)
    assert found.vote[4].value == pytest.approx(exact, abs=0.05)
    assert list(found.vote) == [1, 4, 8, 9]


def test_likelihood_needs_log_probabilities(tmp_path: Path) -> None:
    """The response's probability is its answer's: the mode of responses is the answers'."""
    v = shares(60, 0.5)
    assert len(forecast(written(tmp_path / "x", v)).paths) == 3
    path = written(
        tmp_path / "y", v, N=64,
        logp=lambda said, a: np.log(a[said]).tolist(),
        tokens=lambda said, a: [5] * len(said),
    )  # fmt: skip
    found = forecast(path, beta=2.0, rounds=2)
    got = {p.reward: p for p in found.paths}
    powers = [np.array([a[0] ** q / (a**q).sum() for a in v]).mean() for q in (1, 1.5, 2.25)]
    for e, truth in zip(got["likelihood"].accuracy, powers, strict=True):
        assert inside(e, float(truth), 0.03)
    assert got["likelihood-per-token"].length == pytest.approx((5.0, 5.0, 5.0))
    spread = forecast(
        written(tmp_path / "z", v, logp=lambda said, a: (-40.0 * np.arange(len(said))).tolist())
    )
    assert next(p for p in spread.paths if p.reward == "likelihood").length == ()  # not said
    json.dumps(spread.to_json(), allow_nan=False)
    far = next(p for p in spread.paths if p.reward == "likelihood").accuracy[-1]
    assert far.guarantee == "extrapolation" and "effective samples" in far.note


def test_without_right_answers_nothing_is_claimed(tmp_path: Path) -> None:
    path = written(tmp_path / "x", shares(40, 0.4))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["answer"]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = forecast(path)
    assert found.verdict == "unclear" and found.answered == 0
    assert not found.terms and "accuracy" not in found.base
    known = forecast_file(open_samples(path), NUMBER, known={f"q{i}": ("0",) for i in range(40)})
    assert known.answered == 40 and known.terms


def test_rounds_of_a_vote_take_draws_from_everywhere() -> None:
    """The posterior's draws come bag by bag, unlike between bags: those that are followed are of
    all of them."""
    first = np.arange(400)[:, None] < 200
    drawn = [Shares(np.where(first, [0.7, 0.3], [0.3, 0.7]), 0)] * 30
    for name in VOTES:
        path = vote_path(name, drawn, range(30), 0.1, 2, About(0, 0.9))
        assert path.accuracy[-1].value == pytest.approx(0.5, abs=0.02)
        assert path.kappa[-1].value < path.kappa[0].value


def test_a_reward_that_the_samples_do_not_carry_is_not_recommended(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x", shares(12, 0.3, others=1), N=8,
        logp=lambda said, a: (-9.0 * np.arange(len(said))).tolist(),
    )  # fmt: skip
    found = forecast(path, rounds=2)
    likelihood = next(p for p in found.paths if p.reward == "likelihood")
    votes = next(p for p in found.paths if p.reward == "vote share")
    assert likelihood.carried == 0 and "likelihood" not in found.best
    assert (votes.accuracy[-1].value or 0.0) < (likelihood.accuracy[0].value or 0.0) - 0.02


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_reward_of_some_prompts_is_not_compared(tmp_path: Path) -> None:
    """Log-probabilities on the easy prompts alone: likelihood seems better than votes on all."""
    beside = {"logp": [-0.3] * 12 + [-1.4] * 4, "tokens": [3] * 16}
    easy, hard = ["so 7"] * 12 + ["so 8"] * 4, ["so 8"] * 12 + ["so 7"] * 4
    rows = [{"prompt": f"a{i}", "responses": easy, "answer": "7"} | beside for i in range(80)]
    rows += [{"prompt": f"b{i}", "responses": hard, "answer": "7"} for i in range(20)]
    found = forecast(lines(tmp_path / "x", rows))
    path = next(p for p in found.paths if p.reward == "likelihood-per-token")
    assert not path.whole and "80 of 100 prompts" in path.note
    assert found.best.startswith("consistency")


def test_few_prompts_tell_no_gain_of_a_reward_on_samples(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x", shares(3, 0.5), N=64,
        logp=lambda said, a: np.log(a[said]).tolist(),
    )  # fmt: skip
    found = forecast_file(open_samples(path), NUMBER, beta=2.0, rounds=2)
    assert found.best.startswith("consistency")
    likelihood = next(p for p in found.paths if p.reward == "likelihood")
    assert of_path(likelihood)[0] == "unclear"


def test_no_reward_is_recommended_where_votes_do_harm(tmp_path: Path) -> None:
    found = forecast(written(tmp_path / "x", [np.array([0.3, 0.6, 0.1])] * 40))
    assert found.verdict == "no-go" and found.best == "none"


def test_hard_prompts_that_are_seldom_answered(tmp_path: Path) -> None:
    """Four fifths of the responses to half of the prompts are cut off, and those that are not are
    mostly wrong: that the others are right says little of them."""
    rng = np.random.default_rng(0)
    rows, right = [], []
    for i in range(120):
        v = rng.dirichlet([1.0, 6, 2, 2] if i % 2 else [6.0, 1, 1, 1])
        right.append(v.argmax() == 0)
        cut = rng.random(16) < (rng.beta(16, 4) if i % 2 else 0.05)
        said = [f"it is {a}" for a in rng.choice(4, 16, p=v)]
        ends = np.where(cut, "length", "stop").tolist()
        rows.append({"prompt": f"q{i}", "responses": said, "answer": "0", "finish_reason": ends})
    end = forecast(lines(tmp_path / "x", rows)).destination["accuracy"]
    assert inside(end, float(np.mean(right)))
    assert end.value == pytest.approx(np.mean(right), abs=0.08)


@pytest.mark.parametrize("answer", [["10", "999"], ["10"], 10, 10.0, [10, None]])
def test_any_of_a_list_of_answers_is_right(answer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "responses": ["so 10"] * 4, "answer": answer} for i in range(9)]
    assert forecast(lines(tmp_path / "x", rows)).vote[1].value == 1.0


@pytest.mark.parametrize("answer", [{"value": "10"}, float("nan"), [[]]])
def test_what_is_no_answer_is_named(answer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "responses": ["so 10"] * 4, "answer": "10"} for i in range(9)]
    rows[3]["answer"] = answer
    file = open_samples(lines(tmp_path / "x", rows))
    assert len(forecast_file(file, NUMBER).paths[0].accuracy) and file.problems.count == 1
    assert "line 4" in file.problems.sentence()


def test_an_answer_on_a_later_line_counts_for_all(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "response": f"so {n % 2}"} for i in range(9) for n in range(4)]
    last = [row | {"answer": "0"} for row in rows[3::4]]
    found = forecast(lines(tmp_path / "x", rows + last))
    assert found.answered == 9
    assert found.vote[1].value == pytest.approx(0.4, abs=0.08)
    other = forecast(lines(tmp_path / "y", last + [row | {"answer": "1"} for row in rows]))
    assert any("several right answers" in doubt for doubt in other.doubts)


def test_what_a_file_cannot_tell_is_said(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{i}", "responses": [f"so {16 * i + n}" for n in range(16)], "answer": "x"}
        for i in range(12)
    ]
    doubts = forecast(lines(tmp_path / "x", rows)).doubts
    assert any("answer of its own" in d for d in doubts)
    assert any("no response is right on any prompt" in d for d in doubts)
    file = open_samples(lines(tmp_path / "y", rows))
    told = forecast_file(file, NUMBER, known={"elsewhere": ("1",)}).doubts
    assert not any("--prompts" in d for d in told)  # the file has its own
    for row in rows:
        del row["answer"]
    file = open_samples(lines(tmp_path / "z", rows))
    told = forecast_file(file, NUMBER, known={"elsewhere": ("1",)}).doubts
    assert any("no prompt of --prompts is in the file" in d for d in told)


def test_one_prompt_of_few_samples_does_not_cut_the_votes(tmp_path: Path) -> None:
    path = written(tmp_path / "x", shares(30, 0.5), N=32)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("responses", "finish_reason"):
        rows[0][name] = rows[0][name][:2]
    vote = forecast(lines(path, rows)).vote
    assert max(vote) == 32 and vote[32].n == 29


def test_order_does_not_matter(tmp_path: Path) -> None:
    """One response a line, shuffled."""
    path = written(tmp_path / "x", shares(30, 0.5), N=8)
    rows = [
        {"prompt": row["prompt"], "answer": "0", "response": r, "finish_reason": e}
        for row in map(json.loads, path.read_text().splitlines())
        for r, e in zip(row["responses"], row["finish_reason"], strict=True)
    ]
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    other = tmp_path / "y"
    other.write_text("".join(json.dumps(r) + "\n" for r in rows))
    one, two = forecast(path), forecast(other)
    assert one.base["accuracy"].value == pytest.approx(two.base["accuracy"].value, abs=0.01)
    assert one.vote[8].value == pytest.approx(two.vote[8].value)


def test_one_text_a_prompt_is_flagged(tmp_path: Path) -> None:
    path = tmp_path / "x"
    row = {"responses": ["it is 1"] * 8, "answer": "1"}
    path.write_text("".join(json.dumps({"prompt": f"q{i}"} | row) + "\n" for i in range(40)))
    assert any("temperature" in d for d in forecast(path).doubts)


def test_unreadable_responses_are_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "x"
    row = {"responses": ["none", "no", "never", "not"] * 8, "answer": "1"}
    path.write_text("".join(json.dumps({"prompt": f"q{i}"} | row) + "\n" for i in range(40)))
    found = forecast(path)
    assert found.verdict == "unclear" and "--answer" in found.advice
    assert found.best == "none"
    told = [*found.terms.values(), *found.destination.values()]
    told += [e for p in found.paths for e in p.accuracy[1:]]
    assert told and all(e.value is None for e in told)
    json.dumps(found.to_json(), allow_nan=False)


def test_one_sample_a_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one sample each"):
        forecast(written(tmp_path / "x", shares(5, 0.5), N=1))


@pytest.mark.parametrize(
    "name", [p.name for p in sorted(FILES.glob("*")) if "requests" not in p.name]
)
def test_every_tool_s_file_is_forecast(name: str) -> None:
    found = forecast(FILES / name)
    assert found.prompts == 4 and found.samples == 4
    assert json.loads(json.dumps(found.to_json()))["verdict"] == found.verdict
    out = io.StringIO()
    print_samples_forecast(found, Console(file=out, width=80, highlight=False))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(found.verdict.upper())


def test_bad_lines_are_among_the_doubts(tmp_path: Path) -> None:
    path = written(tmp_path / "x", shares(10, 0.5))
    path.write_text(path.read_text() + "{broken\n")
    found = forecast(path)
    assert found.prompts == 10 and any("line 11" in d for d in found.doubts)


def test_bulk_rounds_are_the_rounds() -> None:
    v_BA = np.random.default_rng(0).dirichlet(np.ones(5), size=3)[:, :4]  # a fifth is unreadable
    answers = ["a", "b", "c", "d", None] * 3
    for votes, score in (
        (dynamics.by_share, dynamics.vote_share),
        (dynamics.by_log, log_vote),
        (dynamics.by_mode, hard_vote),
    ):
        mass = dynamics.of_shares([np.append(v, 1 - v.sum()) for v in v_BA])
        step = dynamics.exact(score(dynamics.ballot(mass.prompt_R, answers)), 0.7)
        bulk = v_BA
        for after in dynamics.trajectory(mass, step, 3)[1:]:
            bulk = dynamics.vote_round(bulk, votes, 0.7)
            np.testing.assert_allclose(after.mass_R.reshape(3, 5)[:, :4], bulk, rtol=1e-10)


def test_answers_from_another_file(tmp_path: Path) -> None:
    """By the prompt's text for vLLM, by the request's id for a batch."""
    by_text, by_id = tmp_path / "p.jsonl", tmp_path / "i.jsonl"
    by_text.write_text("".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in SUMS))
    by_id.write_text(
        "".join(
            json.dumps({"custom_id": f"sum-{i}", "answer": a}) + "\n"
            for i, (_, a) in enumerate(SUMS)
        )
    )
    for name, answers in (("vllm.jsonl", by_text), ("openai.jsonl", by_id)):
        file = open_samples(FILES / name)
        assert forecast_file(file, NUMBER, known=known_answers(answers)).answered == 4
        assert forecast_file(file, NUMBER).answered == 0


def test_answers_by_id_are_read_as_those_of_prompts(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 0, "answer": ["10", 11]}, {"id": 1, "answer": None}, {"id": 2, "answer": 2.0},
    ]  # fmt: skip
    path = lines(tmp_path / "x", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert known_answers(path) == {"0": ("10", "11"), "2": ("2",)}
    with pytest.raises(UserError, match=r"line 2: 0 again.*line 3: 'answer' is an object"):
        known_answers(
            lines(path, [{"id": 0, "answer": 1}, {"id": 0, "answer": 2}, {"id": 3, "answer": {}}])
        )


@pytest.mark.parametrize(("alike", "named"), [(6, True), (4, False)])
def test_a_majority_answer_that_half_of_the_prompts_share_is_named(
    tmp_path: Path, alike: int, named: bool
) -> None:
    rows = [
        {"prompt": f"q{i}", "responses": [f"it is {7 if i < alike else 100 + i}"] * 3 + ["is 5"]}
        for i in range(10)
    ]
    path = tmp_path / "x"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said = [d for d in forecast(path).doubts if "majority answer" in d]
    assert len(said) == named
    assert all("'7'" in d and "6 of 10 prompts" in d for d in said)

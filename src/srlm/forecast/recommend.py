"""Go or no-go, and which reward, from what each reward does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from srlm.forecast.reward_paths import VOTES, RewardPath
from srlm.forecast.verdict import WORTH
from srlm.types import Estimate

READABLE = 0.05
"""Share of responses with an answer under which nothing is told of votes: their limit would be the
prior's."""
UNREAD = "hardly any response has an answer that can be read"
ENOUGH = 10
"""Prompts with right answers under which rewards that are followed on the samples tell no gain:
their intervals are those of the prompts alone."""
NONE = "none"
"""In the place of a reward, where there is none to recommend."""
NEAR = 0.02
"""Accuracy within which the vote is preferred to another reward: it needs answers alone."""
VOTE = "consistency (vote share)"


def of_votes(
    base: Mapping[str, Estimate],
    terms: Mapping[str, Estimate],
    destination: Mapping[str, Estimate],
    vote: Mapping[int, Estimate],
    answered: int,
) -> tuple[str, str, str]:
    """Verdict, reason and advice on training with votes: by their limit."""
    readable, share = base["readable"], base["vote_share"]
    assert readable.value is not None and share.low is not None
    if readable.value < READABLE:
        return "unclear", UNREAD, "Check --answer, the prompt's format and the length limit."
    if not answered:
        if share.low > 0.98:
            return (
                "no-go",
                f"the commonest answer already has {_n(share)} of the samples: nothing to sharpen",
                "Use harder prompts or a reward that is not a vote.",
            )
        return (
            "unclear",
            f"votes would take the commonest answer from {_n(share)} of the samples to all; "
            "without right answers nothing says whether that is good",
            "Give a file with answers, or --prompts with them.",
        )
    gain, end = terms["gain"], destination["accuracy"]
    assert gain.low is not None and gain.high is not None
    text = f"accuracy {_n(base['accuracy'])}, limit of voting {_n(end)}: gain {_signed(gain)}"
    if gain.low >= WORTH:
        advice = "Train with a vote."
        repair = terms["format repair"].value or 0.0
        if repair > (gain.value or 0.0) / 2:
            advice += (
                " Most of the gain is format: a prompt or a few examples may give it for nothing."
            )
        k = max(vote)
        return "go", text, f"{advice} A vote over {k} samples gives {vote[k].value:.3f} untrained."
    if gain.high < WORTH:
        if (base["accuracy"].value or 0.0) > 1 - WORTH:
            return "no-go", text, "Nothing is left to gain: use harder prompts."
        return (
            "no-go",
            text,
            "Do not train on votes. A reward that knows right from wrong may help.",
        )
    return "unclear", text, f"{_both(gain)}: give {more(destination)}."


def of_path(path: RewardPath) -> tuple[str, str, str]:
    """Verdict, reason and advice on training with another reward: by the rounds that the samples
    carry, for its limit is beyond them."""
    gain, t = path.gain, path.carried
    if gain is None or gain.low is None or gain.high is None:
        return (
            "unclear",
            f"{path.reward}: without right answers nothing says whether it helps",
            "Give --prompts with answers.",
        )
    if t == 0:
        return (
            "unclear",
            f"{path.reward}: its first round is already beyond what these samples carry",
            "Give more samples per prompt, or a larger --beta.",
        )
    if gain.n < ENOUGH:
        few = f"{path.reward}: {gain.n} prompts with right answers do not tell a gain"
        return "unclear", few, "Give more prompts."
    by = "1 exact round" if t == 1 else f"{t} exact rounds"
    text = (
        f"{path.reward}: accuracy {_n(path.accuracy[0])}, after {by} "
        f"{_n(path.accuracy[t])}: gain {_signed(gain)}; training goes slower"
    )
    if not path.whole:
        text += f"; {path.note}"
    if gain.low >= WORTH:
        return "go", text, f"Train with {path.reward}, and watch the length."
    if gain.high < WORTH:
        return "no-go", text, "Do not train on it. Another reward may help."
    return "unclear", text, f"{_both(gain)}: give more prompts."


def _both(gain: Estimate) -> str:
    """What an interval that tells neither way holds."""
    assert gain.low is not None
    if gain.low < 0:
        return "The interval holds both gain and loss"
    return f"The interval holds gains below and above {WORTH:g}"


def more(destination: Mapping[str, Estimate]) -> str:
    """What makes the interval of the limit narrower."""
    end, these = destination["accuracy"], destination["accuracy_these"]
    assert end.low is not None and end.high is not None
    assert these.low is not None and these.high is not None
    own = these.high - these.low
    return "more samples per prompt" if own > 0.7 * (end.high - end.low) else "more prompts"


def preferred(accuracy: Mapping[str, float], votes: Iterable[str]) -> str:
    """The reward of the highest accuracy; the best of ``votes`` unless it is ``NEAR`` below.

    >>> preferred({"likelihood": 0.91, "consistency": 0.90}, ["consistency"])
    'consistency'
    """
    top, vote = max(accuracy, key=accuracy.__getitem__), max(votes, key=accuracy.__getitem__)
    return vote if accuracy[top] <= accuracy[vote] + NEAR else top


def choose(
    paths: Sequence[RewardPath], destination: Mapping[str, Estimate], base: Mapping[str, Estimate]
) -> tuple[str, str, str]:
    """Which reward, why, and the risk."""
    if (base["readable"].value or 0.0) < READABLE:
        return NONE, UNREAD, "what is learned from so few answers is chance"
    unsure = 1 - (destination["mode_known"].value or 0.0)
    told = f"on {pct(unsure)} of prompts these samples do not tell which answer is the mode"
    if "accuracy" not in destination:
        return (
            VOTE,
            "without right answers its limit alone can be told",
            f"how often the mode is wrong is not known; {told}",
        )
    reached = {
        p.reward: p.accuracy[p.carried].value or 0.0
        for p in paths
        if p.reward in VOTES or (p.carried and p.whole and p.gain and p.gain.n >= ENOUGH)
    }
    top = preferred(reached, VOTES)
    wrong = 1 - (destination["accuracy"].value or 0.0)
    if top in VOTES:
        others = [
            f"{p.reward} {reached[p.reward]:.3f}"
            if p.reward in reached
            else f"{p.reward} {'not compared' if p.carried else 'not carried'}"
            for p in paths
            if p.reward not in VOTES
        ]
        why = (
            f"every vote has the same limit; within these rounds vote share gives "
            f"{reached['vote share']:.3f}, hard vote {reached['hard vote']:.3f}; "
            f"{', '.join(others) or 'no other reward can be told from these samples'}"
        )
        risk = f"the mode is wrong on {pct(wrong)} of prompts, and grows there; {told}"
        return VOTE, why, risk
    path = next(p for p in paths if p.reward == top)
    why = f"{reached[top]:.3f} within these rounds, votes {reached['vote share']:.3f}"
    t = path.carried
    risk = "its limit is beyond these samples"
    if path.length:
        risk = f"length {path.length[0]:.0f} → {path.length[t]:.0f} tokens by round {t}; {risk}"
    return top, why, risk


def _n(e: Estimate) -> str:
    return f"{e.value:z.3f} [{e.low:z.3f}, {e.high:z.3f}]"


def _signed(e: Estimate) -> str:
    return f"{e.value:+z.3f} [{e.low:+z.3f}, {e.high:+z.3f}]"


def pct(x: float | None) -> str:
    """A share in per cent."""
    return f"{x or 0.0:.0%}"

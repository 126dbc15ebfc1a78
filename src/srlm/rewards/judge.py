"""The model as judge of its own responses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from srlm.config import JudgeSettings, score_values
from srlm.errors import UserError
from srlm.policies.base import Language, Policy
from srlm.rewards import asking
from srlm.rewards.base import Mean, Reward, Scored
from srlm.rewards.rows import distinct
from srlm.types import Bools, Floats, Ints, Prompt, Samples, Tokens

LEAST_MASS = 0.01
"""Probability of all score tokens together under which a judgement counts as unreadable."""
OFTEN = 0.1
"""Share of unreadable judgements from which a note is made."""


@dataclass(frozen=True, slots=True)
class Judgements:
    """What a judge generated. Q questions, J judgements of them."""

    questions: list[Prompt]
    """The filled templates, one a distinct response."""
    place_R: Ints
    """Question of each response."""
    question_J: Ints
    tokens_J: tuple[Tokens, ...]
    text_J: tuple[str, ...]
    score_J: Floats
    """Not-a-number where unreadable."""
    logp_J: Floats
    """log pi_t(judgement|question), nats."""
    fit_Q: Bools
    """Questions that the context has room for; the others have no judgement."""
    cut: int
    """Judgements that the length limit cut off: unreadable, whatever they hold."""

    def mean_Q(self, weight_J: Floats | None = None) -> Floats:
        """Mean score of each question over its readable judgements, [Q]."""
        known = np.isfinite(self.score_J)
        w_J = known * (np.ones(len(self.score_J)) if weight_J is None else weight_J)
        Q = len(self.questions)
        below_Q = np.bincount(self.question_J, w_J, minlength=Q)
        above_Q = np.bincount(
            self.question_J, w_J * np.where(known, self.score_J, 0.0), minlength=Q
        )
        return np.divide(above_Q, below_Q, out=np.full(Q, np.nan), where=below_Q > 0)

    def variance_Q(self) -> Floats:
        """Variance of each question's readable scores, [Q]; 0 where there are none."""
        mean_J = self.mean_Q()[self.question_J]
        known = np.isfinite(self.score_J)
        off_J = np.where(known, self.score_J - mean_J, 0.0) ** 2
        Q = len(self.questions)
        count_Q = np.bincount(self.question_J, known, minlength=Q)
        sums_Q = np.bincount(self.question_J, off_J, minlength=Q)
        return np.asarray(sums_Q / np.maximum(count_Q, 1))

    def facts(self) -> dict[str, float]:
        """How the judging went."""
        known = np.isfinite(self.score_J)
        return {
            "judge: judgements": float(len(known)),
            "judge: unreadable": Mean((~known).sum(), len(known)),
            "judge: cut off": Mean(self.cut, len(known)),
            "judge: too long": Mean((~self.fit_Q).sum(), len(self.fit_Q)),
        }


def judge(settings: JudgeSettings, seed: int = 0) -> Reward:
    """The policy's own score of each response, through a template ([SRLM] section 2.2).

    ``read`` "generated": the mean over K judgements, sampled at temperature 1, of the number that
    the score pattern finds last in what was generated, which may be the text of a score; a number
    outside [lowest, highest] of the score values is unreadable. "expected": sum_s v_s p_s /
    sum_s p_s over the score tokens' probabilities right after the template: no parsing, no
    sampling, one forward pass. A judge that answers y or n is the second with scores y=1, n=0: the
    reward is P(y) / (P(y) + P(n)).

    An unreadable judgement is missing, never a low score; a response none of whose judgements can
    be read has no reward. Responses too long for the context are not judged. Equal responses are
    judged once.

    Args:
        settings: template, scores, pattern, K.
        seed: of the judgements sampled.

    Raises:
        UserError: a template without its places, a pattern that is none, scores that are no
            tokens of the model, a policy that is no language model.
    """
    values = score_values(settings.scores)
    default = asking.EXPECTED if settings.read == "expected" else asking.GENERATED
    template = settings.template or default
    asking.check_template(template, ("prompt", "response"), "judge.template")
    if settings.read == "expected":

        def expected(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Scored:
            return _expected(asking.language(policy, "judge"), template, values, prompts, samples)

        return expected

    read = score_reader(settings.pattern, values)

    def generated(policy: Policy, prompts: Sequence[Prompt], samples: Samples) -> Scored:
        found = judgements(policy, prompts, samples, template, read, settings, seed)
        score_R = found.mean_Q()[found.place_R]
        return Scored(score_R, found.facts(), notes, score_R)

    return generated


def questions(
    policy: Language, template: str, prompts: Sequence[Prompt], samples: Samples
) -> tuple[list[Prompt], Ints]:
    """The filled template of each distinct response, [Q], and the question of each row, [R]."""
    row_S, place_R = distinct(samples)
    asked = []
    for r in row_S:
        content = prompts[samples.prompt_R[r]].content
        fields = {"prompt": asking.as_text(content), "response": samples.text_R[r]}
        asked.append(asking.as_prompt(asking.fill(template, fields, policy)))
    return asked, place_R


def _expected(
    policy: Language,
    template: str,
    values: Mapping[str, float],
    prompts: Sequence[Prompt],
    samples: Samples,
) -> Scored:
    tokens = asking.score_tokens(policy, values, "judge.scores")
    asked, place_R = questions(policy, template, prompts, samples)
    fit_Q = asking.fits(policy, asked, 1)
    score_Q = np.full(len(asked), np.nan)
    fitting = np.flatnonzero(fit_Q)
    p_FS = asking.first_token(policy, [asked[q] for q in fitting], tokens)
    mass_F = p_FS.sum(1)
    readable_F = mass_F >= LEAST_MASS
    expectation_F = p_FS @ np.array(list(values.values())) / np.where(readable_F, mass_F, 1.0)
    score_Q[fitting[readable_F]] = expectation_F[readable_F]
    facts = {
        "judge: judgements": float(len(fitting)),
        "judge: unreadable": Mean((~readable_F).sum(), len(fitting)),
        "judge: too long": Mean((~fit_Q).sum(), len(asked)),
        "judge: score mass": Mean(mass_F.sum(), len(fitting)),
    }
    return Scored(score_Q[place_R], facts, notes, score_Q[place_R])


def judgements(
    policy: Policy,
    prompts: Sequence[Prompt],
    samples: Samples,
    template: str,
    read: ScoreReader,
    settings: JudgeSettings,
    seed: int,
) -> Judgements:
    """``settings.judgements`` of each distinct response, read. See ``judge``."""
    judging = asking.language(policy, "judge")
    asked, place_R = questions(judging, template, prompts, samples)
    fit_Q = asking.fits(judging, asked, settings.max_tokens)
    fitting = np.flatnonzero(fit_Q)
    if len(fitting) == 0:
        nothing = np.empty(0)
        none = np.empty(0, dtype=np.int64)
        return Judgements(asked, place_R, none, (), (), nothing, nothing, fit_Q, 0)
    said = policy.sample(
        [asked[q] for q in fitting],
        settings.judgements,
        seed=seed,
        max_tokens=settings.max_tokens,
    )
    ended = zip(said.text_R, said.finished_R, strict=True)
    score_J = np.array([read(text) if done else np.nan for text, done in ended])
    return Judgements(
        questions=asked,
        place_R=place_R,
        question_J=fitting[said.prompt_R],
        tokens_J=said.tokens_R,
        text_J=said.text_R,
        score_J=score_J,
        logp_J=said.logp_R,
        fit_Q=fit_Q,
        cut=int((~said.finished_R).sum()),
    )


class ScoreReader:
    """The score that a judgement gives; not-a-number where it gives none.

    The last match counts; one inside a quotation does not. A number is taken whole or not at all:
    neither 1 of "15" nor 4 of "4-5"; "4/5" is 4 where 5 is the highest.

    Args:
        pattern: a regular expression; its first group, or the whole match, is the score.
        lowest, highest: numbers outside are unreadable.
        texts: what else a score may read, and its value.

    Raises:
        UserError: the pattern is none.

    >>> read = ScoreReader(r"Score:\\s*([0-9.]+)", 0, 5)
    >>> read("Score: 2 would be harsh.\\nScore: 4"), read("four"), read("Score: 50")
    (4.0, nan, nan)
    >>> ScoreReader("^[yn]$", 0, 1, {"y": 1.0, "n": 0.0})("y")
    1.0
    """

    def __init__(
        self,
        pattern: str,
        lowest: float,
        highest: float,
        texts: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise UserError(
                f"judge.pattern: {pattern!r} is no regular expression: {error}",
                "correct the pattern",
            ) from None
        self._lowest, self._highest, self._texts = lowest, highest, texts

    def __call__(self, text: str) -> float:
        quoted = [found.span() for found in _QUOTED.finditer(text) if found[0] != text.strip()]
        said: tuple[str, int] | None = None
        for found in self._pattern.finditer(text):
            group = 1 if found.re.groups else 0
            if not any(a <= found.start() and found.end() <= b for a, b in quoted):
                said = found[group] or "", max(found.start(group), 0)
        if said is None:
            return np.nan
        if said[0] in self._texts and not _NUMBER.search(said[0]):
            return self._texts[said[0]]
        score = self._number(text, *said)
        if not np.isnan(score) and said[0] in self._texts:
            return self._texts[said[0]]
        return score if self._lowest <= score <= self._highest else np.nan

    def _number(self, text: str, said: str, start: int) -> float:
        """The number in what was said, taken whole (also as "4/5") or not at all."""
        number = _NUMBER.search(said)
        if number is None:
            return np.nan
        before = text[: start + number.start()]
        after = text[start + number.end() :]
        of = _OF.match(after)
        if of and float(of[1]) == self._highest:
            after = after[of.end() :]
        return (
            np.nan
            if _GOES_BEFORE.search(before[-2:]) or _GOES_ON.match(after)
            else float(number[0])
        )


_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")
_OF = re.compile(r"(?: ?/ ?| out of )([0-9]+)(?![0-9.])")
_GOES_BEFORE = re.compile(r"[0-9][.,]?$|[-+\u2212]$|\.$")
_GOES_ON = re.compile(r"[0-9%]|[.,:][0-9]| ?[/\u2013-] ?[0-9]")
_QUOTED = re.compile(
    r"```.*?```|^[ \t]*>[^\n]*|\"[^\"\n]{0,400}\"|\u201c[^\u201d\n]{0,400}\u201d|`[^`\n]{1,400}`",
    re.DOTALL | re.MULTILINE,
)
"""Code, lines that cite, and what stands in quotation marks: not the judge's own word."""


def score_reader(pattern: str, values: Mapping[str, float]) -> ScoreReader:
    """The reader of the values' texts, and of numbers from the least to the greatest of them."""
    return ScoreReader(pattern, min(values.values()), max(values.values()), values)


def notes(facts: Mapping[str, float]) -> tuple[str, ...]:
    """Sentences about a judge that does not do its work."""
    out = []
    unreadable, cut = facts["judge: unreadable"], facts.get("judge: cut off", 0.0)
    if unreadable > OFTEN:
        why = f", {cut:.0%} cut off by --judge-tokens" if cut else ""
        out.append(f"judge: {unreadable:.0%} of the judgements are unparseable{why}")
    if facts["judge: too long"] > 0:
        out.append(
            f"judge: {facts['judge: too long']:.1%} of the responses do not fit the model's context"
        )
    return tuple(out)

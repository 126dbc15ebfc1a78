"""Putting a response before the policy that is to judge it: templates, and what may stand in them.

A template is text with places such as ``{prompt}`` and ``{response}``. They are filled in one
pass, so that places written in a candidate stay text. In what is filled in, control tokens and
the template's own tags (``<response>``) are broken up: a candidate can neither end its own
quotation nor begin another speaker's turn. Nothing of the filled template is ever parsed for a
score; only what the policy says after it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srlm.data import prompt_id
from srlm.errors import UserError
from srlm.policies.base import Language, Policy
from srlm.types import Bools, Floats, Prompt

RUBRIC = """Grade the answer to a request. Points add up, one for each statement that holds:
1. The answer is about the request and holds something of use, even if it is incomplete or strays.
2. It meets a good part of the request, though not all of it.
3. It gives what the request mainly asks for, in a way that the asker can use.
4. It is written for the asker: complete, well ordered, to the point, with little to improve.
5. It is what an expert would give: right in every particular, insightful, nothing superfluous.

<request>
{prompt}
</request>
<answer>
{response}
</answer>
"""
"""The additive five-point rubric of [SRLM], figure 2, in our words."""
GENERATED = RUBRIC + (
    "\nGive your reasons in at most 100 words. Then end with a line `Score: ` and the sum of the"
    " points, a whole number from 0 to 5."
)
EXPECTED = RUBRIC + "\nReply with the sum of the points alone, one digit from 0 to 5."
COMPARE = """Two answers to one request. Which is better?

<request>
{prompt}
</request>
<answer_A>
{first}
</answer_A>
<answer_B>
{second}
</answer_B>

Reply with one letter alone: A if the first answer is better, B if the second is."""
META = """A judge was given the task below, and two verdicts on it follow. Which verdict is the
sounder one: keeps to the task, gives reasons that are true, and a score that fits them?

<task>
{prompt}
</task>
<verdict_A>
{first}
</verdict_A>
<verdict_B>
{second}
</verdict_B>

Reply with one letter alone: A if the first verdict is sounder, B if the second is."""

_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")
_PLACE = re.compile(r"\{(prompt|response|first|second)\}")


def check_template(template: str, places: Sequence[str], setting: str) -> None:
    """See that a template has its places.

    Raises:
        UserError: one is missing.
    """
    missing = [f"{{{place}}}" for place in places if f"{{{place}}}" not in template]
    if missing:
        raise UserError(
            f"{setting}: no {' and no '.join(missing)} in the template",
            f"write {' and '.join(missing)} where the text is to stand",
        )


def fill(template: str, texts: Mapping[str, str], policy: Language) -> str:
    """The template with its places filled in, once; see the module for what is broken up."""
    names = {name.lower() for name in _TAG.findall(template)}
    tags = "|".join(re.escape(name) for name in sorted(names))
    own = re.compile(rf"<(?=\s*/?\s*(?:{tags})\s*>)", re.IGNORECASE) if names else None

    def plain(text: str) -> str:
        return policy.plain(own.sub("< ", text) if own else text)

    return _PLACE.sub(lambda found: plain(texts.get(found[1], found[0])), template)


def as_text(content: Any) -> str:
    """A prompt's content as a judge reads it; messages one below the other."""
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return "\n".join(f"{m['role']}: {m['content']}" for m in content)
    return str(content)


def as_prompt(text: str) -> Prompt:
    """A question to the policy."""
    return Prompt(prompt_id(text), text)


def language(policy: Policy, name: str) -> Language:
    """The policy, if it can be asked.

    Raises:
        UserError: it is no language model.
    """
    if not isinstance(policy, Language):
        raise UserError(
            f"--reward {name}: {type(policy).__name__} is no language model",
            "judge with a language model, or use another reward",
        )
    return policy


def fits(policy: Language, questions: Sequence[Prompt], max_tokens: int) -> Bools:
    """Which questions leave room for an answer of ``max_tokens`` in the policy's context."""
    if policy.context is None:
        return np.ones(len(questions), dtype=bool)
    size = np.array([len(policy.encode(q)) for q in questions], dtype=np.int64)
    return size + max_tokens <= policy.context


def score_tokens(policy: Language, values: Mapping[str, float], setting: str) -> list[list[int]]:
    """Tokens that say each score text: the text itself and the text after a space.

    Raises:
        UserError: a text is neither, or two texts share a token.
    """
    found: list[list[int]] = []
    for text in values:
        both = {policy.single(text), policy.single(f" {text}")} - {None}
        if not both:
            raise UserError(
                f"{setting}: {text!r} is no single token of the model",
                "name scores that are one token each, such as digits or y and n",
            )
        found.append(sorted(x for x in both if x is not None))
    flat = [token for tokens in found for token in tokens]
    if len(set(flat)) < len(flat):
        raise UserError(f"{setting}: two scores are the same token", "name scores that differ")
    return found


def first_token(
    policy: Language, questions: Sequence[Prompt], tokens: Sequence[Sequence[int]]
) -> Floats:
    """P(one of tokens[s] comes first | question), [Q, S]. One forward pass."""
    import torch

    if not questions:
        return np.empty((0, len(tokens)))

    def read(logp_BTV: torch.Tensor) -> torch.Tensor:
        parts = [torch.logsumexp(logp_BTV[..., list(t)], dim=-1) for t in tokens]
        return torch.stack(parts, dim=-1).exp()

    at = np.arange(len(questions))
    rows = policy.along(questions, at, [(0,)] * len(questions), read)
    return np.stack([row_TS[0] for row_TS in rows])

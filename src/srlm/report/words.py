"""Numbers, names and foreign text as a person reads them; used by page, plots and terminal."""

from __future__ import annotations

import math
import os
import unicodedata
from pathlib import Path

from srlm.types import Estimate

SYMBOL = {"kappa": "κ", "log10_kappa": "log₁₀ κ", "kappa_vote": "κ of votes"}
NAMES = {
    "kappa": "κ, condition number",
    "log10_kappa": "log₁₀ κ",
    "failure_fraction": "F, failure fraction",
    "confidence": "Confidence",
    "fidelity": "Fidelity",
    "sampling_accuracy": "Sampling accuracy",
    "greedy_accuracy": "Greedy accuracy",
    "mode_accuracy": "Mode accuracy",
    "headroom_captured": "Headroom captured",
    "entropy": "Entropy",
    "length": "Length",
    "kl_to_base": "KL to the base",
    "distinct_responses": "Distinct responses",
    "truncated": "Truncated",
    "greedy_is_mode": "Greedy finds the mode",
    "margin": "Least margin",
    "least_confidence": "Least confidence",
    "exponent": "Effective exponent",
    "exponent_r2": "r² of the exponent",
    "efficiency": "Update efficiency",
    "kappa_ideal": "κ after an exact update",
    "vote_share": "Vote share",
    "vote_accuracy": "Vote accuracy",
    "readable": "Parseable",
    "kappa_vote": "κ of votes",
    "vote_flips": "Votes that flipped",
    "answer_agreement": "Votes kept",
    "base_answer_share": "Share of the base's answers",
    "answer_spread": "Spread of one answer",
    "base_mode_probability": "Probability of the base's modes",
}

MEANINGS = {
    "log10_kappa": "logarithm of the mean of 1/p* over prompts",
    "kappa": "mean of 1/p* over prompts; 1: certain of one response on every prompt",
    "failure_fraction": "share of prompts with p* ≤ 1/2",
    "confidence": "mean of p*, the probability of the most likely response (the mode)",
    "fidelity": "share of prompts whose mode is still the base's",
    "sampling_accuracy": "share of sampled responses that are right",
    "greedy_accuracy": "share of prompts whose greedy response is right",
    "mode_accuracy": "share of prompts whose mode is right: the limit of the likelihood reward",
    "headroom_captured": "gain in sampling accuracy / (mode accuracy - sampling accuracy of base)",
    "entropy": "of the responses to a prompt, nats",
    "length": "tokens per response",
    "kl_to_base": "nats per response",
    "distinct_responses": "share of a prompt's samples that are distinct",
    "truncated": "share of responses cut off at max_tokens",
    "greedy_is_mode": "share of prompts where greedy decoding returns the mode",
    "margin": "log-probability of the mode above the runner-up, nats; the least over prompts",
    "least_confidence": "the least p* over prompts",
    "exponent": "the policy is near base^exponent; (1 + 1/β)^round under exact updates",
    "exponent_r2": "1: a pure power of the base; less: drift",
    "efficiency": "log(effective exponent) / log(exponent of exact updates)",
    "kappa_ideal": "what one exact update of the policy before would give",
    "vote_share": "share of samples with their prompt's majority answer; biased up by few samples",
    "vote_accuracy": "share of prompts whose majority answer is right: the limit of vote rewards",
    "readable": "share of responses with an answer that can be read",
    "kappa_vote": "mean of 1 / vote share over prompts; biased down by few samples",
    "vote_flips": "share of prompts whose majority answer is another one than a round before",
    "answer_agreement": "share of prompts whose majority answer is the base's, where it had one",
    "base_answer_share": "share of samples with the base's majority answer, as if it were right",
    "answer_spread": "share of prompts with the commonest majority answer, less that of the base",
    "base_mode_probability": "mean probability of the base's most likely response",
}


def place(path: str) -> str:
    """A path as one would type it: below the current folder, or from the home folder.

    >>> place("runs/mine"), place(str(Path.cwd() / "runs" / "mine"))
    ('runs/mine', 'runs/mine')
    """
    for top, name in ((Path.cwd(), ""), (Path(os.path.expanduser("~")), "~")):
        if Path(path).is_relative_to(top):
            return str(name / Path(path).relative_to(top))
    return path


def number(x: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals; large ones shorter.

    >>> number(0.5678), number(1.0), number(-0.0312, 2), number(-0.0001), number(None)
    ('0.568', '1.000', '-0.03', '0.000', '–')
    >>> number(123.456), number(1.2e9), number(float("inf"))
    ('123.5', '1.2e+09', '∞')
    """
    if x is None or math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if abs(x) >= 1e5:
        return f"{x:.1e}"
    text = f"{x:.{min(digits, 1) if abs(x) >= 100 else digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(x: float | None, digits: int = 3) -> str:
    """
    >>> signed(0.5), signed(-0.25, 2), signed(0.0)
    ('+0.500', '-0.25', '0.000')
    """
    text = number(x, digits)
    return f"+{text}" if x is not None and x > 0 and float(f"{x:.{digits}f}") else text


def probability(p: float) -> str:
    """A probability that may be tiny, as those of long responses are.

    >>> probability(0.5), probability(3e-9)
    ('0.500', '3.0e-09')
    """
    return f"{p:.1e}" if 0 < p < 5e-4 else number(p)


def percent(x: float | None) -> str:
    """
    >>> percent(0.968), percent(-0.05), percent(None)
    ('97%', '-5%', '–')
    """
    return "–" if x is None else f"{100 * x:.0f}%"


def interval(e: Estimate, digits: int = 3, sign: bool = False) -> str:
    """The 95% interval, empty where there is none.

    >>> interval(Estimate(0.5, 0.51, 0.6, 9, "")), interval(Estimate(0.5, None, None, 9, ""))
    ('[0.510, 0.600]', '')
    """
    if e.low is None or e.high is None:
        return ""
    write = signed if sign else number
    return f"[{write(e.low, digits)}, {write(e.high, digits)}]"


def with_interval(e: Estimate, digits: int = 3, sign: bool = False) -> str:
    """
    >>> with_interval(Estimate(0.5, 0.4, 0.6, 9, "search"))
    '0.500 [0.400, 0.600]'
    """
    value = signed(e.value, digits) if sign else number(e.value, digits)
    return f"{value} {interval(e, digits, sign)}".strip()


def sentence(text: str) -> str:
    """
    >>> sentence("accuracy rose"), sentence("κ rose")
    ('Accuracy rose.', 'κ rose.')
    """
    first = text[:1].upper() if text[:1].isascii() else text[:1]
    return first + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def count(n: float, noun: str) -> str:
    """
    >>> count(1, "round"), count(1200, "prompt")
    ('1 round', '1,200 prompts')
    """
    return f"{n:,g} {noun}{'' if n == 1 else 's'}"


def visible(text: str) -> str:
    """The text with every control, format and lone surrogate character spelt out.

    Line breaks, tabs and the two joiners that writing systems need stay as they are.

    >>> visible("a\\x00b\\u202ec")
    'a[U+0000]b[U+202E]c'
    """
    keep = "\n\t\u200c\u200d"
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return "".join(
        f"[U+{ord(c):04X}]" if c not in keep and unicodedata.category(c) in hidden else c
        for c in text.replace("\r\n", "\n")
    )


def shorten(text: str, limit: int = 400) -> str:
    """At most ``limit`` characters, and how many are left out.

    >>> shorten("abcdef", 4)
    'abcd … [2 more characters]'
    """
    left = len(text) - limit
    return text if left <= 0 else f"{text[:limit]} … [{left:,} more characters]"

"""Numbers and foreign text as a person reads them."""

from __future__ import annotations

import unicodedata

from srlm.types import Estimate

SYMBOL = {"kappa": "κ", "log10_kappa": "log₁₀ κ"}
NAMES = {
    "kappa": "κ, condition number",
    "log10_kappa": "log₁₀ κ",
    "failure_fraction": "F, failure fraction",
    "confidence": "confidence",
    "fidelity": "fidelity",
    "sampling_accuracy": "sampling accuracy",
    "greedy_accuracy": "greedy accuracy",
    "mode_accuracy": "mode accuracy",
    "headroom_captured": "headroom captured",
    "entropy": "entropy",
    "length": "length",
    "kl_to_base": "KL to the base",
    "distinct_responses": "distinct responses",
    "truncated": "truncated",
    "greedy_is_mode": "greedy response is the mode",
    "margin": "least margin",
    "least_confidence": "least confidence",
    "exponent": "effective exponent",
    "exponent_r2": "r² of the exponent",
    "efficiency": "update efficiency",
    "kappa_ideal": "κ after an exact round",
}

MEANINGS = {
    "log10_kappa": "logarithm of the mean of 1/p* over prompts",
    "kappa": "mean of 1/p* over prompts; 1 when the policy is sure of one response everywhere",
    "failure_fraction": "share of prompts whose likeliest response has probability 1/2 or less",
    "confidence": "mean probability p* of a prompt's likeliest response (its mode)",
    "fidelity": "share of prompts whose mode is still the base's mode",
    "sampling_accuracy": "share of random responses that are right",
    "greedy_accuracy": "share of prompts whose greedy response is right",
    "mode_accuracy": "share of prompts whose likeliest response is right: likelihood's ceiling",
    "headroom_captured": "gain in sampling accuracy / (mode accuracy - sampling accuracy) at start",
    "entropy": "of the responses to a prompt, nats",
    "length": "tokens a response",
    "kl_to_base": "nats a response",
    "distinct_responses": "share of a prompt's draws that are different responses",
    "truncated": "share of responses cut off by the length limit",
    "greedy_is_mode": "share of prompts where greedy decoding finds the mode",
    "margin": "log-probability of the mode above the runner-up, nats; the least over prompts",
    "least_confidence": "the least p* over prompts",
    "exponent": "the policy is near base^exponent; (1 + 1/beta)^round under exact updates",
    "exponent_r2": "1: pure sharpening of the base; less: drift",
    "efficiency": "log(effective exponent) / log(exponent of exact updates)",
    "kappa_ideal": "what one exact round from the previous policy would give",
}


def number(x: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals and no leading zero; large ones shorter.

    >>> number(0.5678), number(1.0), number(-0.0312, 2), number(0.0), number(None)
    ('.568', '1.000', '-.03', '.000', '–')
    >>> number(123.456), number(1.2e9)
    ('123.5', '1.2e+09')
    """
    if x is None or x != x:
        return "–"
    if abs(x) >= 1e5:
        return f"{x:.1e}"
    if abs(x) >= 100:
        digits = min(digits, 1)
    text = f"{x:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def probability(p: float) -> str:
    """A probability that may be tiny, as those of long responses are.

    >>> probability(0.5), probability(3e-9)
    ('.500', '3.0e-09')
    """
    return f"{p:.1e}" if 0 < p < 5e-4 else number(p)


def percent(x: float | None) -> str:
    """
    >>> percent(0.968), percent(-0.05), percent(None)
    ('97 %', '-5 %', '–')
    """
    return "–" if x is None else f"{100 * x:.0f} %"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """
    >>> interval(0.51, 0.6), interval(None, 0.6)
    ('[.510, .600]', '')
    """
    return "" if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def with_interval(e: Estimate) -> str:
    """
    >>> with_interval(Estimate(0.5, 0.4, 0.6, 9, "search"))
    '.500 [.400, .600]'
    """
    return f"{number(e.value)} {interval(e.low, e.high)}".strip()


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

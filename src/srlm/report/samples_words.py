"""Names and meanings of what a forecast of samples shows, for its page and the terminal."""

from __future__ import annotations

BASE = {
    "accuracy": "accuracy",
    "readable": "parseable",
    "truncated": "truncated",
    "vote_share": "vote share",
    "effective_answers": "answers, effective",
    "kappa_answer": "κ of answers",
    "log10_kappa_answer": "log₁₀ κ of answers",
    "kappa_answer_bound": "κ of answers, bound",
}
MEANS = {
    "accuracy": "right responses",
    "readable": "responses with an answer",
    "truncated": "cut off by the length limit",
    "vote_share": "share of the commonest answer",
    "effective_answers": "1 / sum of squared shares",
    "kappa_answer": "mean of 1 / max share; 1: sure",
    "log10_kappa_answer": "its logarithm, where it is large",
    "kappa_answer_bound": "without a model of the shares",
}
TERMS = {
    "format repair": "responses without an answer are given up",
    "amplification": "each prompt goes to its commonest answer",
    "transfer": "between prompts",
    "gain": "the limit minus now",
}
WHERE = (
    ("accuracy", "limit", "accuracy of the mode"),
    ("accuracy_these", "  these prompts", "no others meant"),
    ("mode_known", "mode known", "prompts with posterior above 0.95"),
    ("tied", "tied", "prompts with two most voted answers"),
    ("majority_misses", "vote misses", "P(vote of as many samples is not the mode)"),
)

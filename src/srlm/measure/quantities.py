"""The quantities of a measurement, each a pure function of arrays over prompts or samples.

Axes: P prompts, R rows (samples, or all responses with their probabilities as weights). A value
of one prompt that is unknown is not-a-number, and a share is taken over those that are known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from srlm.measure import condition
from srlm.measure.intervals import by_prompt, mean, ratio_interval, resamples, share
from srlm.measure.modes import TIE, Modes
from srlm.types import Bools, Estimate, Floats, Samples, Tokens, rows_by_prompt, undefined

ROUNDING = 1e-3
"""Two float32 passes over one response differ by less than this, nats."""


def confidence(modes: Modes, method: str, seed: int) -> dict[str, Estimate]:
    """What follows from p*(x) alone, each with the certificate of the modes.

    kappa = E[1/p*]; failure_fraction F = P[p* <= 1/2]; confidence = E[p*]; least_confidence
    mu = min p*; margin gamma = min_x [log p* - log p2], p2 the second likeliest response.
    """
    low_P, high_P = modes.logp_P, modes.upper_P
    P, exact = len(low_P), bool(modes.certified_P.all())
    out = {
        "kappa": condition.kappa(low_P, method, seed=seed, upper_P=high_P),
        "log10_kappa": condition.log10_kappa(low_P, method, seed=seed, upper_P=high_P),
    }
    if modes.note:
        out = {
            k: replace(e, note="; ".join(filter(None, (modes.note, e.note))))
            for k, e in out.items()
        }
    half = np.log(0.5) + 1e-12
    fails, may_fail = int((high_P <= half).sum()), int((low_P <= half).sum())
    out["failure_fraction"] = share(
        may_fail, P, method=method, guarantee=within(fails / P, may_fail / P, exact)
    )
    p_low_P, p_high_P = np.exp(low_P), np.exp(high_P)
    out["confidence"] = mean(
        p_low_P,
        seed,
        method,
        least=0.0,
        most=1.0,
        guarantee=within(p_low_P.mean(), p_high_P.mean(), exact),
    )
    # A minimum over prompts has no interval over prompts.
    out["least_confidence"] = Estimate(
        float(p_low_P.min()), None, None, P, method, within(p_low_P.min(), p_high_P.min(), exact)
    )
    out["margin"] = _margin(modes, method)
    return out


def margin(modes: Modes) -> tuple[Floats, Floats]:
    """Bounds on log p* - log p2 of each prompt, [P] and [P]; infinite where p2 is zero.

    0 <= margin everywhere; the bounds are equal where both outcomes are certified. Where the
    mode is not certified there is no upper bound.
    """
    known_P = modes.certified_P
    best_P = np.where(known_P, modes.logp_P, 0.0)
    low_P = np.where(known_P, best_P - modes.second_upper_P, 0.0)
    high_P = np.where(known_P, best_P - modes.second_P, np.inf)
    return np.maximum(low_P, 0.0), high_P


def _margin(modes: Modes, method: str) -> Estimate:
    low_P, high_P = margin(modes)
    P, low, high = len(low_P), float(low_P.min()), float(high_P.min())
    if not np.isfinite(high) and low != high:
        return undefined(method, "not certified", P)
    sole = "" if np.isfinite(high) else "every prompt has a single possible response"
    return Estimate(high, None, None, P, method, within(low, high, exact=low == high), sole)


def within(low: float, high: float, exact: bool) -> str:
    """The guarantee of a value that certainly lies in [low, high]."""
    return "exact" if exact else f"certified within [{low:.4g}, {high:.4g}]"


def known_share(value_P: Floats, why_unknown: str) -> Estimate:
    """Share of ones among the prompts whose value is known, Clopper-Pearson."""
    known_P = ~np.isnan(value_P)
    n, left_out = int(known_P.sum()), int((~known_P).sum())
    if not left_out:
        return share(int(value_P.sum()), n, guarantee="exact")
    note = f"{left_out} of {len(value_P)} prompts left out: {why_unknown}"
    return share(int(value_P[known_P].sum()), n, note=note)


def greedy_is_mode(modes: Modes, greedy: Samples) -> Floats:
    """1.0 where greedy decoding returns the mode, 0.0 where not, not-a-number where unknown.

    Where the mode is not certified, a greedy response less likely than the best found is
    certainly none; otherwise it is unknown. Where modes tie, any of them counts.
    """
    same_P = _same(greedy.tokens_R, modes.tokens_P)
    below_P = greedy.logp_R < modes.logp_P - ROUNDING
    tied_P = modes.certified_P & ~modes.unique_P & ~below_P
    out_P = np.where(same_P | tied_P, 1.0, 0.0)
    return np.where(modes.certified_P | (below_P & ~same_P), out_P, np.nan)


def mode_kept(modes: Modes, base_mode_P: tuple[Tokens, ...], base_unique_P: Bools) -> Floats:
    """1.0 where the mode is the base's mode, 0.0 where not, not-a-number where either is unknown
    (a tie, or no certificate)."""
    same_P = _same(modes.tokens_P, base_mode_P)
    return np.where(modes.unique_P & base_unique_P, same_P.astype(np.float64), np.nan)


def _same(one_P: tuple[Tokens, ...], other_P: tuple[Tokens, ...]) -> Bools:
    return np.array([a == b for a, b in zip(one_P, other_P, strict=True)], dtype=bool)


def accuracies(
    sampling_P: Floats,
    greedy_P: Floats,
    mode_P: Floats,
    modes: Modes,
    method: str,
    exact: bool,
    seed: int,
) -> dict[str, Estimate]:
    """Shares of right responses among samples, greedy responses and modes, where answers exist."""
    known_P = ~np.isnan(sampling_P)
    if not known_P.any():
        names = ("sampling_accuracy", "greedy_accuracy", "mode_accuracy")
        return {name: undefined("correctness", "no answers") for name in names}
    unsure = int((~modes.certified_P & ~np.isnan(mode_P)).sum())
    note = f"{unsure} modes are the best response found, without certificate" if unsure else ""
    return {
        "sampling_accuracy": mean(
            sampling_P[known_P],
            seed,
            method,
            least=0.0,
            most=1.0,
            guarantee="exact" if exact else "estimate",
        ),
        "greedy_accuracy": share(
            int(np.nansum(greedy_P)), int((~np.isnan(greedy_P)).sum()), guarantee="exact"
        ),
        "mode_accuracy": share(
            int(np.nansum(mode_P)),
            int((~np.isnan(mode_P)).sum()),
            guarantee="estimate" if unsure else "exact",
            note=note,
        ),
    }


def headroom(now_P: Floats, start_P: Floats, start_mode_P: Floats, seed: int) -> Estimate:
    """(sampling accuracy now - at start) / (mode accuracy at start - sampling accuracy at start).

    Ratio of means with a bootstrap over prompts, all three resampled together. Undefined where
    the base's mode is no better than its samples.
    """
    method = "ratio of means, bootstrap"
    known_P = ~(np.isnan(now_P) | np.isnan(start_P) | np.isnan(start_mode_P))
    n = int(known_P.sum())
    if n == 0:
        return undefined(method, "no answers")
    gain_P = (now_P - start_P)[known_P]
    room_P = (start_mode_P - start_P)[known_P]
    room = float(room_P.mean())
    if room <= 0:
        note = f"the base's mode is no better than its samples (difference {room:+.3f})"
        return undefined(method, note, n)
    value = float(gain_P.mean()) / room
    if n < 2:
        return Estimate(value, None, None, n, method)
    ends = ratio_interval(gain_P, room_P, seed)
    if ends is None:
        note = "the room between samples and mode cannot be told from none"
        return Estimate(value, None, None, n, method, note=note)
    return Estimate(value, *ends, n, method)


def of_samples(
    samples: Samples, K: int, prompts: int, method: str, exact: bool, seed: int
) -> dict[str, Estimate]:
    """entropy (nats a response), length (tokens), truncated and distinct_responses.

    entropy = E[-log pi(y|x)]; length counts the end token; truncated is the share that the
    length limit cut off; distinct_responses the expected share of distinct ones among ``K``
    samples of a prompt, (1/K) sum_y 1 - (1 - pi(y|x))^K where the responses are enumerated.
    """
    prompt_R, weight_R = samples.prompt_R, samples.weight_R
    guarantee = "exact" if exact else "estimate"

    def average(value_R: Floats, least: float, most: float, note: str = "") -> Estimate:
        value_P = by_prompt(value_R, weight_R, prompt_R, prompts)
        return mean(value_P, seed, method, least=least, most=most, guarantee=guarantee, note=note)

    cut_R = 1.0 - samples.finished_R.astype(np.float64)
    cut_P = by_prompt(cut_R, weight_R, prompt_R, prompts)
    lost = int((cut_P > 1 - 1e-9).sum())
    note = f"every response of {lost} prompts is cut off by the length limit" if lost else ""
    if exact:
        once_R = -np.expm1(K * np.log1p(-np.minimum(weight_R, 1 - 1e-16))) / K
        distinct_P = by_prompt(once_R, np.ones(len(samples)), prompt_R, prompts)
    else:
        seen_P = [
            len({samples.tokens_R[r] for r in rows}) / len(rows)
            for rows in rows_by_prompt(prompt_R, prompts)
        ]
        distinct_P = np.array(seen_P)
    return {
        "entropy": average(-samples.logp_R, 0.0, np.inf),
        "length": average(samples.length_R.astype(np.float64), 0.0, np.inf),
        "truncated": average(cut_R, 0.0, 1.0, note),
        "distinct_responses": mean(
            distinct_P, seed, method, least=0.0, most=1.0, guarantee=guarantee
        ),
    }


def kl(
    samples: Samples, base_logp_R: Floats, prompts: int, method: str, exact: bool, seed: int
) -> Estimate:
    """KL(pi || pi_0) = E_{y~pi}[log pi(y|x) - log pi_0(y|x)], nats a response.

    ``base_logp_R`` is log pi_0 of the rows. The estimate has no bias, and may be below zero by
    chance when it comes from samples. Infinite where pi_0 gives a sampled response no probability.
    """
    gap_R = np.zeros(len(samples))
    np.subtract(samples.logp_R, base_logp_R, out=gap_R, where=samples.weight_R > 0)
    gap_P = by_prompt(gap_R, samples.weight_R, samples.prompt_R, prompts)
    note = "a response has probability 0 under the base" if np.isinf(gap_P).any() else ""
    return mean(gap_P, seed, method, guarantee="exact" if exact else "estimate", note=note)


def pace(now_R: Floats, base: Samples, prompts: int, seed: int) -> tuple[Estimate, Estimate]:
    """How far along the path pi_0^p the policy is: effective exponent p and r^2.

    The slope of log pi_t(y_i|x) on log pi_0(y_i|x), centred within each prompt, over the base's
    samples; pure sharpening has r^2 = 1 (theory.md section 3, limit and pace). Interval: the
    bootstrap over prompts of their sums of squares and products. Update efficiency after t
    rounds is log p / (t log(1 + 1/beta)).

    Args:
        now_R: log pi_t of the base's samples.
        base: the base's samples, with log pi_0.
    """
    method = "slope on the base's log-probabilities, centred within prompts"
    use_R = np.isfinite(now_R) & np.isfinite(base.logp_R) & (base.weight_R > 0)
    lost = int((~use_R & (base.weight_R > 0)).sum())
    note = f"{lost} samples of the base left out: probability 0 now" if lost else ""
    weight_R = np.where(use_R, base.weight_R, 0.0)
    total_P = np.bincount(base.prompt_R, weight_R, minlength=prompts)

    def centred(value_R: Floats) -> Floats:
        sum_P = by_prompt(value_R, weight_R, base.prompt_R, prompts)
        mean_P = sum_P / np.where(total_P > 0, total_P, 1.0)
        return np.where(use_R, value_R - mean_P[base.prompt_R], 0.0)

    x_R, y_R = centred(base.logp_R), centred(np.where(use_R, now_R, 0.0))
    sums_P3 = np.stack(
        [by_prompt(v, weight_R, base.prompt_R, prompts) for v in (x_R * x_R, x_R * y_R, y_R * y_R)],
        axis=1,
    )
    xx, xy, yy = sums_P3.sum(0)
    if xx <= TIE:
        why = "the base's samples of each prompt are all equally likely"
        return undefined(method, why, prompts), undefined(method, why, prompts)
    blocks = [counts_BP @ sums_P3 for counts_BP in resamples(prompts, seed)]
    sums_B3 = np.concatenate([[[xx, xy, yy]], *blocks])
    # A resample of prompts whose samples are all alike says nothing and is left out.
    slope, r2_B = _slope_and_r2(sums_B3[sums_B3[:, 0] > TIE])
    out = []
    for value_B in (slope, r2_B):
        low, high = (float(q) for q in np.quantile(value_B, [0.025, 0.975]))
        out.append(Estimate(float(value_B[0]), low, high, prompts, method, note=note))
    return out[0], out[1]


def _slope_and_r2(sums_B3: Floats) -> tuple[Floats, Floats]:
    """Slope and r^2 of regressions from their sums of x^2, xy and y^2."""
    xx_B, xy_B, yy_B = sums_B3.T
    flat_B = yy_B <= TIE
    r2_B = np.where(flat_B, 0.0, xy_B**2 / (xx_B * np.where(flat_B, 1.0, yy_B)))
    return xy_B / xx_B, np.minimum(r2_B, 1.0)

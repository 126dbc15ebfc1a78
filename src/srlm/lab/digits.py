"""Digits as self-rewarding: a softmax regression samples a digit for an image, and learns from it.

scikit-learn's 1,797 images of 64 pixels, in a fixed random order: the first 1,000 train the start
and are the prompts of the rounds, the other 797 are held out. Two starts:

* ``good``: regression on all 1,000 labels, kappa about 1.72;
* ``poor``: on 60 labels with strong regularisation, kappa about 9.7 of at most 10.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from srlm.data import prompt_id
from srlm.errors import UserError
from srlm.policies.linear_softmax import LinearSoftmax
from srlm.types import Floats, Ints, Prompt

TRAIN = 1000
SCALE = 5.0
STARTS = {"good": (1000, 0.07), "poor": (60, 0.0013)}
"""Labels, and scikit-learn's C of the regression."""


def digits(start: str = "good") -> tuple[LinearSoftmax, list[Prompt], list[Prompt]]:
    """pi_0, training prompts and held-out prompts with answers.

    The policy is ``LinearSoftmax`` with class features, phi(x, y) = e_y (x) v / 5, D = 640, without
    a bias; v are the pixels in [0, 1], |v| < 5.

    Raises:
        UserError: no such start, or scikit-learn is not installed.
    """
    if start not in STARTS:
        raise UserError(f"digits: no start {start!r}", f"choose among {', '.join(STARTS)}")
    v_ND, label_N = _images()
    labels, strength = STARTS[start]
    theta_MD = _regression(labels, strength)
    texts = tuple(str(m) for m in range(10))
    prompts = [
        Prompt(id=prompt_id(v.tolist()), content=v.tolist(), answers=(str(y),), line=i + 1)
        for i, (v, y) in enumerate(zip(v_ND, label_N, strict=True))
    ]
    return (
        LinearSoftmax(SCALE * theta_MD.ravel(), texts, scale=SCALE),
        prompts[:TRAIN],
        prompts[TRAIN:],
    )


@cache
def _images() -> tuple[Floats, Ints]:
    """Pixels over 16 [N, 64] in a fixed random order, and labels [N]."""
    data: Any = _sklearn("datasets").load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return data.data[order] / 16.0, data.target[order]


@cache
def _regression(labels: int, strength: float) -> Floats:
    """Weights of a softmax regression without bias, [10, 64]."""
    v_ND, label_N = _images()
    model = _sklearn("linear_model").LogisticRegression(
        C=strength, fit_intercept=False, max_iter=2000, tol=1e-8
    )
    return np.asarray(model.fit(v_ND[:labels], label_N[:labels]).coef_)


def _sklearn(module: str) -> Any:
    try:
        import importlib

        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise UserError("the digits need scikit-learn", "pip install scikit-learn") from None

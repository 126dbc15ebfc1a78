"""Small transformers as instances: their hidden states' spectrum, and which of them to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from srlm.data import prompt_id
from srlm.demo.base import base_folder, cached_base
from srlm.demo.corpus import STARTS, prompts, true_answer
from srlm.demo.network import RECIPE
from srlm.lab.setting import Setting
from srlm.measure.fisher_product import FisherProduct
from srlm.policies.load import load
from srlm.types import Floats, Ints, Prompt, Samples

MAX_TOKENS = 16
FAMILIES = (
    ("llama", 300),
    ("gpt2", 300),
    ("qwen3", 300),
    ("llama", 150),
)
"""Architecture and training steps, 10 s to 40 s of training each. Mistral differs from llama by a
sliding window alone, which texts this short never fill: the same numbers, so left out."""


def demo_prompts(count: int, seed: int) -> list[Prompt]:
    """Prompts of the demo that no base was trained on, with their right answers."""
    return [
        Prompt(id=prompt_id(text), content=text, answers=(true_answer(text),), line=i + 1)
        for i, text in enumerate(prompts(count, seed))
    ]


def open_base(arch: str, steps: int, setting: Setting) -> Any:
    """The policy of a trained base, trained now unless it is in the cache."""
    recipe = replace(RECIPE, steps=steps)
    return load(cached_base(STARTS["good"], setting.seed, arch=arch, recipe=recipe))


def demo_base(setting: Setting) -> tuple[str, Any] | None:
    """The demo's own base where it was built before; else a shorter-trained one, not when quick."""
    folder = base_folder(STARTS["good"], setting.seed)
    if folder.exists():
        return f"llama, {RECIPE.steps:,} steps", load(folder)
    if setting.quick:
        return None
    return "llama, 300 steps", open_base("llama", 300, setting)


def hidden_states(policy: Any, asked: list[Prompt], samples: Samples) -> Floats:
    """Last hidden states at the response's positions, [N, width]: what the output layer, a
    linear softmax, has for features."""
    return FisherProduct(policy, asked, samples).hidden_states()


def spectrum(states_ND: Floats) -> Floats:
    """Eigenvalues of the covariance, largest first."""
    return np.asarray(np.linalg.eigvalsh(np.cov(states_ND.T))[::-1])


def hidden_spectrum(setting: Setting) -> tuple[str, Floats] | None:
    """Name and spectrum of the demo model's hidden states over sampled responses."""
    base = demo_base(setting)
    if base is None:
        return None
    name, policy = base
    asked = demo_prompts(setting.pick(256, 64), setting.seed)
    samples = policy.sample(asked, 8, seed=setting.seed, max_tokens=MAX_TOKENS)
    return name, spectrum(hidden_states(policy, asked, samples))


def answers(samples: Samples, asked: list[Prompt]) -> Floats:
    """1 where the text after the last = is the answer, [R]."""
    which: Ints = samples.prompt_R
    return np.array(
        [
            float(text.rsplit("=", 1)[-1] == asked[p].answers[0])
            for p, text in zip(which, samples.text_R, strict=True)
        ]
    )

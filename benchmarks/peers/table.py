"""The sides by name, and the settings that each was tuned to."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from . import online_dpo, ours, plain, trl_dpo, trl_sft
from .side import Setting, Side

TUNING = Path(__file__).parents[1] / "results/round_tuning.json"

SIDES: dict[str, Side] = {
    "ours": ours.side("weighted"),
    "ours tuned": ours.side("weighted"),
    "ours dpo": ours.side("dpo"),
    "ours square": ours.side("square", pairs__kind="pairs"),
    "ours best": ours.side("best-of-n"),
    "trl dpo": trl_dpo.one,
    "trl dpo sigmoid": trl_dpo.one,
    "trl sft": trl_sft.one,
    "trl online": online_dpo.one,
    "plain": plain.one,
}
TUNED_AS = {"plain": "ours square"}
"""Whose settings a side takes that was not tuned itself: ``plain`` has the loss of ``ours square``.
``ours`` takes the defaults."""
AGAINST = (
    ("trl dpo", "ours"),
    ("trl dpo", "ours dpo"),
    ("trl dpo", "ours best"),
    ("trl sft", "ours"),
    ("trl sft", "ours best"),
    ("trl online", "ours"),
    ("plain", "ours"),
    ("plain", "ours square"),
)
"""Ratios shown: the other side over ours."""
LIBRARIES = {
    "trl dpo": ("datasets", "trl.trainer.dpo_trainer"),
    "trl dpo sigmoid": ("datasets", "trl.trainer.dpo_trainer"),
    "trl sft": ("datasets", "trl.trainer.sft_trainer"),
    "trl online": ("datasets", "trl.experimental.online_dpo.online_dpo_trainer"),
}
"""What a side imports when it is first used."""

LRS = (2.5e-4, 5e-4, 1e-3, 2e-3)
SIGMOID = [{"lr": lr, "beta": b} for lr in LRS for b in (0.3, 1.0, 3.0)]
DPO = SIGMOID + [{"lr": lr, "beta": 1.0, "sft": w} for lr in LRS[1:3] for w in (1.0, 10.0)]
BEST = [{"lr": lr} for lr in (*LRS, 4e-3)]
GRIDS: dict[str, list[dict[str, float]]] = {
    "ours tuned": [{"lr": lr, "beta": b} for lr in LRS for b in (0.25, 0.5, 1.0)],
    "ours dpo": DPO,
    "ours square": [{"lr": lr, "beta": b} for lr in LRS for b in (1.0, 2.0, 4.0)],
    "trl dpo": DPO,
    "trl dpo sigmoid": SIGMOID,
    "ours best": BEST,
    "trl sft": BEST,
    "trl online": [{"lr": lr, "beta": b} for lr in LRS for b in (0.3, 1.0, 3.0)],
}
"""What is tried for each; four points of DPO are with its likelihood term."""


def tuned() -> dict[str, Any]:
    """The tuning's results, as far as they are there."""
    return json.loads(TUNING.read_text(encoding="utf-8")) if TUNING.is_file() else {}


def setting_of(name: str) -> Setting:
    """The setting of a side: what its tuning found, else the defaults."""
    found = tuned().get("sides", {}).get(TUNED_AS.get(name, name), {})
    return Setting(**found.get("best", {}))


def imported(name: str) -> None:
    """Import all that a side needs, without its progress bars."""
    os.environ["TQDM_DISABLE"] = "1"
    for module in LIBRARIES.get(name, ()):
        importlib.import_module(module)
    if name in LIBRARIES:
        import datasets
        import transformers

        datasets.disable_progress_bars()
        transformers.utils.logging.set_verbosity_error()

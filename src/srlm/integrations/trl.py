"""For TRL's trainers: rewards for GRPO and RLOO, and a callback that measures and stops.

::

    from trl import GRPOTrainer
    from srlm.integrations.trl import ForecastCallback, vote_reward

    trainer = GRPOTrainer(model, reward_funcs=vote_reward("math-verify"), ...)
    trainer.add_callback(ForecastCallback(trainer, prompts, grader="math-verify"))
    trainer.train()

Written for TRL 1.16; TRL itself is not imported here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from srlm import stopping
from srlm.config import MeasureSettings, SampleSettings
from srlm.errors import UserError
from srlm.forecast import after_round, pace
from srlm.grading import grader as named_grader
from srlm.integrations.votes import Votes
from srlm.measure.evaluate import BaseReference, reference
from srlm.policies.hf import CausalLM
from srlm.report.best import best_round
from srlm.report.warnings import Notice, warnings
from srlm.rounds import Method, measure_round
from srlm.run_folder import Run, aim_of
from srlm.types import Estimate, Prompt, PromptTable, Round, Samples

LOG = logging.getLogger(__name__)
RewardFunction = Callable[..., list[float]]
SHOWN = (
    "kappa",
    "log10_kappa",
    "confidence",
    "fidelity",
    "base_answer_share",
    "answer_agreement",
    "answer_spread",
    "sampling_accuracy",
    "length",
    "truncated",
    "entropy",
)
"""Estimates that the callback logs, each as ``srlm/NAME``."""


def vote_reward(
    answer: str = "math-verify",
    *,
    kind: Literal["share", "majority"] = "share",
    max_tokens: int | None = None,
) -> RewardFunction:
    """A TRL reward: the vote among a prompt's own completions, no labels.

    r(x, y) = v(a(y)|x), the share of the prompt's completions with y's answer (ScPO), or 1 / t for
    the t commonest answers and 0 for others (TTRL). Completions whose answer cannot be parsed get
    0. Logged through ``log_metric``: vote_share, readable_share, kappa_answer with its interval,
    effective_answers, flip_rate (``integrations.votes``).

    A prompt's completions must be rewarded in one batch, as TRL does on one process; on several,
    let ``per_device_train_batch_size`` be a multiple of ``num_generations``.

    Args:
        answer: how answers are read, as the command line's ``--answer``.
        kind: ``share`` or ``majority``.
        max_tokens: ``max_completion_length``: a completion of so many tokens counts as cut off and
            has no answer. None: the text alone counts.

    Raises:
        UserError: an answer reader that does not exist; fewer than two completions of a prompt.
    """
    count = Votes(named_grader(answer))

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **others: Any,
    ) -> list[float]:
        key_R = [_key(x) for x in prompts]
        if len(key_R) and min(key_R.count(key) for key in set(key_R)) < 2:
            raise UserError(
                "a vote needs at least two completions of each prompt in one batch",
                "set num_generations to 4 or more, and per_device_train_batch_size to a multiple",
            )
        finished_R = None
        if max_tokens is not None and completion_ids is not None:
            finished_R = [len(ids) < max_tokens for ids in completion_ids]
        vote = count(key_R, [_text(x) for x in completions], finished_R)
        if log_metric is not None:
            for name, value in vote.metrics.items():
                log_metric(f"srlm/{name}", value)
        found_R = vote.share_R if kind == "share" else vote.majority_R
        return [float(x) for x in np.nan_to_num(found_R)]

    reward.__name__ = f"vote_{kind}"
    return reward


def likelihood_reward(model: Any, tokenizer: Any, *, per_token: bool = False) -> RewardFunction:
    """A TRL reward: r(x, y) = log pi(y|x) under ``model``, nats; by |y| with ``per_token``.

    Give the model in training for a reward that is evaluated anew each step (self-reward), or a
    copy of it for a frozen one. The completion's own tokens are scored, without those after its
    first end token. One forward pass per completion, no gradient.

    Args:
        model: a Hugging Face causal model.
        tokenizer: its tokenizer.
        per_token: divide by the number of tokens.

    As in TRL, prompts that are messages are put into the chat template, and text is not.
    """

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        log_metric: Callable[[str, float], None] | None = None,
        **others: Any,
    ) -> list[float]:
        training = model.training
        policy = CausalLM(model, tokenizer, chat=_messages(prompts))
        unique = list(dict.fromkeys(_key(x) for x in prompts))
        place = {key: p for p, key in enumerate(unique)}
        contents = {_key(x): x for x in prompts}
        asked = [Prompt(str(p), contents[key]) for p, key in enumerate(unique)]
        prompt_R = np.array([place[_key(x)] for x in prompts], dtype=np.int64)
        tokens_R = [_until_end(ids, policy.ends) for ids in completion_ids]
        logp_R = policy.log_prob(asked, prompt_R, tokens_R)
        model.train(training)
        length_R = np.array([len(x) for x in tokens_R])
        if log_metric is not None:
            log_metric("srlm/log_likelihood", float(logp_R.mean()))
            log_metric("srlm/length", float(length_R.mean()))
        return [float(x) for x in (logp_R / length_R if per_token else logp_R)]

    reward.__name__ = "likelihood_per_token" if per_token else "likelihood"
    return reward


class ForecastCallback(TrainerCallback):
    """Measures the model in training as a run of srlm does, logs it, and may end the training.

    At the start and every ``every`` steps: kappa with its guarantee, confidence, fidelity to the
    base modes, what is kept of the base's answers, and accuracy where prompts have answers, each
    as ``srlm/NAME``; and the warnings of a run's report, as they come. At the start also where
    rounds of the reward lead from here, before any step, as ``srlm/forecast/NAME``. Prompts that
    are messages are put into the chat template, and text is not, as in TRL.

    Args:
        trainer: a TRL or transformers trainer with ``processing_class``.
        prompts: held-out prompts, as ``srlm.read_prompts`` gives them.
        grader: how answers are read, as the command line's ``--answer``.
        every: steps between measurements.
        reward: the self-reward that trains, as ``srlm run --reward``; chooses the stop rule, and
            what is forecast. Where samples do not show it (a judge's), nothing is.
        beta: of the rounds that are forecast.
        stop: end the training by srlm's label-free rule (``srlm.stopping``).
        settings: samples per prompt and what search may spend.
        max_tokens: length limit of a measured response.
        seed: of the measured samples.
    """

    def __init__(
        self,
        trainer: Any,
        prompts: Sequence[Prompt],
        *,
        grader: str = "math-verify",
        every: int = 50,
        reward: str = "consistency",
        beta: float = 1.0,
        stop: bool = False,
        settings: MeasureSettings | None = None,
        max_tokens: int = 256,
        seed: int = 0,
    ) -> None:
        self.trainer = trainer
        self.prompts = list(prompts)
        self.every, self.seed = every, seed
        self.reward, self.beta = reward, beta
        self.rule = stopping.rule_of(reward)
        self.stop = stop
        self.method = Method(
            samples=SampleSettings(max_tokens=max_tokens),
            measure=settings or MeasureSettings(prompts=len(self.prompts)),
            grader=named_grader(grader),
        )
        self.rounds: list[Round] = []
        """What was measured: the start first."""
        self.forecast: Mapping[str, Any] | None = None
        """From the start, as a run's ``forecast.json``."""
        self.warnings: tuple[Notice, ...] = ()
        """Of all that was measured so far."""
        self.ended: stopping.Stop | None = None
        self._base: BaseReference | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        self._measure(state, control)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if state.global_step % self.every == 0:
            self._measure(state, control)

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        training = model.training
        chat = _messages([x.content for x in self.prompts])
        policy = CausalLM(model, self.trainer.processing_class, chat=chat)
        made = measure_round(
            policy, self.prompts, self.method, self._base, self.rounds, self.seed, lambda _: None
        )
        model.train(training)
        if self._base is None:
            self._base = reference(made)
        table = PromptTable.of(made.table)
        self.rounds.append(Round(len(self.rounds), made.estimates, table=table))
        known = {name: made.estimates[name] for name in SHOWN if name in made.estimates}
        if len(self.rounds) == 1 and not after_round.asked(self.reward):
            self.forecast = self._forecast(made.samples, table)
            end = self.forecast["later"][-1]
            known |= {f"forecast/{x}": Estimate.from_json(end.get(x)) for x in pace.FORECAST}
        self._warn()
        values = {f"srlm/{k}": e.value for k, e in known.items() if e.value is not None}
        self.trainer.log(values | {"srlm/warnings": float(len(self.warnings))})
        self.ended = stopping.by_measurement([r.estimates for r in self.rounds], self.rule)
        if self.ended is not None and self.stop:
            control.should_training_stop = True

    def _forecast(self, samples: Samples, table: PromptTable) -> dict[str, Any]:
        """Of the rounds from here, as a run makes it after round 0."""
        likelihood = aim_of({"reward": self.reward}) == "responses"
        state = after_round.state_of(samples, table, self.method.grader, likelihood=likelihood)
        rounds = after_round.method_of(self.reward, self.beta, self.method.samples.per_prompt)
        return after_round.forecast_after(self.rounds, state, [], rounds, self.seed)

    def _warn(self) -> None:
        """Log the warnings that are new."""
        settings = {"reward": self.reward, "measure.samples": self.method.measure.samples}
        run = Run(Path(), settings, {}, tuple(self.rounds))
        before = {notice.code for notice in self.warnings}
        self.warnings = warnings(run, best_round(run))
        for notice in self.warnings:
            if notice.code not in before:
                LOG.warning("%s: %s %s", notice.title, notice.evidence, notice.advice)


def _messages(prompts: Sequence[Any]) -> bool:
    return not all(isinstance(x, str) for x in prompts)


def _key(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)


def _text(completion: Any) -> str:
    """A completion is text, or messages of which the last says the answer."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _until_end(ids: Sequence[int], ends: Any) -> tuple[int, ...]:
    out: list[int] = []
    for token in ids:
        out.append(int(token))
        if int(token) in ends:
            break
    return tuple(out)

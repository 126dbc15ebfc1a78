"""Which device, which numbers, and how much is run at once.

Memory in bytes, for P parameters of w bytes each (2 or 4), N positions run, n layers of H hidden
and F inner numbers, K keys and values a position and layer, a vocabulary of V, C = ``CHUNK``
scores of the vocabulary at once (``srlm.policies.network``):

* scoring:  w P + N w (n K + 6 H + 3 F) + 12 C
* sampling, D rows of L positions:  w P + D (w L (n K + 2 K + 2 H) + (w + 8) V) + w D (6 H + 3 F):
  one layer at a time is copied as it grows, and expanded to all heads
* search, M positions kept:  w P + w n K M and a sampling step's rows
* update, T parameters trained:  w P + (w + 8) T, and 8 T more where w is 2 (float32 copies and
  their gradients), + N w n (2 K + 10 H + 6 F) + 12 C; with layers computed again in the backward
  pass N w (n H + 2 K + 10 H + 6 F) in place of the third term. Rows that share a prompt each copy
  its keys and values, and expand them to all heads: w n (2 K + 2 H) a position of the prompt. The
  embedding's gradient, where it is trained, comes from both ends of the network: 2 w V H.

On the CPU all of these come beside what the process holds anyway: interpreter, libraries,
tokenizer (``beside_weights``; half a gigabyte, most of it torch and transformers); and the
allocator's ``HOLES``.

Budgets are shares of what the device has, not of what is free at the moment, so that a run that is
taken up again continues bit for bit; where it is less all the same, parts are halved.

No autocast: the number format of the parameters is that of the products, because log-probabilities
are rewards here, and certificates must know how they were rounded.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srlm.errors import UserError, first_line
from srlm.types import Ints

POSITIONS = {"cpu": 1 << 16}
"""Positions of keys and values at once, at most; elsewhere 2^20."""
PASS = {"cpu": 1 << 13}
"""Positions of a pass without gradient, at most; elsewhere 2^17."""
TRAINED = {"cpu": 1 << 11}
"""Positions of a pass with gradient, at most; elsewhere 2^15. More gain nothing on the CPU."""
HOLES = 0.2
"""What the allocator of the CPU keeps between tensors, over what they take: as much as 0.17 was
seen while SmolLM2-135M was trained."""
SEARCHED = 512
"""Rows that a forward pass of a search aims at."""
ENTRIES = 1 << 24
"""Log-probabilities that it may return at once, rows x V: 64 MiB in float32."""
LEAST_BYTES = 3 << 25
"""Activations of a pass with gradient that are always allowed."""
CGROUP = Path("/sys/fs/cgroup/memory.max")
STATUS = Path("/proc/self/status")
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
"""What gives free memory back to the system: glibc has it."""


def find(name: str) -> torch.device:
    """The device of that name; "auto": CUDA, then MPS, then the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name}: {first_line(error)}",
            "use --device auto or --device cpu",
        ) from None


def check_has(device: torch.device, dtype: torch.dtype) -> None:
    """Refuse number formats that the device does not have.

    Raises:
        UserError: float64 on MPS.
    """
    if device.type == "mps" and dtype == torch.float64:
        raise UserError(
            "--dtype float64: MPS has no float64", "use --dtype float32, or --device cpu"
        )


def memory(device: torch.device) -> int:
    """Bytes that the device has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    most = 8 << 30
    if "SC_PHYS_PAGES" in os.sysconf_names:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text(encoding="ascii").strip() if CGROUP.is_file() else "max"
    return min(most, int(limit)) if limit.isdecimal() else most


def beside_weights(device: torch.device, shape: Shape) -> int:
    """Bytes of main memory that the process holds now beside a model's weights, which are on the
    device; 0 where the device has memory of its own, or the system does not say."""
    if device.type != "cpu" or not STATUS.is_file():
        return 0
    told = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    resident = 1024 * int(told["VmRSS"].split()[0])
    return max(0, resident - shape.width * shape.parameters)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model that decide its memory; see the module."""

    parameters: int
    trained: int
    width: int
    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int

    @property
    def kept(self) -> int:
        """Bytes of keys and values of one position."""
        return self.width * self.layers * self.keys

    def scoring(self, positions: int, chunk: int) -> int:
        """Peak bytes of a pass without gradient."""
        return self.width * self.parameters + positions * self.scored + 12 * chunk

    def sampling(self, rows: int, length: int) -> int:
        """Peak bytes of sampling ``rows`` responses at once, prompt and response ``length``."""
        return self.width * self.parameters + rows * self.row(length)

    def search(self, positions: int, rows: int, length: int) -> int:
        """Peak bytes of a search that keeps ``positions`` and opens ``rows`` paths at once."""
        return self.sampling(rows, length) + positions * self.kept

    def update(self, positions: int, chunk: int, *, recomputed: bool = False) -> int:
        """Peak bytes of an update with AdamW."""
        passed = positions * self.trained_on(recomputed=recomputed) + 12 * chunk
        ends = 2 * self.width * self.vocabulary * self.hidden
        return self.states + passed + (ends if self.trained == self.parameters else 0)

    @property
    def scored(self) -> int:
        """Bytes of a position without gradient."""
        return self.kept + self.width * (6 * self.hidden + 3 * self.inner)

    def row(self, length: int) -> int:
        """Bytes of a row that grows to ``length`` positions."""
        step = self.width * (6 * self.hidden + 3 * self.inner + self.vocabulary)
        layer = 2 * self.width * (self.keys + self.hidden)
        return length * (self.kept + layer) + step + 8 * self.vocabulary

    @property
    def states(self) -> int:
        """Bytes of the parameters and of what AdamW keeps."""
        more = 8 if self.width == 2 else 0
        return self.width * self.parameters + (self.width + 8 + more) * self.trained

    @property
    def copied(self) -> float:
        """What a row copies of a position of its prompt, in positions with gradient."""
        return self.width * self.layers * 2 * (self.keys + self.hidden) / self.trained_on()

    def trained_on(self, *, recomputed: bool = False) -> int:
        """Bytes of a position with gradient."""
        layer = 2 * self.keys + 10 * self.hidden + 6 * self.inner
        if recomputed:
            return self.width * (self.layers * self.hidden + layer)
        return self.width * self.layers * layer


def shape_of(model: Any) -> Shape:
    """The sizes of a Hugging Face model."""
    config = model.config.get_text_config()
    parameters = list(model.parameters())
    hidden = int(config.hidden_size)
    layers = int(config.num_hidden_layers)
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    pairs = int(getattr(config, "num_key_value_heads", None) or heads)
    dim = int(getattr(config, "head_dim", None) or hidden // heads)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    experts = int(getattr(config, "num_experts_per_tok", None) or 1)
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        width=parameters[0].element_size(),
        layers=layers,
        hidden=hidden,
        inner=inner * experts,
        keys=2 * pairs * dim,
        vocabulary=int(config.vocab_size),
    )


class Budget:
    """How many positions or rows are run at once on the model's device.

    Args:
        model: a Hugging Face model on its device.
        positions: at most so many, of every kind; None: as many as are worth it and fit.
    """

    def __init__(self, model: Any, positions: int | None = None) -> None:
        self.positions = positions
        self._model, self._share = model, 1.0
        self.shards = 1
        """Devices that parameters and AdamW's states are spread over."""

    @property
    def device(self) -> torch.device:
        return next(self._model.parameters()).device

    @property
    def shape(self) -> Shape:
        """The model's sizes now: adapters come and go."""
        return shape_of(self._model)

    def scored(self) -> int:
        """Positions of a pass without gradient."""
        return self._fitting(PASS, 1 << 17, self._room() // self.shape.scored)

    def rows(self, length: int) -> int:
        """Rows that grow to ``length`` positions each."""
        if self.positions is not None:
            return max(1, self.positions // length)
        most = POSITIONS.get(self.device.type, 1 << 20) // length
        return max(1, int(self._share * min(most, self._room() // self.shape.row(length))))

    def held(self) -> int:
        """Positions that a search keeps."""
        if self.positions is not None:
            return self.positions
        return max(1, int(self._share * self._room()) // max(1, self.shape.kept))

    def measuring(self, prompts: int, sampled: int, nodes: int, longest: int, more: int) -> int:
        """Peak bytes of sampling, and of a search.

        Args:
            prompts: of ``longest`` positions at most, and ``more`` of their responses.
            sampled: responses, that many at once where they fit.
            nodes: prefixes that a search opens in all, at most; 0 where there is none.
        """
        length = longest + more
        searched = min(SEARCHED, max(1, ENTRIES // self.shape.vocabulary)) if nodes else 0
        rows = min(max(sampled, searched), self.rows(length))
        held = min(nodes + prompts * longest, self.held()) if nodes else 0
        return self.with_holes(self.shape.search(held, rows, length))

    def with_holes(self, peak: int) -> int:
        """Bytes that an allocator takes for so many, at most."""
        return int(peak * (1 + HOLES)) if self.device.type == "cpu" else peak

    def trained(self, *, recomputed: bool = False) -> int:
        """Positions of a pass with gradient. On the CPU they may take as much memory as the
        parameters do, or ``LEAST_BYTES`` if that is more."""
        room = (memory(self.device) - self.shape.states // self.shards) // 2
        if self.device.type == "cpu":
            room = min(room, max(LEAST_BYTES, self.shape.width * self.shape.parameters))
        return self._fitting(TRAINED, 1 << 15, room // self.shape.trained_on(recomputed=recomputed))

    def trainable(self, positions: int) -> bool:
        """Whether a pass with gradient over so many positions fits without computing again."""
        room = (memory(self.device) - self.shape.states // self.shards) // 2
        return positions * self.shape.trained_on(recomputed=False) <= room

    def _room(self) -> int:
        """Bytes: half of what the parameters leave."""
        return (memory(self.device) - self.shape.width * self.shape.parameters) // 2

    def _fitting(self, most: dict[str, int], otherwise: int, room: int) -> int:
        if self.positions is not None:
            return self.positions
        return max(1, int(self._share * min(most.get(self.device.type, otherwise), room)))

    def release(self) -> None:
        """Give back what is not used any more: what one stage leaves in pieces, the next one cannot
        use in whole. On the CPU where the C library can (glibc)."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "cpu" and TRIM is not None:
            TRIM(0)

    def halve(self) -> None:
        """From now on half as much; said the first time."""
        if self._share == 1.0:
            logging.getLogger("srlm").warning(
                "out of memory on %s: continuing with half as much at once", self.device
            )
        self._share /= 2
        if self.positions is not None:
            self.positions = max(1, self.positions // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    told = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(x in str(error) for x in told)


def in_halves(run: Callable[[Ints], None], rows: Ints, budget: Budget) -> None:
    """``run`` on the rows, or on halves of them where memory runs out.

    Raises:
        UserError: it runs out on a single row.
    """
    try:
        run(rows)
        return
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(rows) == 1:
            raise no_room(budget) from error
    budget.halve()
    for half in np.array_split(rows, 2):
        in_halves(run, half, budget)


def no_room(budget: Budget) -> UserError:
    """Not even one response fits."""
    return UserError(
        f"out of memory on {budget.device} with one response at a time",
        "lower --max-tokens, use --dtype bfloat16 or --lora, or another --device",
    )


def check_trainable(dtype: torch.dtype) -> None:
    """Refuse number formats that an update cannot be made in.

    Raises:
        UserError: float16.
    """
    if dtype == torch.float16:
        raise UserError(
            "updates in float16: squared gradients under 6e-8 vanish, and with them AdamW's "
            "epsilon, so that steps are of no size that was asked for",
            "use --dtype bfloat16 (its updates keep float32 copies) or --dtype float32",
        )


ROUNDING = {torch.bfloat16: 8.0, torch.float16: 8.0}
"""Rounding of a token's log-probability, in units of the format's epsilon. Products add up in
float32 there, so that sums are not what is rounded most; see ``logp_error``."""


def logp_error(dtype: torch.dtype, tokens: int) -> float:
    """How far a response's log-probability may be from that in exact arithmetic, nats.

    ``ROUNDING`` eps a token in half precision, eps the distance from 1 to the next number, and 256
    eps of float32 otherwise (in float64 too: norms and rotations are computed in float32 by most
    models). An allowance by measurement, not a bound: SmolLM2-135M, 30 layers, took 3.8 eps a token
    in bfloat16, 4.6 in float16, and 86 in float32.

    >>> f"{logp_error(torch.float32, 10):.1e}", round(logp_error(torch.bfloat16, 10), 2)
    ('3.1e-04', 0.62)
    """
    if dtype in ROUNDING:
        return ROUNDING[dtype] * torch.finfo(dtype).eps * tokens
    return 256 * torch.finfo(torch.float32).eps * tokens

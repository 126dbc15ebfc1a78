"""From the settings to an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from srlm.config import EngineSettings, ProbeConfig, RunConfig, SampleSettings
from srlm.engines.base import LOCAL, Engine
from srlm.engines.cluster import answering, on_cluster
from srlm.engines.served import Served
from srlm.engines.server import Server
from srlm.engines.vllm import Vllm, require_vllm
from srlm.errors import UserError
from srlm.policies.load import load_for


def check(own: EngineSettings, samples: SampleSettings | None = None) -> None:
    """See that the settings go together and that what they name is there; nothing is begun.

    Args:
        own: of the engine.
        samples: of a run.

    Raises:
        UserError: they do not, or it is not.
    """
    kind = own.kind
    if kind == "server":
        if own.url is None:
            raise UserError("--engine server: no address", "give --server http://localhost:8000/v1")
        for url in own.url.split(","):
            if not url.startswith(("http://", "https://")):
                raise UserError(
                    f"--server {url}: no http address", "give it as http://localhost:8000/v1"
                )
    elif own.url is not None or own.reload is not None:
        raise UserError(
            f"--engine {kind} with --server or --reload: it asks no server",
            "use --engine server, or leave them out",
        )
    if kind == "vllm":
        require_vllm()
    if kind == "ray":
        answering(own.ray_address)
    elif own.ray_address is not None:
        raise UserError(
            f"--engine {kind} with --ray-address: it uses no Ray cluster",
            "use --engine ray, or leave it out",
        )
    if (
        samples is not None
        and kind in ("server", "vllm")
        and (samples.mu is not None or samples.source != "sampling")
    ):
        raise UserError(
            f"--engine {kind} with --mu or --source enumerate: it samples so many of each prompt",
            "leave them out, or use --engine local",
        )


@contextmanager
def opened(config: RunConfig | ProbeConfig, base: Path) -> Iterator[Engine]:
    """The engine that the settings name, while inside; they are checked.

    Args:
        base: folder of the model.
    """
    own = config.engine
    if own.kind == "local":
        yield LOCAL
    elif own.kind == "server":
        assert own.url is not None  # checked
        servers = tuple(
            Server(
                url=url,
                model=own.served_model or "",
                concurrency=own.concurrency,
                timeout=own.timeout,
                retries=own.retries,
                key=os.environ.get("OPENAI_API_KEY"),
            )
            for url in own.url.split(",")
        )
        served = Served(servers, base, own.reload, own.timeout, logprobs=own.rescore < 1)
        yield Engine(served, "server", own.rescore, own.gap)
    elif own.kind == "ray":
        yield on_cluster(own.ray_address, partial(load_for, config))
    else:
        vllm = Vllm(config.dtype, timeout=own.timeout, anew=not torch.cuda.is_available())
        try:
            yield Engine(vllm, "vllm", own.rescore, own.gap)
        finally:
            vllm.close()

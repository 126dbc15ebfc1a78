"""The machine and the versions that a benchmark ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """Processor, cores, threads, versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("srlm", "torch", "transformers", "numpy")},
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    return f"{names[0]}, {platform.machine()}" if names else platform.machine()

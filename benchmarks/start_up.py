"""Start-up: how long before a command says something, and before a model draws its first token.

    python benchmarks/start_up.py [--repeats 5] [--quick]

Whole processes, in turn: an empty interpreter, ``import srlm``, ``srlm --help``, ``srlm run
--help``, ``srlm plan``, ``srlm measure`` of 16 prompts on the demo's good base; beside them
``import torch``, transformers' AutoModelForCausalLM and, where it is installed, ``trl --help``.
Then the way to the first token in one process, cut into interpreter, torch, srlm's imports,
transformers, loading, first pass. Results: benchmarks/results/start_up.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from side_by_side import REPEATS, interleaved, ratio, spread, write

PROMPTS = 16
PLAN = [
    "--kappa0",
    "4",
    "--margin",
    "0.5",
    "--confidence",
    "0.2",
    "--complexity",
    "30",
    "--beta",
    "1",
]
STAGES = ("interpreter", "torch", "srlm", "transformers", "load", "first token")


def first_token(folder: str, prompt: str) -> dict[str, float]:
    """Seconds of each stage from a process's start to a token."""
    script = str(Path(__file__).with_name("first_token.py"))
    done = subprocess.run(
        [sys.executable, script, folder, prompt, str(time.time())],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(zip(STAGES, json.loads(done.stdout), strict=True))


def commands(folder: str, prompts: Path) -> dict[str, list[str]]:
    """What is run, by what it is called in the results."""
    python, srlm = sys.executable, shutil.which("srlm", path=str(Path(sys.executable).parent))
    assert srlm is not None, "install the package into the environment that runs this"
    found = {
        "python -c pass": [python, "-c", "pass"],
        "import srlm": [python, "-c", "import srlm"],
        "srlm --help": [srlm, "--help"],
        "srlm run --help": [srlm, "run", "--help"],
        "srlm plan": [srlm, "plan", *PLAN],
        "srlm measure": [
            *(srlm, "measure", "--quiet", "--model", folder, "--prompts", str(prompts)),
            *("--max-tokens", "16"),
        ],
        "import torch": [python, "-c", "import torch"],
        "import AutoModelForCausalLM": [
            python,
            "-c",
            "from transformers import AutoModelForCausalLM as m",
        ],
    }
    if find_spec("trl") is not None:
        found["trl --help"] = [str(Path(python).parent / "trl"), "--help"]
    return found


def measured(repeats: int, warm: int) -> dict[str, Any]:
    """Seconds of each command, ratios to those that a user would wait for anyway, the stages."""
    from srlm.demo.base import cached_base
    from srlm.demo.corpus import named_start, prompts

    folder, texts = str(cached_base(named_start("good"), 0)), prompts(PROMPTS, 7)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "prompts.jsonl"
        file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
        cases = commands(folder, file)
        seconds = interleaved(
            {
                name: lambda c=command: subprocess.run(c, check=True, capture_output=True)
                for name, command in cases.items()
            },
            repeats=repeats,
            warm=warm,
        )
    stages = [first_token(folder, texts[0]) for _ in range(repeats)]
    over = [
        ("srlm --help", "python -c pass"),
        ("srlm --help", "import torch"),
        ("srlm measure", "import AutoModelForCausalLM"),
    ]
    if "trl --help" in cases:
        over.append(("srlm --help", "trl --help"))
    return {
        "repeats": repeats,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratios": {f"{a} over {b}": ratio(seconds[a], seconds[b]) for a, b in over},
        "first_token": {
            "stages": {name: spread([s[name] for s in stages]) for name in STAGES},
            "total": spread([sum(s[name] for name in STAGES) for s in stages]),
        },
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true", help="two repeats")
    asked = parser.parse_args()
    repeats = asked.repeats or (2 if asked.quick else REPEATS)
    result = measured(repeats, warm=0 if asked.quick else 1)
    for name, s in result["seconds"].items():
        print(f"{name:32}{s['value']:7.2f} s ({s['low']:.2f}-{s['high']:.2f})")
    print("to the first token:")
    stages = result["first_token"]["stages"] | {"in all": result["first_token"]["total"]}
    for name, s in stages.items():
        print(f"  {name:30}{s['value']:7.2f} s ({s['low']:.2f}-{s['high']:.2f})")
    for name, r in result["ratios"].items():
        print(f"{name:55}{r['value']:6.2f} ({r['low']:.2f}-{r['high']:.2f})")
    print(write("start_up_quick" if asked.quick else "start_up", result).name)


if __name__ == "__main__":
    main()

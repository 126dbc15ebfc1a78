"""Whatever is raised has its words, at one place."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from srlm import boundary

START = "import sys; sys.argv = ['srlm', *sys.argv[1:]]\nfrom srlm.__main__ import main\n"


def command(code: str, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, after some code."""
    return subprocess.run(
        [sys.executable, "-c", START + code + "\nmain()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | more,
        check=False,
    )


@pytest.mark.parametrize("number", sorted(boundary.SYSTEM))
def test_the_systems_errors_name_the_place_and_the_remedy(number: int) -> None:
    place = "runs/a/pairs.parquet.host.17.partial"
    found = boundary.told(OSError(number, os.strerror(number), place))
    assert found is not None
    assert found.problem.startswith("runs/a/pairs.parquet: ")
    assert found.remedy


@pytest.mark.parametrize(
    ("error", "same_as"),
    [
        (SafetensorError("I/O error: File too large (os error 27)"), errno.EFBIG),
        (SafetensorError("I/O error: No space left on device"), errno.ENOSPC),
        (OSError("Error writing bytes to file. Detail: [errno 28] No space"), errno.ENOSPC),
        (RuntimeError("Read-only file system (os error 30)"), errno.EROFS),
    ],
)
def test_libraries_errors_are_told_by_the_number_in_their_words(
    error: Exception, same_as: int
) -> None:
    assert isinstance(error, boundary.kinds())
    found = boundary.told(error)
    assert found is not None
    assert (found.problem, found.remedy) == boundary.SYSTEM[same_as]


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), True),
        (ImportError("Using `bitsandbytes` quantization requires accelerate"), True),
        (OSError(errno.EIO, "Input/output error", "a"), True),
        (OSError("Couldn't deserialize thrift"), True),
        (RuntimeError("shapes differ"), False),
        (RecursionError("maximum recursion depth exceeded"), False),
        (NotImplementedError(), False),
    ],
)
def test_what_a_user_can_mend_is_told_from_bugs(error: Exception, known: bool) -> None:
    assert (boundary.told(error) is not None) == known


def test_a_bug_is_one_line_and_its_traceback_a_file(tmp_path: Path) -> None:
    code = (
        "import types\nrunner = types.ModuleType('srlm.report.summary')\n"
        "def summarise(_): raise ValueError('odd\\nsecond line')\n"
        "runner.summarise = summarise\nsys.modules['srlm.report.summary'] = runner\n"
        "page = types.ModuleType('srlm.report.page')\npage.write_page = None\n"
        "sys.modules['srlm.report.page'] = page"
    )
    done = command(code, "report", "a", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    (file,) = tmp_path.iterdir()
    assert str(file) in done.stderr
    assert "ValueError: odd" in file.read_text()
    done = command(code, "report", "a", TMPDIR=str(tmp_path / "none"), TEMP="/none", TMP="/none")
    assert done.returncode == 1


def test_what_an_encoding_does_not_have_is_replaced() -> None:
    code = "from srlm import cli\ncli.main = lambda: print('\\u03ba \\u2192 \\u20ac \\udcff')"
    done = command(code, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "kappa -> ? ?\n")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupted_while_it_starts() -> None:
    """At any moment of the import, there is no traceback, and nothing else is done."""
    code = (
        "import importlib.abc, os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class At(importlib.abc.MetaPathFinder):\n"
        "    left = int(sys.argv.pop())\n"
        "    def find_spec(self, *_):\n"
        "        At.left -= 1\n"
        "        if At.left == 0: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, At())\n"
    )
    for at in (1, 3, 10, 30, 100, 200):
        done = command(code, "report", "no such folder", str(at))
        assert done.returncode == 130, at
        assert done.stderr.strip().startswith("Interrupted.")
        assert len(done.stderr.splitlines()) == 2

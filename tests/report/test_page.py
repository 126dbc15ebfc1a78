"""The page: hostile text stays text, nothing is fetched, the same folder gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from srlm.report.page import plotly_script, run_page, script_json, write_page
from srlm.report.summary import summarise
from srlm.report.terminal import print_summary
from srlm.report.words import visible
from srlm.run_folder import read_run
from tests.report.conftest import seal

Make = Callable[..., Path]

HOSTILE = [
    "<script>alert(1)</script>",
    "</script></pre><img src=x onerror=alert(1)>",
    "\"'><svg/onload=alert(1)> &lt; &amp; {{7*7}} <!--",
    "null \x00 bell \x07 escape \x1b[2J",
    "\u202eright to left\u202c \u200f\u2066 and \u2028 lines \ufeff",
    "long " * 2000,
    "",
    "javascript:alert(1) https://evil.example/x.js",
]


TAGS = """html head meta title style body main section h1 h2 h3 p div span strong small sup br pre
ul li dl dt dd table thead tbody tr th td figure figcaption details summary script noscript
code"""


class Seen(HTMLParser):
    """Tags, attributes and scripts of a page, as a parser sees them; plotly's script emptied."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside = ""
        self.feed(own(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif self._inside != "style":
            self.text += data

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)


def own(text: str) -> str:
    """The page without plotly's script."""
    return text.replace(plotly_script(), "")


@pytest.fixture(name="hostile")
def _hostile(fake_run: Make) -> Path:
    """Every text that a run folder holds is an attack."""

    def spoil(record: dict[str, Any]) -> dict[str, Any]:
        record["notes"] = HOSTILE[:3]
        record["seconds"][HOSTILE[1]] = 1.0
        for value in record.values():
            if isinstance(value, dict) and "method" in value:
                value |= {"method": HOSTILE[1], "guarantee": HOSTILE[2], "note": HOSTILE[0]}
        return record

    folder = fake_run(
        change=spoil, texts=lambda p, m: f"{HOSTILE[(p + max(m, 0)) % len(HOSTILE)]}{m}"
    )
    config = {"model": HOSTILE[1], "prompts": {"file": HOSTILE[2]}, HOSTILE[0]: HOSTILE[3]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"created": HOSTILE[0], HOSTILE[1]: "\ud800"}))
    return seal(folder)


def test_hostile_text_stays_text(hostile: Path) -> None:
    text = write_page(summarise(hostile)).read_text(encoding="utf-8")
    seen = Seen(text)
    assert {tag for tag, _ in seen.tags} <= set(TAGS.split())
    for _, attributes in seen.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"src", "href", "srcdoc", "action", "style"} & attributes.keys()
    code = [text for attributes, text in seen.scripts if attributes == {}]
    assert len(code) == 2
    assert not any(c in own(text) for c in "\x00\x07\x1b\u202e\u200f\u2066\u2028\ufeff")
    assert "[U+202E]right to left" in seen.text
    assert "[U+0000]" in seen.text
    assert "more characters]" in seen.text


def test_figures_hold_no_text_of_the_run(hostile: Path) -> None:
    seen = Seen(run_page(summarise(hostile)))
    data = [text for attributes, text in seen.scripts if "data-chart" in attributes]
    assert len(data) == 9
    for block in data:
        json.loads(block)
        assert "alert" not in block
        assert "<" not in block


def test_policy_allows_the_two_scripts_and_nothing_else(fake_run: Make) -> None:
    text = run_page(summarise(fake_run()))
    assert f"<script>{plotly_script()}</script>" in text
    seen = Seen(text)
    policy = next(a["content"] or "" for t, a in seen.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    scripts = [plotly_script(), *(code for a, code in seen.scripts if a == {} and code)]
    want = [
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
        for code in scripts
    ]
    assert len(scripts) == 2
    assert re.findall(r"'sha256-[^']*'", policy) == want


@pytest.mark.parametrize("kind", ["good", "giveup", "blowup"])
def test_nothing_to_fetch(fake_run: Make, kind: str) -> None:
    text = own(run_page(summarise(fake_run(kind))))
    assert not re.search(r"https?:|//\w|@import|url\(|<link|<iframe|<img", text)


def test_same_bytes(fake_run: Make) -> None:
    one, other = fake_run(name="a"), fake_run(name="b")
    first = write_page(summarise(one)).read_bytes()
    assert write_page(summarise(one)).read_bytes() == first
    assert write_page(summarise(other)).read_bytes() == first
    assert sorted(p.name for p in one.iterdir()) == [
        "config.yaml", "manifest.json", "metrics.jsonl", "report.html", "rounds",
    ]  # fmt: skip


def test_a_failed_write_keeps_the_old_page(fake_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_run()
    summary = summarise(folder)
    before = write_page(summary).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_page(summary)
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".report*"))


@pytest.mark.parametrize(
    ("kind", "powers"), [("good", None), ("giveup", None), ("blowup", None), ("good", (1.0,))]
)
def test_without_answers_nothing_is_called_correct(fake_run: Make, kind: str, powers: Any) -> None:
    folder = fake_run(kind, answers=False, powers=powers)
    summary = summarise(folder)
    text = own(run_page(summary)).lower()
    assert "correct" not in text
    assert "accuracy" not in text
    assert "unknown" in text
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=80))
    printed = out.getvalue().lower()
    assert "correct" not in printed
    assert "accuracy" not in printed


def test_verdict_comes_first_and_every_section_is_there(fake_run: Make) -> None:
    s = summarise(fake_run("giveup"))
    seen = Seen(run_page(s))
    verdict = next(a for _, a in seen.tags if "data-verdict" in a)
    assert (verdict["data-verdict"], verdict["data-reason"]) == ("failed", "surer and wrong")
    codes = [a["data-code"] for _, a in seen.tags if "data-code" in a]
    assert codes == [w.code for w in s.warnings]
    rounds = [a["data-round"] for t, a in seen.tags if t == "tr" and "data-round" in a]
    assert rounds == ["0", "1", "2", "3", "4", "5"]
    order = [s.verdict.sentence, s.verdict.advice, "Warnings", "Key figures", "By round",
             "Every round", "Prompts, before and after", "How to read this", "What was run",
             "Method and guarantee"]  # fmt: skip
    places = [seen.text.index(words) for words in order]
    assert places == sorted(places)


def test_only_the_base_has_no_plots_and_no_script(fake_run: Make) -> None:
    seen = Seen(run_page(summarise(fake_run(powers=(1.0,)))))
    assert [a for a, _ in seen.scripts if a == {}] == []


METRICS = ["kappa", "confidence", "fidelity", "sampling_accuracy", "greedy_accuracy",
           "mode_accuracy", "headroom_captured", "failure_fraction", "entropy", "length",
           "kl_to_base", "distinct_responses", "exponent", "efficiency", "loss_floor",
           "loss_after", "seconds", "notes", "kappa_ideal"]  # fmt: skip


@pytest.mark.parametrize("key", METRICS)
def test_a_missing_key_breaks_nothing(fake_run: Make, key: str) -> None:
    folder = fake_run(change=lambda record: {k: v for k, v in record.items() if k != key})
    summary = summarise(folder)
    assert run_page(summary)
    print_summary(summary, Console(quiet=True))


def test_a_mode_that_was_not_found_is_not_shown_as_empty(fake_run: Make) -> None:
    folder = fake_run()
    for file in folder.glob("rounds/*/prompts.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["mode_text", "certified"]), file)
    seal(folder)
    text = Seen(run_page(summarise(folder))).text
    assert "not known" in text
    assert "(empty)" not in text


def test_records_alone_make_a_page_and_the_rest_is_named(fake_run: Make) -> None:
    folder = fake_run()
    gone = [*folder.glob("rounds/*/*.parquet"), folder / "config.yaml", folder / "manifest.json"]
    for file in gone:
        file.unlink()
    summary = summarise(folder)
    text = Seen(run_page(summary)).text
    assert "not recorded" in text
    assert "Prompts, before and after" not in text
    assert "damaged" in {warning.code for warning in summary.warnings}
    assert set(read_run(folder).damaged) == {f.relative_to(folder).as_posix() for f in gone}


def test_lone_surrogates_can_be_written() -> None:
    assert visible("a\ud800").encode("utf-8") == b"a[U+D800]"
    assert script_json({"a": "\ud800\u2028"}).isascii()

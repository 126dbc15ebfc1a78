"""The page that follows a run: who gets it, what it shows, folders that are not whole."""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pyarrow.parquet as pq
import pytest

from srlm import runner
from srlm.grading import grader
from srlm.run_folder import read_run
from srlm.run_folder.beside import PROGRESS
from srlm.watch import samples as sampling
from srlm.watch.samples import Query, Texts, asked, look
from srlm.watch.server import serving
from srlm.watch.state import Watched
from tests import tiny

HOSTILE = ["<script>alert(1)</script>", "</pre><img src=x onerror=a>", "ef‮gh"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds whose prompts are hostile."""
    place = tmp_path_factory.mktemp("watch")
    texts = [*HOSTILE, *(x.content for x in tiny.texts(21))]
    file = tiny.write_prompts(place / "p.jsonl", tiny.prompts(texts), ["a", "b"] * 12)
    changes = {"samples.per_prompt": 6, "prompts.answer": "regex:[a-h]", "reward": "consistency"}
    config = tiny.config(tiny.saved(place / "model"), file, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "write_page", lambda summary: summary.folder)
        runner.run(config, place / "out")
    return place / "out"


def ask(url: str, path: str, host: str | None = None, **given: object) -> tuple[int, str, str]:
    """Status, policy and body of an answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    headers = {} if host is None else {"Host": host}
    connection.request("GET", f"{path}?{urlencode(given)}", headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers["Content-Security-Policy"], answer.read().decode()
    connection.close()
    return found


def token(url: str) -> str:
    return urlsplit(url).query.removeprefix("token=")


@pytest.fixture
def url(made: Path) -> Iterator[str]:
    with serving([made, made.with_name("not-there")]) as found:
        yield found


def test_only_who_has_the_token(url: str) -> None:
    assert urlsplit(url).hostname == "127.0.0.1"
    for path in ("/", "/status", "/samples", "/nothing"):
        assert ask(url, path)[0] == 401
        assert ask(url, path, token=token(url)[:-1])[0] == 403
        assert ask(url, path, token="é")[0] == 403
        assert ask(url, path, host="evil.example", token=token(url))[0] == 403
    assert ask(url, "/nothing", token=token(url))[0] == 404
    status, policy, page = ask(url, "/", token=token(url))
    assert status == 200 and token(url) not in page
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert all(word.startswith("'sha256-") for word in rules["script-src"].split())
    assert page.count("<script>") == len(rules["script-src"].split())


def test_foreign_text_is_escaped(url: str) -> None:
    seen = ""
    for kind in ("training", "held-out"):
        for path in ("/samples", "/rounds", "/status", "/runs"):
            for words in ("script", "img", "ef"):
                seen += ask(url, path, token=token(url), kind=kind, words=words)[2]
    assert "<script>alert" not in seen and "<img" not in seen and "\u202e" not in seen
    assert "&lt;script&gt;alert(1)" in seen
    bad = ask(url, "/samples", token=token(url), words="<b>", low="<i>", round=-1)
    assert bad[0] == 200 and "<i>" not in bad[2] and "<b>" not in bad[2]


def test_samples_are_the_files(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages together hold every sample with its reward, and filters leave out the others."""
    monkeypatch.setattr(sampling, "PROMPTS", 3)
    run = read_run(made)
    texts = Texts(run)
    place = made / "rounds" / "001"
    rows = pq.read_table(place / "samples.parquet").to_pylist()
    pairs = pq.read_table(place / "pairs.parquet").to_pylist()
    reward = {(row["prompt"], tuple(row["tokens"])): row["reward"] for row in pairs}
    (file,) = (made / "inputs").glob("*.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line) for line in lines]
    answers = {x["prompt"]: x["answer"] for x in prompts}
    read = grader("regex:[a-h]")

    def every(query: Query) -> Counter[tuple[str, str, float | None, bool | None]]:
        found: Counter[tuple[str, str, float | None, bool | None]] = Counter()
        first: int | None = 0
        while first is not None:
            page = look(run, texts, replace(query, first=first))
            assert len(page.prompts) <= 3 and (page.next is None or page.next > first)
            for x in page.prompts:
                assert x.prompt is not None and x.answers == (answers[x.prompt],)
                for r in x.responses:
                    found[x.prompt, r.text, r.reward, r.right] += r.count
            first = page.next
        return found

    by_id = {x.id: x.content for x in tiny.prompts(list(answers))}
    wanted: Counter[tuple[str, str, float | None, bool | None]] = Counter()
    for row in rows:
        text = by_id[row["prompt_id"]]
        right = read.right(read.read(row["text"], row["finished"]), (answers[text],))
        value = reward.get((row["prompt"], tuple(row["tokens"])))
        wanted[text, row["text"], value, right] += 1
    assert every(Query(1)) == wanted
    some = sorted(r for _, _, r, _ in wanted if r is not None)[len(wanted) // 3]
    checks = {
        Query(1, right=True): lambda k: k[3] is True,
        Query(1, right=False): lambda k: k[3] is False,
        Query(1, low=some): lambda k: k[2] is not None and k[2] >= some,
        Query(1, high=some): lambda k: k[2] is not None and k[2] <= some,
        Query(1, words="SCRIPT"): lambda k: "script" in k[0],
    }
    for query, keep in checks.items():
        assert every(query) == Counter({k: n for k, n in wanted.items() if keep(k)})
    monkeypatch.setattr(sampling, "LOOKED", 1)  # a prompt a page
    assert every(Query(1)) == wanted
    held = look(run, texts, Query(2, kind="held-out"))
    assert held.prompts and all(r.reward is None for x in held.prompts for r in x.responses)


def test_a_query_from_a_page() -> None:
    assert asked({"words": "a", "right": "wrong", "low": "", "kind": "x"}, 3) == Query(
        3, words="a", right=False
    )
    assert asked({"round": "1", "low": "-1e-3"}, 3) == Query(1, low=-1e-3)
    for name in ("round", "first"):
        for value in ("nan", "1e300", "one"):
            with pytest.raises(Exception, match=name):
                asked({name: value}, 3)


def test_what_a_run_is_doing(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)
    watched = Watched(out)
    watched.refresh()
    assert watched.now().state == "finished" and watched.version == 1
    watched.refresh()
    assert watched.version == 1
    told = {"stage": "round 3: train", "done": 5, "total": 20, "seconds": 10.0, "time": 1.0}
    gone = subprocess.Popen(["true"])
    gone.wait()
    for host, process, state in (
        (platform.node(), os.getpid(), "working"),
        (platform.node(), gone.pid, "killed"),
        ("another", os.getpid(), "elsewhere"),
        (platform.node(), "x", "elsewhere"),
    ):
        (out / PROGRESS).write_text(json.dumps(told | {"host": host, "process": process}))
        now = watched.now()
        assert (now.state, now.stage, now.share) == (state, "round 3: train", 0.25)
    (out / PROGRESS).write_text('{"stage": ')
    assert watched.now().state == "finished"


def test_folders_that_are_not_whole(made: Path, tmp_path: Path) -> None:
    """Not there, half there, each file cut off: an answer each time; whole again: all is shown."""
    out = tmp_path / "out"
    with serving([out]) as url:

        def answers() -> list[str]:
            found = [ask(url, p, token=token(url)) for p in ("/status", "/rounds", "/samples")]
            assert [status for status, _, _ in found] == [200] * 3
            return [body for _, _, body in found]

        assert 'data-state="idle"' in answers()[0]
        out.mkdir()
        answers()
        shutil.copytree(made, out, dirs_exist_ok=True)
        whole = answers()
        assert 'data-round="2"' in whole[1] and "data-prompt" in whole[2]
        for file in sorted(f for f in out.rglob("*") if f.is_file() and "policy" not in f.parts):
            data = file.read_bytes()
            file.write_bytes(data[: len(data) // 2])
            answers()
            file.write_bytes(data)
        (out / "metrics.jsonl").touch()
        assert 'data-round="2"' in answers()[1]
        shutil.rmtree(out)
        answers()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_in_a_browser(made: Path, tmp_path: Path) -> None:
    with serving([made, made.with_name("not-there")]) as url:
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             f"--user-data-dir={tmp_path}", "--virtual-time-budget=15000", "--dump-dom", url],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    page = done.stdout
    assert 'data-state="finished"' in page and 'data-round="2"' in page
    assert page.count('class="main-svg"') > 10  # drawn
    assert page.count("data-prompt=") == sampling.PROMPTS
    assert "Content Security Policy" not in done.stderr
    assert 'id="lost" class="bad" hidden=""' in page

"""What a folder says is never run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from srlm import cli
from srlm.policies.chat_template import check_template
from srlm.runner import run
from tests import tiny


def test_a_report_imports_nothing_that_the_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tiny.write_prompts(tmp_path / "p.jsonl", tiny.texts(12), ["a"] * 12)
    config = tiny.config(tiny.saved(tmp_path / "model"), file, rounds=1)
    run(config, tmp_path / "out")
    settings = tmp_path / "out" / "config.yaml"
    settings.write_text(settings.read_text().replace("answer: text", "answer: owned_here:f"))
    assert "owned_here" in settings.read_text()
    (tmp_path / "owned_here.py").write_text("open('owned', 'w').close()\nf = print\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["srlm", "report", "out"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert not (tmp_path / "owned").exists()
    assert "owned_here" not in sys.modules


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}{{ strftime_now('%Y') }}",
        "{% for m in messages %}{% if m.role == 'x' %}{% continue %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}",
    ],
)
def test_usual_templates_pass_the_trial_in_silence(
    template: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_template(tiny.tokenizer(template=template), {"deep": True})
    assert not caplog.text

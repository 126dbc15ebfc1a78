"""The sections of docs/reliability.md: nothing silent, no traceback."""

from __future__ import annotations

import pytest

from tests.reliability import SECTIONS, in_child


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_nothing_is_silent_and_nothing_ends_in_a_traceback(section: str) -> None:
    rows = in_child(section)
    assert rows
    assert {name: row for name, row in rows.items() if row["silent"] or row["traceback"]} == {}

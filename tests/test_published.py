"""The page of published runs is what its script writes."""

from experiments import published


def test_page_is_current() -> None:
    assert published.PAGE.read_text(encoding="utf-8") == published.page()
    for run in published.RUNS:
        assert run.vote > run.before

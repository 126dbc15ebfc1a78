"""The page of published runs is what its script writes."""

from experiments import forecasts


def test_page_is_current() -> None:
    assert forecasts.PAGE.read_text(encoding="utf-8") == forecasts.page()
    for run in forecasts.RUNS:
        assert run.vote > run.before

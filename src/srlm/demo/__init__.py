"""The demo: a corpus of worked arithmetic and base models trained on it."""

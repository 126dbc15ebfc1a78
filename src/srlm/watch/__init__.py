"""A local page that follows runs: ``srlm watch runs/mine``, or ``srlm run --live``."""

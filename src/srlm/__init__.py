"""srlm: self-rewarding language models, known before they are trained."""

__version__ = "0.1.0"

"""Policies: the protocol (``base``), its kinds, and ``load``."""

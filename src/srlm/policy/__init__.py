"""Policies: the protocol (``base``) and its kinds; ``load`` reads any of them from a folder."""

"""Photographs under another light: `Relighter` for programs, and the command ``relight``."""

from ltnet_pl.relight.relighter import PRETRAINED, Prepared, Relighter

__all__ = ("PRETRAINED", "Prepared", "Relighter")

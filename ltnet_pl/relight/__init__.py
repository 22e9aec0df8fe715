"""Photographs under another light: `Relighter` for programs, and the command ``relight``."""

from ltnet_pl.relight.relighter import PRETRAINED, SMALLEST, Prepared, Relighter

__all__ = ("PRETRAINED", "SMALLEST", "Prepared", "Relighter")

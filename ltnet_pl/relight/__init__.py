"""Photographs under another light: `Relighter` for programs, and the command ``relight``."""

from ltnet_pl.relight.relighter import Prepared, Relighter

__all__ = ("Prepared", "Relighter")

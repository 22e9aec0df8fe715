"""Depth-guided image relighting with the Light Transfer Network, as a Lightning experiment framework."""

__version__ = "0.1.0"


class InputError(ValueError):
    """Something the user gave is wrong: the message names file or flag, value found, expectation and remedy.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """

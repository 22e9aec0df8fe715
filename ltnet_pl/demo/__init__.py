"""A page in the browser on which a photograph's light is turned by hand; the command ``demo``.

Needs the extra ``demo`` (Gradio). ``studio`` holds what the page knows and computes and imports no Gradio, ``page`` draws it,
``dial`` is the compass on it, ``serve`` puts it on a port, ``inputs`` says who reads the files, ``examples`` are the pictures
that come along.
"""

from ltnet_pl.demo.serve import demo

__all__ = ("demo",)

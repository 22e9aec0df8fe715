"""A page in the browser on which a photograph's light is turned by hand; the command ``demo``.

Needs the extra ``demo`` (Gradio). ``studio`` holds what the page knows and computes and ``lights`` what its controls ask for,
without Gradio; ``page`` draws it, with ``dial``, its compass; ``serve`` puts it on a port; ``inputs`` says who reads the files,
``files`` keeps their folder within a size, and ``examples`` are the pictures that come along.
"""

from ltnet_pl.demo.serve import demo

__all__ = ("demo",)

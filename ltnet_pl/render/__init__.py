"""Physically based training data: random scenes, path traced with Mitsuba 3 under VIDIT's 40 lights, in VIDIT's layout.

Needs the extra ``render`` (Mitsuba 3). ``render`` is the one function for users. ``families`` (``outdoor``, ``indoor``) say what
stands where, ``textures`` and ``shapes`` what it is made of, ``tracer`` drives Mitsuba, ``picture`` turns radiance into images,
``writer`` knows the files, ``job`` the processes.
"""

from ltnet_pl.render.job import render

__all__ = ("render",)

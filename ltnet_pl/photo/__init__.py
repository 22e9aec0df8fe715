"""Photographs: in and out, orbits, and their depth, from a file or from the photograph alone.

What a user brings is not VIDIT: pictures lie on their side, have 16 bits, transparency and profiles, and depth comes as files of
any kind, or not at all. `read_photo` and `write_photo` keep what a picture carries, `write_orbit` writes one under a light that
goes round, `read_depth` holds a file of depth to one convention, and `estimate_depth` sees depth in the photograph alone.
`check_output`, `check_kept` and `check_orbit` refuse a result's place or form before the work for it is done.
"""

from ltnet_pl.photo.depth import looks_inverted, read_depth
from ltnet_pl.photo.monocular import DEPTH_MODEL, FARTHEST, DepthEstimator, estimate_depth
from ltnet_pl.photo.orbit import check_frames, check_orbit, write_orbit
from ltnet_pl.photo.output import check_output
from ltnet_pl.photo.pictures import MAX_SIDE, MIN_SIDE, SUFFIXES, Photo, check_kept, eight_bit, read_photo, write_photo

__all__ = (
    "DEPTH_MODEL",
    "FARTHEST",
    "MAX_SIDE",
    "MIN_SIDE",
    "SUFFIXES",
    "DepthEstimator",
    "Photo",
    "check_frames",
    "check_kept",
    "check_orbit",
    "check_output",
    "eight_bit",
    "estimate_depth",
    "looks_inverted",
    "read_depth",
    "read_photo",
    "write_orbit",
    "write_photo",
)

"""Photographs as people have them: files in and out, their depth, and films of a light that moves."""

from ltnet_pl.photo.depth import DEPTH_SUFFIXES, looks_inverted, read_depth
from ltnet_pl.photo.files import LARGEST, SMALLEST, Photo, read_photo, write_photo
from ltnet_pl.photo.film import write_orbit
from ltnet_pl.photo.monocular import DEPTH_MODEL, estimate_depth

__all__ = (
    "DEPTH_MODEL",
    "DEPTH_SUFFIXES",
    "LARGEST",
    "SMALLEST",
    "Photo",
    "estimate_depth",
    "looks_inverted",
    "read_depth",
    "read_photo",
    "write_orbit",
    "write_photo",
)

"""VIDIT files: names, layouts, images, safe depth, pair lists.

What lies on disk, and nothing about tensors: `layouts` finds the files of every release of VIDIT (and of the sets that `render`
writes in the same form), `files` reads images, `depth` reads depth without ever running what a file asks for, `pairs` chooses
and stores relighting tasks.
"""

from ltnet_pl.vidit.depth import check_depth, convert_depth, read_depth, write_depth
from ltnet_pl.vidit.files import image_size, read_image
from ltnet_pl.vidit.layouts import (
    Pair,
    View,
    detect_layout,
    every_view,
    find_one_to_one,
    find_pairs,
    find_settings,
    parse_name,
)
from ltnet_pl.vidit.pairs import (
    any_to_any_pairs,
    identity_pairs,
    one_to_one_from_settings,
    read_pairs,
    split_scenes,
    write_pairs,
)
from ltnet_pl.vidit.rendered import read_scene

__all__ = (
    "Pair",
    "View",
    "any_to_any_pairs",
    "check_depth",
    "convert_depth",
    "detect_layout",
    "every_view",
    "find_one_to_one",
    "find_pairs",
    "find_settings",
    "identity_pairs",
    "image_size",
    "one_to_one_from_settings",
    "parse_name",
    "read_depth",
    "read_image",
    "read_pairs",
    "read_scene",
    "split_scenes",
    "write_depth",
    "write_pairs",
)

"""Geometry from depth: points, normals, and the shading and visibility cues of a light that stands on the rig.

Everything works on batches of torch tensors of any height and width and computes in float32 whatever comes in (float64 stays
float64, for gradient checks). Frames and signs are those of `ltnet_pl.light`. Three rules hold throughout:

* Depth 0 is background: it has no point (0, 0, 0), no normal and no shading, it blocks nothing, and its visibility is 1.
* The depth's unknown scale cancels: one positive factor on all depths of a scene changes no normal and no cue.
* Nothing unknown is guessed: NaN in a light, a camera or a rig comes out as NaN. Who knows no light must not ask for its cue.

A depth map is compared and differentiated through its reciprocal. Over a plane 1 / depth is linear in the pixel's place, so
normals are exact there, and a ray can be compared with the surface between two pixels without an error that grows with slope.

`Geometry.of` computes once what all lights share; the functions do single steps.
"""

from ltnet_pl.geometry.lighting import Geometry, arriving, cues, irradiance, light_position, marched_points
from ltnet_pl.geometry.open_sizes import forgotten, is_open, length, number
from ltnet_pl.geometry.shadows import STEPS, visibility
from ltnet_pl.geometry.surface import anchor, normals_from_depth, resampled, size_within, unproject

__all__ = (
    "STEPS",
    "Geometry",
    "anchor",
    "arriving",
    "cues",
    "forgotten",
    "irradiance",
    "is_open",
    "length",
    "light_position",
    "marched_points",
    "normals_from_depth",
    "number",
    "resampled",
    "size_within",
    "unproject",
    "visibility",
)

"""What LTNet keeps between its steps, so that a second light for the same image does not pay for the first again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ltnet_pl.geometry import Geometry


@dataclass(frozen=True)
class Reading:
    """A light as the network works with it.

    Args:
        code: Light code ``(B, 3)``: the label's, or the reading's brought to unit length.
        latent: ``(B, latent)``.
        given: Whether the code is wholly the label's, ``(B, 1)``.
        row: Light tensor ``(B, 2 or 4)`` for the cues.
        raw: The light stream's raw code ``(B, 3)``; None where nothing was read.
    """

    code: Tensor
    latent: Tensor
    given: Tensor
    row: Tensor
    raw: Tensor | None


@dataclass(frozen=True)
class View:
    """A window of an image at some resolution, with what no wanted light changes.

    Args:
        image: ``(B, 3, H, W)``, display-encoded.
        geometry: Points and normals of its depth.
        features: Geometry features, and the present light's cues.
        lit: The present light that arrives, ``(B, 1, H, W)``; None without cues.
    """

    image: Tensor
    geometry: Geometry
    features: Tensor
    lit: Tensor | None


@dataclass(frozen=True)
class Scene:
    """An image and its depth under their present light.

    Args:
        present: The present light.
        shadow: Where it falls, as `LTNet.shadow` has it.
        camera: ``(B, 2)``, as estimated, assumed or known.
        rig: ``(B, 2)``.
        crop: Window of the image in the frame, ``(B, 4)``.
        view: What the interaction sees.
    """

    present: Reading
    shadow: Tensor | None
    camera: Tensor
    rig: Tensor
    crop: Tensor
    view: View

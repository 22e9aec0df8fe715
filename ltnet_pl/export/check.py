"""What an exported file computes, held against the network itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ltnet_pl import InputError

SIZES = ((96, 128), (128, 128), (200, 137), (256, 256), (300, 280))
"""Height and width of the images that are compared: odd ones, and one that is beyond 256, where shadows are spread."""

MUCH, SHARE, MEAN = 1e-2, 1e-4, 1e-4
"""What is let pass: the share of pixels that differ by more than the first, and the mean difference, of values in [0, 1].

File and network compute the same in 32 bits, but in another order: means over areas are products of matrices in a file, for one.
Most pixels differ by some 1e-6. Where a ray grazes an edge, a rounding decides whether it is blocked, and a single pixel may
differ by any amount: the largest difference is told, and decides nothing.
"""


class Difference(NamedTuple):
    """How far two images are apart, of values in [0, 1]: at most, on average, and the share of pixels by more than `MUCH`."""

    size: tuple[int, int]
    most: float
    mean: float
    much: float


def compare(
    net: nn.Module, run: Callable[[tuple[Tensor, ...]], Tensor], make: Callable[..., tuple[Tensor, ...]]
) -> list[Difference]:
    """Differences of a file's images from the network's at several sizes, printed as they are found.

    Args:
        net: The wrapped network.
        run: What the file computes of the same inputs.
        make: Makes inputs of a size of the image.
    """
    found = []
    for size in SIZES:
        inputs = make(size)
        with torch.no_grad():
            apart = (net(*inputs) - run(inputs)).abs()
        much = (apart.amax(dim=1) > MUCH).double().mean().item()
        found.append(Difference(size, apart.max().item(), apart.mean().item(), much))
        print(f"  {size[0]} x {size[1]}: differs by at most {found[-1].most:.1e}, on average by {found[-1].mean:.1e}", flush=True)
    return found


def refuse(out: str, found: list[Difference]) -> None:
    """Refuse a file that computes something else.

    Raises:
        InputError: If a difference is above the bounds, or not a number.
    """
    for one in found:
        # not the other way round: NaN must not pass
        if not (one.mean <= MEAN and one.much <= SHARE):
            raise InputError(
                f"{out}: is not written, since at {one.size[0]} x {one.size[1]} it differs from the network by {one.mean:.1e} on "
                f"average, and in {one.much:.3%} of the pixels by more than {MUCH:g}; expected at most {MEAN:g} and {SHARE:.2%}: "
                "try another --opset, or, to have it as it is, --verify false"
            )

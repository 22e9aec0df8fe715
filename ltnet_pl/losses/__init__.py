"""The losses of relighting: one function per part (`parts`), and `RelightLoss`, which weighs them (`relight`)."""

from ltnet_pl.losses.parts import (
    charbonnier_loss,
    gradient_loss,
    lab_loss,
    laplacian_loss,
    light_loss,
    residual_cosine_loss,
    residual_loss,
    smoothness_loss,
    ssim_loss,
)
from ltnet_pl.losses.relight import LossWeights, RelightLoss

__all__ = (
    "LossWeights",
    "RelightLoss",
    "charbonnier_loss",
    "gradient_loss",
    "lab_loss",
    "laplacian_loss",
    "light_loss",
    "residual_cosine_loss",
    "residual_loss",
    "smoothness_loss",
    "ssim_loss",
)

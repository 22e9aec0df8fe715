"""Fields at other resolutions and odd sizes: where features stand, what a feature gives on average, places at the edge."""

import pytest
import torch
from nets_small import SMALL, awake
from torch.nn import functional

from ltnet_pl.bench.speed import synthetic_batch
from ltnet_pl.nets import LTNet
from ltnet_pl.nets.fields import Field, places, sampled, windowed


@pytest.mark.parametrize("padding", ["inside", "beyond"])
def test_places_beyond_the_outermost_centres_stay_constant(padding):
    torch.manual_seed(0)
    planes = torch.randn(3, 2, 5, 7)
    reach = 0.7 if padding == "inside" else 1.4
    across, down = (reach * (2 * torch.rand(3, 6, 9) - 1) for _ in range(2))
    place = torch.stack([across, down], dim=-1)
    wanted = functional.grid_sample(planes, place, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(sampled(planes, across, down), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_a_feature_gives_its_pixels_mean_to_another_resolution(fold):
    torch.manual_seed(1)
    field = Field("affine", 8, 5, fold)
    features = torch.randn(2, 8, 6, 4)
    unfolded = functional.pixel_shuffle(field.spread(features), fold)
    torch.testing.assert_close(field._level(features), functional.avg_pool2d(unfolded, fold), atol=1e-5, rtol=0)


def covered(net, size, window=None):
    """The window of an image as one of its features, which for this test are as many as the interaction makes."""
    count = [-(-side // net.grain) for side in size]
    return net._covered(torch.zeros(1, 3, *size), torch.zeros(1, 1, *count), window), count


@pytest.mark.parametrize("size", [(37, 50), (40, 52)])
@pytest.mark.parametrize("window", [None, (0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.5, 0.25)])
def test_features_stand_where_their_pixels_do(size, window):
    """A ramp over the features is that ramp over the pixels, also where the last feature reaches beyond the edge."""
    net = LTNet(**SMALL, field="bilateral")
    inside, (rows, columns) = covered(net, size, window)
    ramp = torch.arange(rows)[:, None] * 100.0 + torch.arange(columns)
    top, left, height, width = window or (0.0, 0.0, 1.0, 1.0)
    cut = (40, 30)
    found = windowed(ramp[None, None], cut, inside)[0, 0]
    # centre of each pixel of the window, in pixels of the whole, then in features
    down = ((torch.arange(cut[0]) + 0.5) / cut[0] * height + top) * size[0]
    across = ((torch.arange(cut[1]) + 0.5) / cut[1] * width + left) * size[1]
    down, across = ((at / net.grain - 0.5).clamp(0, count - 1) for at, count in ((down, rows), (across, columns)))
    torch.testing.assert_close(found, down[:, None] * 100 + across, atol=2e-3, rtol=0)


def test_a_folded_field_of_the_whole_needs_no_places():
    assert covered(LTNet(**SMALL, field="affine", fold=2), (37, 50))[0] is None


@pytest.mark.parametrize("field", ["bilateral", "affine"])
@pytest.mark.parametrize("size", [(37, 50), (21, 18)])
def test_sizes_that_are_no_multiples(field, size):
    """The last cells hold fewer pixels, and none of them is lost or made up."""
    net = awake(LTNet(**SMALL, field=field, light="label"))
    batch = synthetic_batch(64)
    cut = {key: batch[key][..., : size[0], : size[1]] for key in ("input", "depth")}
    with torch.no_grad():
        out = net(batch | cut)
    assert out["relit"].shape[-2:] == size
    assert out["relit"].isfinite().all()


def test_places_are_the_centres_of_a_windows_pixels():
    down, across = places((2, 4), (0.5, 0.0, 0.5, 1.0), torch.zeros(1))
    assert down.tolist() == [0.25, 0.75]
    assert across.tolist() == [-0.75, -0.25, 0.25, 0.75]

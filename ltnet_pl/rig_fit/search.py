"""The search for the rig of a set and the camera of each of its scenes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltnet_pl.geometry import Geometry
from ltnet_pl.light import Camera, Rig
from ltnet_pl.rig_fit.observation import THINNED, Observation, change

# A state is (field of view, pitch, log distance of the lights from P, their elevation in degrees): what distance and elevation of
# the ring do to a picture is nearly independent, what its radius and height do is not.
_UNIT = torch.tensor([2.0, 2.0, 0.06, 2.0])  # the step of all differences: it moves a shadow by about a pixel
_LOWEST = torch.tensor([15.0, -80.0, math.log(0.2), -80.0])
_HIGHEST = torch.tensor([110.0, 80.0, math.log(20.0), 80.0])
_START_PITCHES = (15.0, 35.0, 55.0)
_START_ELEVATIONS = (25.0, 45.0, 65.0)
_STARTS = (Camera().fov, math.log(math.hypot(Rig().radius, Rig().height)))  # the other two

_MARCH = 16  # steps towards the light
_ROBUST = 0.03  # residual from which a value counts as an outlier, in units of its pixel's brightness
_SCALES = (2.0, 1.0)  # of the differences, in `_UNIT`: first wide, to step over the roughness of shadows, then fine
_PASSES = 20  # at most, per scale
_DONE = 3e-3  # relative improvement that ends the search
_FARTHEST = 3.0  # that a pass moves, in units of the differences

Progress = Callable[[int, float], None]
"""Told after each pass its number and the mean robust error."""


class SceneFit(NamedTuple):
    """What was found of one scene.

    Attributes:
        name: The scene.
        camera: Its camera.
        explained: Share of the change from direction to direction that the computed light explains, beyond what any light would
            by the two free numbers of each pixel: 1 for all of it, about 0 for none.
    """

    name: str
    camera: Camera
    explained: float


class Fit(NamedTuple):
    """What was found of a set.

    Attributes:
        rig: The rig.
        error: Standard errors of radius and height by the jackknife over scenes; None for a single scene.
        scenes: The scenes, in their order.
        settled: Whether the search came to rest within its bounds.
    """

    rig: Rig
    error: tuple[float, float] | None
    scenes: list[SceneFit]
    settled: bool

    @property
    def camera(self) -> Camera:
        """The medians of the scenes' fields of view and pitches."""
        return Camera(*(float(np.median(values)) for values in self._cameras()))

    @property
    def spread(self) -> tuple[float, float]:
        """Standard deviations in degrees of the scenes' fields of view and pitches."""
        fov, pitch = (float(np.std(values)) for values in self._cameras())
        return fov, pitch

    @property
    def explained(self) -> float:
        """The mean of the scenes' shares."""
        return float(np.mean([scene.explained for scene in self.scenes]))

    def _cameras(self) -> tuple[list[float], list[float]]:
        return [scene.camera.fov for scene in self.scenes], [scene.camera.pitch for scene in self.scenes]


def explain(brightness: Tensor, computed: Tensor, weight: Tensor) -> Tensor:
    r"""What computed light leaves unexplained of brightness, whatever the albedo and the light without direction.

    .. math:: r_k = y_k - a S_k - b, \quad (a, b) = \arg\min_{a, b \ge 0} \sum_k w_k (y_k - a S_k - b)^2

    Args:
        brightness: Of N pixels under K lights, ``(K, N)``, 0 or more.
        computed: Light that arrives, ``(C, K, N)``, 0 or more, for C guesses.
        weight: ``(K, N)``, 0 or more, with a sum above 0 for each pixel.

    Returns:
        Residuals ``(C, K, N)``; each pixel has its own a and b. Where the weight is 0 they mean nothing.
    """
    count = weight.sum(dim=0)
    mean, mean_computed = (weight * brightness).sum(dim=0) / count, (weight * computed).sum(dim=1) / count
    # moments about the mean: plain sums cancel where a pixel sees nearly the same light from everywhere
    off = computed - mean_computed[:, None]
    covariance = (weight * off * (brightness - mean)).sum(dim=1)
    slope = (covariance / (weight * off.square()).sum(dim=1).clamp(min=1e-9)).clamp(min=0)
    offset = mean - slope * mean_computed
    # where the best offset is below 0, the best allowed one is 0, and the line goes through the origin
    power = (weight * computed.square()).sum(dim=1).clamp(min=1e-9)
    slope = torch.where(offset < 0, (weight * computed * brightness).sum(dim=1) / power, slope)
    return brightness - slope[:, None] * computed - offset.clamp(min=0)[:, None]


@torch.no_grad()
def residuals(scene: Observation, states: Tensor) -> Tensor:
    """Residuals ``(C, K, N)`` of a scene under C guessed states ``(C, 4)``."""
    guesses, lights = len(states), len(scene.lights)
    depth = scene.depth.expand(guesses, -1, -1, -1)
    # all lights at once: the frames are small, and many small calls take longer than a large one
    geometry = Geometry.of(depth, depth, None, states[:, :2]).thinned(THINNED).repeated(lights)
    cues = geometry.cues(scene.lights.repeat(guesses, 1), _rigs(states).repeat_interleave(lights, dim=0), _MARCH)
    computed = cues.prod(dim=1).view(guesses, lights, *scene.used.shape)[:, :, scene.used]
    return explain(scene.brightness, computed, scene.weight)


def fit(scenes: Sequence[Observation], progress: Progress = lambda passes, error: None) -> Fit:
    """The rig of a set and the camera of each of its scenes.

    Each pass computes every scene's robust error beside its present state, makes a quadratic model of it, eliminates the scene's
    camera, and adds the models up to one step of the rig. Effort is linear in the number of scenes.

    Args:
        scenes: One or more.
        progress: Told how it goes.
    """
    states = _start(scenes)
    passes, settled = 0, False
    for scale in _SCALES:
        step, damping, settled = scale * _UNIT, 0.03, False
        models = [_model(scene, state, step) for scene, state in zip(scenes, states, strict=True)]
        for _ in range(_PASSES):
            moved = (states + step * _move(models, damping).clamp(-_FARTHEST, _FARTHEST)).clamp(_LOWEST, _HIGHEST)
            tried = [_model(scene, state, step) for scene, state in zip(scenes, moved, strict=True)]
            before, after = (sum(model.error for model in some) for some in (models, tried))
            passes += 1
            progress(passes, min(before, after) / len(scenes))
            if after < before:
                states, models, damping = moved, tried, damping / 4
                settled = before - after < _DONE * before
            else:
                # shadows make the error rough: where even a short step leads up, this is the lowest place in sight
                damping = 4 * max(damping, 0.03)
                settled = damping > 10
            if settled:
                break
    inside = bool(((states > _LOWEST) & (states < _HIGHEST)).all())
    found = [
        SceneFit(scene.name, Camera(*state[:2].tolist()), _explained(scene, state))
        for scene, state in zip(scenes, states, strict=True)
    ]
    error = _jackknife(models, states[0], step) if len(scenes) > 1 else None
    return Fit(Rig(*_rigs(states[:1])[0].tolist()), error, found, settled and inside)


class _Model(NamedTuple):
    """A quadratic model of one scene's error around a state, per step: value, gradient ``(4,)``, curvature ``(4, 4)``."""

    error: float
    gradient: Tensor
    curvature: Tensor


def _model(scene: Observation, state: Tensor, step: Tensor) -> _Model:
    """A scene's error around a state, from one step to either side of each of its four numbers.

    Gradient and bend along each number are those of the error itself. How two numbers work together follows from the residuals
    (Gauss-Newton); what residuals say of the bend alone is far too much, since a shadow that moves leaps over its pixels.
    """
    sides = torch.diag(step)
    found = residuals(scene, torch.cat([state[None], state + sides, state - sides]))
    weight = scene.weight / scene.weight.sum()
    errors = _robust(found, weight)
    ahead, behind = errors[1:5], errors[5:]
    slopes = ((found[1:5] - found[5:]) / 2).flatten(1)
    certain = (weight / (found[0].square() + _ROBUST**2).sqrt()).flatten()
    together = ((slopes * certain) @ slopes.mT).double()
    alone = together.diagonal().clamp(min=1e-9)
    # an error that bends down must not turn the step uphill
    bend = torch.maximum(ahead + behind - 2 * errors[0], 0.1 * alone)
    ratio = (bend / alone).sqrt()
    curvature = together * ratio[:, None] * ratio + torch.diag(bend - together.diagonal() * ratio.square())
    return _Model(float(errors[0]), (ahead - behind) / 2, curvature)


def _robust(residual: Tensor, weight: Tensor) -> Tensor:
    """Charbonnier error ``(C,)``, float64, of residuals ``(C, K, N)``."""
    return (((residual.square() + _ROBUST**2).sqrt() - _ROBUST) * weight).sum(dim=(1, 2)).double()


def _eliminated(models: Sequence[_Model], damping: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The normal equations of the rig, scene by scene, once each camera follows the rig.

    Returns:
        Matrices ``(S, 2, 2)`` and right sides ``(S, 2)`` of the rig, each camera's own move ``(S, 2)``, and how it follows the
        rig's, ``(S, 2, 2)``.
    """
    matrix, gradient = torch.stack([x.curvature for x in models]), torch.stack([x.gradient for x in models])
    matrix = matrix + damping * torch.diag_embed(matrix.diagonal(dim1=1, dim2=2))
    own, mixed = matrix[:, :2, :2], matrix[:, :2, 2:]
    alone = -torch.linalg.solve(own, gradient[:, :2])
    follows = -torch.linalg.solve(own, mixed)
    side = -gradient[:, 2:] - (mixed.mT @ alone[:, :, None])[:, :, 0]
    return matrix[:, 2:, 2:] + mixed.mT @ follows, side, alone, follows


def _move(models: Sequence[_Model], damping: float) -> Tensor:
    """The step ``(S, 4)`` to the least sum of the models; the rig's part is the same for all."""
    matrices, sides, alone, follows = _eliminated(models, damping)
    rig = torch.linalg.solve(matrices.sum(dim=0), sides.sum(dim=0))
    return torch.cat([alone + follows @ rig, rig.expand(len(models), 2)], dim=1).float()


def _jackknife(models: Sequence[_Model], state: Tensor, step: Tensor) -> tuple[float, float]:
    """Standard errors of radius and height: how far one more step would go without each scene in turn."""
    matrices, sides, _, _ = _eliminated(models, 1e-3)
    without = torch.linalg.solve(matrices.sum(dim=0) - matrices, sides.sum(dim=0) - sides).float()
    rigs = _rigs((state + step * functional.pad(without, (2, 0))).clamp(_LOWEST, _HIGHEST))
    radius, height = ((len(models) - 1) * rigs.var(dim=0, correction=0)).sqrt().tolist()
    return radius, height


def _start(scenes: Sequence[Observation]) -> Tensor:
    """States ``(S, 4)`` to start from: the best elevation of a few for all, and for each scene the best pitch of a few."""
    fov, reach = _STARTS
    states = torch.tensor([[fov, pitch, reach, elevation] for elevation in _START_ELEVATIONS for pitch in _START_PITCHES])
    errors = torch.stack([_robust(residuals(scene, states), scene.weight / scene.weight.sum()) for scene in scenes])
    table = errors.view(len(scenes), len(_START_ELEVATIONS), len(_START_PITCHES))
    best = int(table.amin(dim=2).sum(dim=0).argmin())
    return states.view(len(_START_ELEVATIONS), len(_START_PITCHES), 4)[best][table[:, best].argmin(dim=1)]


def _rigs(states: Tensor) -> Tensor:
    """Rig tensor ``(C, 2)`` of states ``(C, 4)``."""
    reach, elevation = states[:, 2].exp(), torch.deg2rad(states[:, 3])
    return torch.stack([reach * elevation.cos(), reach * elevation.sin()], dim=1)


def _explained(scene: Observation, state: Tensor) -> float:
    """See `SceneFit`: both mean squares are freed of what the free numbers of the pixels take away by chance."""
    count, pixels = float(scene.weight.sum()), scene.weight.shape[1]
    left = float((residuals(scene, state[None])[0].square() * scene.weight).sum()) / count
    return 1 - left / (count - 2 * pixels) * (count - pixels) / change(scene)

"""Finds the rig and the cameras of a set that keeps them to itself, as VIDIT does, from how the light moves over its scenes.

In linear light a pixel's brightness under the k-th direction is ``a S_k + b``: the irradiance and the cast shadow ``S_k`` that
`ltnet_pl.geometry` computes from the depth, times an unknown albedo and exposure, plus what arrives whatever the direction. Both
unknowns are eliminated pixel by pixel, and the rig of the set and the camera of each scene are sought that leave the least.

``observation`` reads what was seen of a scene, ``search`` finds rig and cameras, ``job`` is the command.
"""

from ltnet_pl.rig_fit.job import fit_rig
from ltnet_pl.rig_fit.observation import Observation, observe
from ltnet_pl.rig_fit.search import Fit, SceneFit, explain, fit

__all__ = ("Fit", "Observation", "SceneFit", "explain", "fit", "fit_rig", "observe")

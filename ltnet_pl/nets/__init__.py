"""Networks: each takes a batch (the contract of the data modules) and returns a dict with at least ``relit``."""

from ltnet_pl.nets.baselines import ColorAffine, CopyInput, UNet
from ltnet_pl.nets.challenge import Challenge2021
from ltnet_pl.nets.ltnet import LTNet

__all__ = ("Challenge2021", "ColorAffine", "CopyInput", "LTNet", "UNet")

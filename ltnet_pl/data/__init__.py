"""Datasets and LightningDataModules: from files to the batch that every network takes.

The batch is documented once, in `RelightDataModule`.
"""

from ltnet_pl.augment import AugmentSettings
from ltnet_pl.data.any_to_any import AnyToAnyDataModule
from ltnet_pl.data.base import RelightDataModule
from ltnet_pl.data.one_to_one import OneToOneDataModule
from ltnet_pl.data.predict import PredictDataModule

__all__ = ("AnyToAnyDataModule", "AugmentSettings", "OneToOneDataModule", "PredictDataModule", "RelightDataModule")

"""What tests of caches ask of them."""

from ltnet_pl.data import AnyToAnyDataModule


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "blocks").glob("*.npy")}


def module(root, folder, tmp_path, **kwargs):
    given = {"batch_size": 3, "crop": 32, "val_scenes": 2, "pairs_per_scene": 2, "pairs": str(tmp_path / "pairs")}
    data = AnyToAnyDataModule(root=str(root), cache=None if folder is None else str(folder), **given | kwargs)
    data.setup("fit")
    return data

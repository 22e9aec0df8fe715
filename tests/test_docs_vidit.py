"""docs/vidit.md: every command of it, on an imitation of each release's layout at the files' own 1024 pixels."""

from __future__ import annotations

import shutil
import zipfile

import pages
import pytest
import scenes

PAGE = pages.DOCS / "vidit.md"
SIZE = (1024, 1024)

FEW = {
    # a recipe for days on eight GPUs, in seconds on two cores
    "fit": [
        *("--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.max_steps=2", "--data.samples_per_epoch=4"),
        *("--data.batch_size=2", "--data.val_scenes=2", "--data.test_scenes=0", "--data.num_workers=0", "--data.crop=64"),
        *("--model.net.init_args.widths=[8, 12]", "--model.net.init_args.light_width=8"),
    ],
    "test": ["--trainer.accelerator=cpu", "--data.num_workers=0", "--data.batch_size=1"],
    "fit-rig": ["--scenes=2", "--size=24"],
}


@pytest.fixture
def place(tmp_path):
    """A folder with what the document expects to have been unpacked, and our experiments."""
    vidit = tmp_path / "data" / "vidit"
    scenes.write_any_to_any(vidit / "track2/train", scenes=4, size=SIZE, temperatures=(4500, 6500), truth=False)
    scenes.write_pairs_layout(vidit / "track2/val", 2, SIZE, 7, flat_target=vidit / "track2/track2_validation_gt")
    scenes.write_pairs_layout(vidit / "track2/test", 2, SIZE, 8, target=False)
    scenes.write_one_to_one(vidit / "track1/train", 4, SIZE, 9)
    scenes.write_one_to_one(vidit / "track1/val", 2, SIZE, 10, flat_target=vidit / "track1/track1_validation_gt")
    scenes.write_one_to_one(vidit / "track1/test", 2, SIZE, 11, flat_target=tmp_path / "private")
    shutil.copytree(pages.ROOT / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("results"))
    return tmp_path


def test_the_document_has_the_whole_way():
    assert [pages.ours(step.words)[0] for step in pages.steps(PAGE)] == [
        *("cache", "cache", "fit-rig", "fit", "fit", "test", "test", "report", "test", "test")
    ]


@pytest.mark.slow
def test_every_command_of_the_document_runs(place):
    for step in pages.steps(PAGE):
        pages.run_apart(step, place, FEW)
    for run, names in (("any_to_any", ["Pair000.png", "Pair001.png"]), ("one_to_one", ["Image000.png", "Image001.png"])):
        track = {"any_to_any": "track-2-test", "one_to_one": "track-1-test"}[run]
        with zipfile.ZipFile(place / "runs" / run / "test" / track / "submission.zip") as archive:
            assert sorted(archive.namelist()) == names
        assert "rig" in (place / "runs" / run / "config.yaml").read_text()
    assert "psnr" in (place / "runs/any_to_any/test/track-2/summary.json").read_text()

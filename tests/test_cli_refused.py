"""What the four training commands refuse before they begin: other versions' checkpoints, precisions, split closed-form fits."""

from pathlib import Path

import bench_runs
import pytest
import torch

from ltnet_pl import InputError
from ltnet_pl.cli import main
from ltnet_pl.experiment import RelightCLI, run
from ltnet_pl.light import Light

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
COMMANDS = ["fit", "validate", "test", "predict"]


def arguments(command, root, folder, *more):
    """Flags of a tiny run of a command."""
    names = ["base.yaml", "debug.yaml", *(["predict.yaml"] if command == "predict" else [])]
    flags = [flag for name in names for flag in ("--config", str(EXPERIMENTS / name))]
    if command == "predict":
        flags += [f"--data.folder={root}", "--data.azimuth=90", "--data.temperature=4500"]
    else:
        flags += [f"--data.root={root}", f"--data.pairs={folder}", "--data.val_scenes=2", "--data.test_scenes=2"]
    return [command, *flags, f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu", *more]


@pytest.fixture(scope="module")
def content(vidit_root, tmp_path_factory):
    """What the last checkpoint of a tiny run holds."""
    folder = bench_runs.fit(vidit_root, tmp_path_factory.mktemp("refused") / "run")
    return torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_of_another_version(command, content, vidit_root, tmp_path, capsys):
    state = dict(content["state_dict"])
    for at in range(5):
        state[f"net.old{at}"] = torch.zeros(1)
    state.pop("net.mix.0.bias")
    file = tmp_path / "old.ckpt"
    torch.save({**content, "state_dict": state}, file)
    assert main(arguments(command, vidit_root, tmp_path / "run", f"--ckpt_path={file}")) == 2
    error = capsys.readouterr().err
    assert (
        f"error: {file}: holds the weights of LTNet, which do not fit --model.net LTNet as configured: keys 1 missing "
        "(net.mix.0.bias), 5 unexpected (net.old0, net.old1, net.old2, ...); use it with the config.yaml of its own run; where "
        "another version wrote it, train anew with this version, or install the version that wrote it"
    ) in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_classes_that_are_unknown_now(command, content, vidit_root, tmp_path, capsys):
    file = tmp_path / "old.ckpt"
    torch.save({**content, "more": Light(0, 4500)}, file)
    assert main(arguments(command, vidit_root, tmp_path / "run", f"--ckpt_path={file}")) == 2
    error = capsys.readouterr().err
    assert (
        f"{file}: holds an object of ltnet_pl.light.Light, which is unknown here; expected a checkpoint of this version" in error
    )
    assert "train anew with this version" in error


@pytest.mark.parametrize("value", [[1], {"weights": torch.zeros(2)}])
def test_files_that_torch_wrote_and_fit_did_not(value, vidit_root, tmp_path, capsys):
    file = tmp_path / "other.pth"
    torch.save(value, file)
    assert main(arguments("test", vidit_root, tmp_path / "run", f"--ckpt_path={file}")) == 2
    assert f"{file}: holds no state_dict; expected a checkpoint that fit wrote: choose another" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "64"])
def test_precisions_that_no_geometry_is_computed_in(command, precision, vidit_root, tmp_path, capsys):
    assert main(arguments(command, vidit_root, tmp_path / "run", f"--trainer.precision={precision}")) == 2
    assert (
        f"error: --trainer.precision {precision} is not supported, since what is computed from depth stays in 32 bits; expected "
        "one of 32-true, bf16-mixed, 16-mixed: choose one of them"
    ) in capsys.readouterr().err


class Checked(RelightCLI):
    """Goes as far as the checks before the command."""

    def _run_subcommand(self, subcommand):
        getattr(self, f"before_{subcommand}")()


@pytest.mark.parametrize("precision", ["null", "32", "32-true", "bf16", "bf16-mixed", "16", "16-mixed"])
@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU", "ignore:.* is supported for historical")
def test_precisions_that_work_pass(precision, vidit_root, tmp_path):
    command, *flags = arguments("fit", vidit_root, tmp_path, f"--trainer.precision={precision}")
    run(command, flags, Checked)


@pytest.mark.filterwarnings("ignore:.*class_path.*discard")
def test_a_closed_form_fit_is_not_split(vidit_root, tmp_path):
    def check(baseline, devices):
        config = ["--config", str(EXPERIMENTS / "baselines" / f"{baseline}.yaml")]
        more = ("--trainer.strategy=ddp_spawn", f"--trainer.devices={devices}")
        command, *flags = arguments("fit", vidit_root, tmp_path, *config, *more)
        run(command, flags, Checked)

    with pytest.raises(
        InputError,
        match=r"--trainer.devices gives 2 processes; ColorAffine is fitted in closed form, .*: use --trainer.devices 1",
    ):
        check("color_affine", 2)
    check("color_affine", 1)
    check("unet", 2)

"""Every shipped configuration parses, instantiates, and changes what it claims to change."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from ltnet_pl.callbacks import RunConfig
from ltnet_pl.data import AnyToAnyDataModule, OneToOneDataModule, PredictDataModule
from ltnet_pl.experiment import RelightCLI, run
from ltnet_pl.losses import LossWeights
from ltnet_pl.nets import Challenge2021, ColorAffine, CopyInput, LTNet, UNet
from ltnet_pl.tasks import RelightTask

ROOT = Path(__file__).resolve().parent.parent / "experiments"
# rows.yaml lists rows and is no configuration
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.yaml") if path.name != "rows.yaml")
ABLATIONS = [name for name in FILES if name.startswith("ablations/")]

pytestmark = pytest.mark.filterwarnings("ignore:.*class_path.*discard", "ignore:GPU available")


def build(*names, more=(), command="fit"):
    """The CLI object of some files, everything instantiated and nothing run."""
    flags = [flag for name in names for flag in ("--config", str(ROOT / name))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RelightCLI, "_run_subcommand", lambda self, subcommand: None)
        cli = run(command, [*flags, "--trainer.accelerator=cpu", *more])
    cli.config = cli.config[command]
    return cli


def layers(name):
    """A file with what it stands on."""
    return [name] if name == "base.yaml" else ["base.yaml", name]


def flat(config, prefix=""):
    """Leaves of a configuration by dotted name."""
    out = {}
    for key, value in config.items():
        if isinstance(value, dict | Namespace):
            out |= flat(value if isinstance(value, dict) else vars(value), f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


@pytest.mark.parametrize("name", FILES)
def test_every_file_instantiates(name):
    more = ("--data.folder=x", "--data.azimuth=90", "--data.temperature=4500") if name == "predict.yaml" else ()
    cli = build(*layers(name), more=more, command="predict" if name == "predict.yaml" else "fit")
    assert isinstance(cli.model, RelightTask)
    expected = {"one_to_one.yaml": OneToOneDataModule, "predict.yaml": PredictDataModule}.get(Path(name).name, AnyToAnyDataModule)
    assert type(cli.datamodule) is expected


@pytest.mark.parametrize("name", FILES)
def test_first_line_says_what_it_is_for(name):
    first = (ROOT / name).read_text().splitlines()[0]
    assert first.startswith("# ")
    if name.startswith(("ablations/", "baselines/")):
        assert first.endswith(("?", "."))
        assert "?" in first


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_one_thing(name):
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 10
    own = flat(yaml.safe_load(text))
    run = own.pop("trainer.default_root_dir")
    assert run == f"runs/{Path(name).stem}"
    base = flat(yaml.safe_load((ROOT / "base.yaml").read_text()))
    assert 1 <= len(own) <= 2
    for key, value in own.items():
        assert base.get(key, "not set") != value


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_reaches_its_object(name):
    base, changed = build("base.yaml"), build("base.yaml", name)
    own = flat(yaml.safe_load((ROOT / name).read_text()))
    own.pop("trainer.default_root_dir")
    for key, value in own.items():
        parts = key.split(".")[1:]
        if parts[0] == "loss":
            assert getattr(changed.model.loss.weights, parts[1]) == value != getattr(base.model.loss.weights, parts[1])
        else:
            assert changed.config["model"]["net"]["init_args"][parts[-1]] == value


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("challenge2021", Challenge2021),
        ("challenge2021_residual", Challenge2021),
        ("challenge2021_tuned", Challenge2021),
        ("color_affine", ColorAffine),
        ("copy_input", CopyInput),
        ("unet", UNet),
        ("unet_direct", UNet),
    ],
)
def test_baselines_are_what_they_are_called(name, net):
    assert type(build("base.yaml", f"baselines/{name}.yaml").model.net) is net
    quick = build("base.yaml", "quickstart.yaml", f"baselines/{name}.yaml")
    assert type(quick.model.net) is net


@pytest.mark.parametrize(
    ("name", "optimizer", "lr", "residual"),
    [
        ("challenge2021", "torch.optim.Adam", 1e-4, 0.0),
        ("challenge2021_residual", "torch.optim.AdamW", 1e-3, 1.0),
        ("challenge2021_tuned", "torch.optim.AdamW", 1e-3, 0.0),
    ],
)
def test_the_challenge_entry_is_trained_as_published_or_as_said(name, optimizer, lr, residual):
    cli = build("base.yaml", f"baselines/{name}.yaml")
    configured = cli.config["model"]["optimizer"]
    assert (configured["class_path"], configured["init_args"]["lr"]) == (optimizer, lr)
    # not base.yaml's, which Adam would apply another way
    assert configured["init_args"]["weight_decay"] == (0.0 if optimizer.endswith("Adam") else 0.01)
    assert cli.model.loss.weights == LossWeights(charbonnier=2.0, residual=residual)


def test_quickstart_knows_neither_camera_nor_rig():
    cli = build("base.yaml", "quickstart.yaml")
    assert isinstance(cli.model.net, LTNet)
    assert cli.model.net.camera_from == "estimated"


def test_one_to_one_never_mirrors():
    assert build("base.yaml", "one_to_one.yaml").datamodule.augment.mirror == 0


def test_the_config_callback_is_ours():
    assert any(isinstance(callback, RunConfig) for callback in build("base.yaml").trainer.callbacks)


def test_cli_is_lightnings():
    assert isinstance(build("base.yaml"), RelightCLI)

"""Every shipped configuration parses, instantiates, and changes what it claims to change."""

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace

from ltnet_pl.bench.rows import Row
from ltnet_pl.callbacks import EMA, RunConfig
from ltnet_pl.data import AnyToAnyDataModule, OneToOneDataModule, PredictDataModule
from ltnet_pl.experiment import RelightCLI, run
from ltnet_pl.losses import LossWeights
from ltnet_pl.lpips import TRUNKS
from ltnet_pl.nets import Challenge2021, ColorAffine, CopyInput, LTNet, UNet
from ltnet_pl.nets.blocks import Film, LightAttention
from ltnet_pl.nets.fields import BilateralField
from ltnet_pl.tasks import RelightTask

ROOT = Path(__file__).resolve().parent.parent / "experiments"
# rows.yaml lists rows and is no configuration
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.yaml") if path.name != "rows.yaml")
ABLATIONS = [name for name in FILES if name.startswith("ablations/")]

INTERACTIONS = {Film: "film", LightAttention: "attention", type(None): "concat"}
BUILT = {
    "camera_from": lambda net: net.camera_from,
    "cues": lambda net: net.depth_stream.cues,
    "field": lambda net: "bilateral" if isinstance(net.field, BilateralField) else net.field.kind,
    "fold": lambda net: net.backbone.fold,
    "interaction": lambda net: INTERACTIONS[type(net.backbone.bottom.modulation)],
    "label_dropout": lambda net: net.label_dropout,
    "latent": lambda net: net.light_stream.head[-1].out_features - net.light_stream.candidates,
    "match": lambda net: net.light_stream.match,
    "streams": lambda net: 1 + (net.guide_stream is not None),
    "tint": lambda net: net.tint is not None,
    "use_depth": lambda net: net.use_depth,
    "widths": lambda net: [net.backbone.stem.out_channels, *(down.out_channels for down in net.backbone.down)],
}
"""What a network was built with, by the setting that ablations change."""

pytestmark = pytest.mark.filterwarnings("ignore:.*class_path.*discard", "ignore:GPU available")


@pytest.fixture(autouse=True, scope="module")
def trunk(tmp_path_factory):
    """Random weights for the ablation whose loss needs a trunk."""
    path = tmp_path_factory.mktemp("trunk") / "squeeze.pth"
    torch.save(TRUNKS["squeeze"].build().state_dict(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTNET_LPIPS_WEIGHTS", str(path))
        yield


def build(*names, more=(), command="fit"):
    """The CLI object of some files, everything instantiated and nothing run."""
    flags = [flag for name in names for flag in ("--config", str(ROOT / name))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RelightCLI, "_run_subcommand", lambda self, subcommand: None)
        cli = run(command, [*flags, "--trainer.accelerator=cpu", *more])
    cli.config = cli.config[command]
    return cli


@cache
def plain():
    """The CLI object of base.yaml, for tests that only look."""
    return build("base.yaml")


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
    if name.startswith(("ablations/", "baselines/", "recipe/")):
        assert first.endswith(("?", "."))
        assert "?" in first


def test_a_row_asks_by_its_first_comment(tmp_path):
    texts = {"asks": "x: 1\n# Does it help?\n# Or not?\n", "silent": "x: 1  # Why?\ny: '# no?'\n", "blank": "#\n\n# Says.\n"}
    files = {name: tmp_path / f"{name}.yaml" for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)
    asked = {name: Row(name, "group", (file,), ()).question for name, file in files.items()}
    assert asked == {"asks": "Does it help?", "silent": "silent.yaml", "blank": "Says."}
    assert Row("both", "group", (files["asks"], files["silent"]), ()).question == "Does it help?"


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
    base, changed = plain(), build("base.yaml", name)
    own = flat(yaml.safe_load((ROOT / name).read_text()))
    own.pop("trainer.default_root_dir")
    for key, value in own.items():
        *where, last = key.split(".")[1:]
        found = [
            getattr(cli.model.loss.weights, last) if where == ["loss"] else BUILT[last](cli.model.net) for cli in (base, changed)
        ]
        assert found[1] == value, f"{key} is set, but not what was built"
        assert found[0] != value, f"{key} changes nothing"


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("challenge2021", Challenge2021),
        ("challenge2021_published", Challenge2021),
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
        ("challenge2021_published", "torch.optim.Adam", 1e-4, 0.0),
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


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("lr_high", (1e-3, True, True), (2e-3, True, True)),
        ("lr_low", (1e-3, True, True), (5e-4, True, True)),
        ("no_augment", (1e-3, True, True), (1e-3, False, True)),
        ("no_ema", (1e-3, True, True), (1e-3, True, False)),
    ],
)
def test_a_recipe_changes_how_the_same_network_is_trained(name, before, after):
    def recipe(cli):
        augment, averaged = cli.datamodule.augment, any(isinstance(callback, EMA) for callback in cli.trainer.callbacks)
        augmented = any((augment.jitter, augment.noise, augment.jpeg, augment.depth))
        return cli.config["model"]["optimizer"]["init_args"]["lr"], augmented, averaged

    changed = build("base.yaml", f"recipe/{name}.yaml")
    assert (recipe(plain()), recipe(changed)) == (before, after)
    assert changed.config["model"]["net"] == plain().config["model"]["net"]
    assert changed.model.loss.weights == plain().model.loss.weights


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

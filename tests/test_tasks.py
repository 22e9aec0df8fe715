"""The task: it learns, its extra passes ask for the right light, checkpoints come back, bad numbers stop it."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ltnet_pl import InputError
from ltnet_pl.light import encode
from ltnet_pl.losses import LossWeights
from ltnet_pl.nets import ColorAffine, CopyInput, LTNet, UNet
from ltnet_pl.tasks import RelightTask, _back


def tiny(**arguments):
    return LTNet(**{"widths": (8, 12, 16), "steps": 8, "light_width": 8, "light": "label", **arguments})


def adam(lr):
    return partial(torch.optim.AdamW, lr=lr)


def loader(batch):
    """The same batch, whole, as a loader of one."""
    return DataLoader([batch], batch_size=None)


def fit(task, batch, steps, **arguments):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    once = {"check_val_every_n_epoch": steps, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=steps, **{**once, **quiet, **arguments})
    trainer.fit(task, loader(batch), loader(batch))
    return trainer


def psnr(task, batch):
    with torch.no_grad():
        error = (task.eval()(batch)["relit"].clamp(0, 1) - batch["target"]).square().mean(dim=(1, 2, 3))
    task.train()
    return (-10 * error.log10()).mean().item()


def test_overfits_three_rendered_pairs(batch):
    torch.manual_seed(1)
    task = RelightTask(tiny(widths=(16, 24, 32), label_dropout=0.0), optimizer=adam(3e-3))
    before = psnr(task, batch)
    fit(task, batch, 150)
    assert psnr(task, batch) > before + 10


def test_light_stream_learns_to_read(batch):
    torch.manual_seed(1)
    task = RelightTask(tiny(), LossWeights(charbonnier=0.0, light=1.0), optimizer=adam(1e-3))
    fit(task, batch, 150)
    code = task.eval()(batch)["guide_code"]
    assert (code - encode(batch["target_light"])).abs().max() < 0.5


class Recorder(torch.nn.Module):
    """Returns its input shifted, and keeps every batch it was asked for."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(0.1))
        self.asked = []

    def forward(self, batch):
        self.asked.append(batch)
        return {"relit": batch["input"] + self.shift}

    def read_light(self, image, depth, crop, batch):
        self.asked.append({"read": image})
        return encode(batch["input_light"]), None


def validate(task, batch):
    trainer = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    return trainer.validate(task, loader(batch), verbose=False)[0]


def test_extra_passes_only_where_wanted(batch):
    plain, full = Recorder(), Recorder()
    validate(RelightTask(plain), batch)
    assert len(plain.asked) == 1
    logged = validate(RelightTask(full, LossWeights(cycle=1.0, identity=1.0, relit_light=1.0)), batch)
    assert len(full.asked) == 4
    once, cycle, identity, read = full.asked
    torch.testing.assert_close(once["input_light"], batch["input_light"])
    torch.testing.assert_close(cycle["input"], batch["input"] + 0.1)
    torch.testing.assert_close(cycle["input_light"], batch["target_light"])
    torch.testing.assert_close(cycle["target_light"], batch["input_light"])
    torch.testing.assert_close(identity["input"], batch["input"])
    torch.testing.assert_close(identity["input_light"], batch["input_light"])
    torch.testing.assert_close(identity["target_light"], batch["input_light"])
    torch.testing.assert_close(identity["guide"], batch["input"])
    torch.testing.assert_close(read["read"], batch["input"] + 0.1)
    losses = {"charbonnier", "cycle", "identity", "relit_light", "loss"}
    assert {f"val/{name}" for name in losses} <= set(logged)
    # the shift of 0.1 per pass: once for identity, twice for the way there and back
    assert logged["val/identity"] == pytest.approx(0.1, abs=2e-3)
    assert logged["val/cycle"] == pytest.approx(0.2, abs=2e-3)


def test_relit_light_needs_a_light_stream(batch):
    with pytest.raises(InputError, match=r"--model.loss.relit_light needs a network with a light stream; UNet has none"):
        RelightTask(UNet(widths=(8, 12)), LossWeights(relit_light=1.0))._step(batch, "val")
    told = tiny(label_dropout=0.0)
    with pytest.raises(InputError, match=r"relit_light needs a light stream that is trained; LTNet takes every light from its"):
        RelightTask(told, LossWeights(relit_light=1.0))._step(batch, "val")


@pytest.mark.parametrize("net", [tiny, lambda: tiny(field="residual", cues="none")])
def test_checkpoint_reloads_to_equal_output(net, batch, tmp_path):
    task = RelightTask(net(), optimizer=adam(1e-3))
    trainer = fit(task, batch, 2, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = RelightTask(net())
    again.load_state_dict(torch.load(tmp_path / "x.ckpt", weights_only=False)["state_dict"])
    torch.testing.assert_close(again.eval()(batch)["relit"], task.eval()(batch)["relit"])


def test_checkpoint_of_another_network_is_refused(batch, tmp_path):
    trainer = fit(RelightTask(UNet(widths=(8, 12))), batch, 1, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"holds the weights of UNet, which do not fit --model.net LTNet as configured"):
        fit_from(RelightTask(tiny()), batch, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"holds the weights of UNet, which do not fit --model.net UNet as configured"):
        fit_from(RelightTask(UNet(widths=(8, 16))), batch, tmp_path / "x.ckpt")


def fit_from(task, batch, path):
    trainer = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", max_epochs=2)
    trainer.fit(task, loader(batch), loader(batch), ckpt_path=path, weights_only=False)


def test_lpips_and_metrics_stay_out_of_the_checkpoint(batch, tmp_path):
    trainer = fit(RelightTask(tiny()), batch, 1, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=False)["state_dict"]
    assert {key.partition(".")[0] for key in state} == {"net"}


def test_loss_that_is_not_finite_stops_and_names_the_batch(batch):
    task = RelightTask(tiny(), LossWeights(charbonnier=1.0), optimizer=adam(1e-3))
    weights = [p.detach().clone() for p in task.parameters()]
    poisoned = {**batch, "target": batch["target"].clone()}
    poisoned["target"][1, 0, 3, 4] = torch.nan
    with pytest.raises(InputError, match=r"the loss is not finite at step 0 \(.*\) on the batch pair0, pair1, pair2"):
        fit(task, poisoned, 1)
    for before, after in zip(weights, task.parameters(), strict=True):
        torch.testing.assert_close(before, after)


@pytest.mark.filterwarnings("ignore:.*this fit will run with no optimizer", "ignore:.*`training_step` returned `None`")
def test_closed_form_networks_are_solved(batch):
    darker = {**batch, "target": batch["input"] * 0.5}
    task = RelightTask(ColorAffine(prior_images=1e-3))
    fit(task, darker, 1)
    assert psnr(task, darker) > 35


def test_row_names():
    assert RelightTask(tiny()).row_name == "LTNet (label light)"
    assert RelightTask(CopyInput()).row_name == "CopyInput"
    assert RelightTask(CopyInput(), row="copy").row_name == "copy"


def test_back_leaves_the_batch_alone(batch):
    before = {key: value.clone() if torch.is_tensor(value) else list(value) for key, value in batch.items()}
    _back(batch, batch["target"])
    for key, value in before.items():
        if torch.is_tensor(value):
            torch.testing.assert_close(batch[key], value, equal_nan=True)


def test_compile_in_place_keeps_parameter_names(batch, monkeypatch):
    called = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *a, **k: called.append(type(self).__name__))
    task = RelightTask(tiny(), compile=True)
    task.setup("fit")
    assert called == ["LTNet"]
    assert not any("_orig_mod" in key for key in task.state_dict())

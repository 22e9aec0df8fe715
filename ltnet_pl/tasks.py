"""The one task: train, validate and test any relighting network."""

from __future__ import annotations

import copy
import warnings
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ltnet_pl import InputError
from ltnet_pl.light import decode
from ltnet_pl.losses import LossWeights, RelightLoss
from ltnet_pl.metrics import MetricSettings, RelightMetrics, build_metrics, quantize

Batch = dict[str, Any]

# a checkpoint keeps these settings, and torch refuses to load classes that it does not know
torch.serialization.add_safe_globals([LossWeights, MetricSettings])


class RelightTask(pl.LightningModule):
    """Trains a network to relight, and scores it.

    The network is any module that takes a batch (see the data modules) and returns a dict with at least ``relit``. A network
    without trainable weights that has ``observe(batch)`` and ``solve()`` is fitted in closed form: it observes every training
    batch and solves at the end of the epoch.

    Args:
        net: The network.
        loss: Weights of the loss's parts.
        metrics: Settings of the metrics; on the command line these are ``--metrics.*``.
        optimizer: Optimiser, lacking only the parameters.
        scheduler: Learning-rate schedule, lacking only the optimiser; stepped after every batch.
        compile: Compile the network with torch.compile, in place, before fitting.
        row: Name of this method in tables; None: the network's class name, with its source of light where it has one.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: LossWeights = LossWeights(),
        metrics: MetricSettings = MetricSettings(),
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        compile: bool = False,
        row: str | None = None,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # with nothing ignored, a checkpoint says how to rebuild its network; Lightning would advise against
            warnings.filterwarnings("ignore", "Attribute 'net' is an instance of `nn.Module`")
            # the whole config is logged by RunConfig; a logger cannot take frozen dataclasses
            self.save_hyperparameters(logger=False)
        # Any: `read_light`, `observe`, `solve` and `light` are asked for by name, and no network must have them
        self.net: Any = net
        self.loss = RelightLoss(loss, lpips_weights=metrics.lpips_weights)
        self.optimizer, self.scheduler, self.compiled, self.row = optimizer, scheduler, compile, row
        self.val_metrics = build_metrics(metrics)
        # a clone shares the LPIPS trunk
        self.test_metrics = self.val_metrics.clone()
        self._val_sums: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> RelightTask:
        """A copy that shares the makers of optimiser and schedule: made by the command line, they know the trainer."""
        memo |= {id(maker): maker for maker in (self.optimizer, self.scheduler)}
        other: RelightTask = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))  # type: ignore[no-untyped-call]  # torch types it not
        return other

    @property
    def row_name(self) -> str:
        """Name of this method in tables."""
        light = getattr(self.net, "light", None)
        return self.row or type(self.net).__name__ + (f" ({light} light)" if light else "")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """What the network returns for a batch."""
        out: dict[str, Tensor] = self.net(batch)
        return out

    def setup(self, stage: str) -> None:
        """Compile the network where asked."""
        if stage == "fit" and self.compiled:
            self.net.compile()

    def configure_optimizers(self) -> torch.optim.Optimizer | OptimizerLRSchedulerConfig | None:
        """Optimiser and schedule; none for a network without weights."""
        weights = [p for p in self.net.parameters() if p.requires_grad]
        if not weights:
            return None
        optimizer = self.optimizer(weights)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        steps = getattr(scheduler, "T_max", 1)
        if steps < 1:
            raise InputError(
                f"--model.scheduler.init_args.T_max is {steps}; expected the number of steps: set it, or "
                "--trainer.max_steps, which it follows in base.yaml"
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _step(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Network, extra passes that the loss needs, and the loss's parts, logged under the stage."""
        out = self(batch)
        if self.loss.needs_cycle:
            out["cycle"] = self.net(_back(batch, out["relit"]))["relit"]
        if self.loss.needs_identity:
            out["identity"] = self.net(_back(batch, batch["input"]))["relit"]
        if self.loss.needs_relit_code:
            if not hasattr(self.net, "read_light"):
                raise InputError(
                    f"--model.loss.relit_light needs a network with a light stream; {type(self.net).__name__} has none: "
                    "set the weight to 0"
                )
            if getattr(self.net, "told", False):
                raise InputError(
                    f"--model.loss.relit_light needs a light stream that is trained; {type(self.net).__name__} takes every light "
                    "from its label: set the weight to 0, or --model.net.init_args.label_dropout above 0"
                )
            out["relit_code"] = self.net.read_light(out["relit"], batch["depth"], batch["crop"], batch)[0]
        parts = self.loss(out, batch)
        count = len(batch["name"])
        if stage == "train":
            self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()}, batch_size=count, prog_bar=False)
        else:
            # not by Lightning's own mean over processes, which rounds the number of samples to a whole one per process
            for name, value in [*parts.items(), ("samples", torch.ones_like(parts["loss"]))]:
                self._val_sums[name] = self._val_sums.get(name, torch.zeros_like(value)) + value.detach() * count
        return out, parts

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Loss of a batch.

        Raises:
            InputError: If the loss is not finite; training stops before the weights are touched.
        """
        if hasattr(self.net, "observe"):
            self.net.observe(batch)
            return None
        _, parts = self._step(batch, "train")
        loss = parts["loss"]
        if not torch.isfinite(loss):
            bad = ", ".join(f"{name} = {value.item():g}" for name, value in parts.items() if not torch.isfinite(value))
            raise InputError(
                f"the loss is not finite at step {self.global_step} ({bad}) on the batch {', '.join(batch['name'])}; the weights "
                "are not updated, and the last checkpoint is kept. Look at these files, or lower --model.optimizer.lr or set "
                "--trainer.gradient_clip_val 1, then go on with --ckpt_path last"
            )
        return loss

    def on_train_epoch_end(self) -> None:
        """Solve a network that is fitted in closed form."""
        if hasattr(self.net, "solve"):
            self.net.solve()

    def on_validation_start(self) -> None:
        """The same where validation comes first."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.on_train_epoch_end()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Losses and metrics of a batch; returns what the network returned.

        What only pads the batch, so that processes that share a list work in step, does not count.
        """
        if "padding" in batch:
            real = ~batch.pop("padding")
            if not real.any():
                unseen: dict[str, Tensor] = self(batch)
                return unseen
            batch |= {key: value[real] for key, value in batch.items() if isinstance(value, Tensor)}
            batch["name"] = [name for name, counts in zip(batch["name"], real.tolist(), strict=True) if counts]
        out, _ = self._step(batch, "val")
        self._update(self.val_metrics, out, batch)
        return out

    def on_validation_epoch_start(self) -> None:
        """Forget what an earlier validation left that was stopped."""
        self._val_sums = {}
        self.val_metrics.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the validation's losses and metrics, over all processes."""
        values = self.val_metrics.compute()
        if self._val_sums:
            totals = self.trainer.strategy.reduce(torch.stack(list(self._val_sums.values())), reduce_op="sum")
            sums = dict(zip(self._val_sums, totals, strict=True))
            count = sums.pop("samples")
            for name, total in sums.items():
                # a part of the loss may bear the name of a metric, as SSIM does
                self.log(f"val/{name}_loss" if name in values else f"val/{name}", total / count)
        self.val_metrics.reset()
        for key, value in values.items():
            self.log(f"val/{key}", value, prog_bar=key == "psnr")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Relit images, 8-bit rounded, with per-image metrics and light readings, for the callback that writes them."""
        out = self(batch)
        result: dict[str, Any] = {"relit": quantize(out["relit"].float())}
        if "target" in batch:
            result |= self._update(self.test_metrics, out, batch)
        return result | _readings(out)

    def on_test_epoch_end(self) -> None:
        """Keep the test metrics in ``test_values`` and log them."""
        self.test_values = self.test_metrics.compute()
        self.test_metrics.reset()
        self.log_dict({f"test/{key}": value for key, value in self.test_values.items()})

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Relit images and light readings, for the callback that writes them."""
        out = self(batch)
        return {"relit": quantize(out["relit"].float())} | _readings(out)

    def _update(self, metrics: RelightMetrics, out: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Feed the metrics; returns their per-image values."""
        per_image: dict[str, Tensor] = metrics.update(
            pred=out["relit"].float(),
            target=batch["target"],
            input_light=batch["input_light"],
            target_light=batch["target_light"],
            input_code=out.get("input_code"),
            guide_code=out.get("guide_code"),
        )
        return per_image

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which network the checkpoint holds."""
        checkpoint["ltnet_pl"] = {"net": type(self.net).__name__, "loss": asdict(self.loss.weights)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network.

        Raises:
            InputError: If its weights do not fit this task's network.
        """
        found = checkpoint.get("ltnet_pl", {}).get("net", "an unknown network")
        state, own = checkpoint["state_dict"], self.state_dict()
        wrong = [key for key in {*state, *own} if key not in state or key not in own or state[key].shape != own[key].shape]
        if wrong:
            raise InputError(
                f"the checkpoint holds the weights of {found}, which do not fit --model.net {type(self.net).__name__} as "
                f"configured ({len(wrong)} of {len(own)} tensors differ, {min(wrong)} first); use a checkpoint with the "
                "config.yaml of its own run"
            )
        if self._trainer is not None and self.trainer.state.fn == "fit":
            self._keep_what_was_asked(checkpoint)
            _start_next_epoch(checkpoint)
            _validate_from_the_start(checkpoint)

    def _keep_what_was_asked(self, checkpoint: dict[str, Any]) -> None:
        """Put the optimiser's and the schedule's configured values in place of the checkpoint's; its moments stay.

        Otherwise a resumed run would silently ignore a changed learning rate, and a longer run its longer schedule.
        """
        configured: Any = self.configure_optimizers()
        if configured is None or not checkpoint.get("optimizer_states"):
            return
        optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        scheduler = configured["lr_scheduler"]["scheduler"] if isinstance(configured, dict) else None
        if scheduler is not None and type(scheduler) is not torch.optim.lr_scheduler.ReduceLROnPlateau:
            with warnings.catch_warnings():
                # replayed without the optimiser, to where the checkpoint stands
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                for _ in range(checkpoint["global_step"]):
                    scheduler.step()
            checkpoint["lr_schedulers"] = [scheduler.state_dict()]
        for kept, asked in zip(checkpoint["optimizer_states"][0]["param_groups"], optimizer.param_groups, strict=True):
            if kept.keys() - {"initial_lr"} != asked.keys() - {"initial_lr"}:
                raise InputError(
                    "the checkpoint was trained with another optimiser than --model.optimizer "
                    f"{type(optimizer).__name__}; go on with the same, or start a new run"
                )
            kept.update({key: value for key, value in asked.items() if key != "params"})


def _start_next_epoch(checkpoint: dict[str, Any]) -> None:
    """Mark the epoch at whose end a checkpoint was written as completed.

    Where steps are limited, Lightning would run that epoch once more without a batch, and count it: the samples of the next
    epoch would be skipped.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    if epochs["total"]["processed"] == epochs["total"]["started"]:
        for span in ("total", "current"):
            epochs[span]["completed"] = epochs[span]["processed"]
        batches["current"] = dict.fromkeys(batches["current"], 0)
        batches["is_last_batch"] = False
        # resuming adds one, as if a step had been cut short
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def _validate_from_the_start(checkpoint: dict[str, Any]) -> None:
    """Have a validation that a checkpoint was written in done anew: the metrics of its first half are not kept."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    if progress["total"]["completed"] < progress["total"]["ready"]:
        # what Lightning takes for a validation that was stopped within its first batch
        progress["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        progress["current"] = dict.fromkeys(progress["current"], 0)
        progress["is_last_batch"] = False


def _back(batch: Batch, image: Tensor) -> Batch:
    """The batch that asks for the input's own light, starting from the relit image, or from the input itself."""
    start = batch["input_light"] if image is batch["input"] else batch["target_light"]
    return {
        **batch,
        "input": image,
        "input_light": start,
        "target_light": batch["input_light"],
        "guide": batch["input"],
        "guide_depth": batch["depth"],
        "guide_crop": batch["crop"],
    }


def _readings(out: dict[str, Tensor]) -> dict[str, Tensor]:
    """Azimuths and kelvins that the light stream read, ``(B,)`` each, by name."""
    readings: dict[str, Tensor] = {}
    for which in ("input", "guide"):
        if f"{which}_code" in out:
            azimuth, kelvin = decode(out[f"{which}_code"].float()).unbind(dim=1)
            readings |= {f"{which}_azimuth_pred": azimuth, f"{which}_temperature_pred": kelvin}
    return readings

"""A logger to Weights & Biases that needs no key, no server and no care."""

from __future__ import annotations

import contextlib
import netrc
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

import ltnet_pl
from ltnet_pl import InputError
from ltnet_pl.callbacks.stop import TERMINATED
from ltnet_pl.files import better

CLOUD = "https://api.wandb.ai"
"""The server that wandb asks where none is named."""

STEP = "trainer/global_step"
"""Optimiser steps done, which all curves are drawn over."""

MODES = {name: name for name in ("online", "offline", "disabled", "shared")} | {"dryrun": "offline", "run": "online"}
"""What WANDB_MODE may be, and which of wandb's modes that is."""

_FLAG = "--trainer.logger.init_args"


class WandbLog(WandbLogger):
    """A W&B run, started by the first process alone, and kept on disk where there is no key or no server.

    Its configuration is that of ``config.yaml``, as a tree, and ``versions`` (of the package, and its commit where it is a git
    checkout). Its summary holds the last and the best value of every ``val/*``: ``max`` where more is better, else ``min``. Under
    a sweep agent the sweep decides project, entity and id.

    Where the server does not answer at the start, the run goes on offline, and `wandb sync` uploads it later.

    Args:
        project: The project that the run belongs to.
        name: The run's name; null for one that W&B makes up.
        entity: User or team; null for the default one of the key.
        group: Group of runs that belong together.
        tags: Its tags.
        notes: What to know about it.
        save_dir: Folder in which ``wandb/`` is written.
        offline: Whether to write to disk alone; null for offline unless there is a key (WANDB_API_KEY or `wandb login`), or
            what WANDB_MODE says.
        id: An existing run to go on with, or a new one's id; null for a random one.
        log_model: Whether to upload the best and the last checkpoint as artifacts at the end.
        timeout: Seconds within which the server must have answered at the start.
        finish_timeout: Seconds that may be spent on what is left to upload at the end; the rest stays on disk.
    """

    def __init__(
        self,
        project: str = "ltnet_pl",
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        save_dir: str = ".",
        offline: bool | None = None,
        id: str | None = None,
        log_model: bool = False,
        timeout: float = 60.0,
        finish_timeout: float = 600.0,
    ) -> None:
        for key, value in (("timeout", timeout), ("finish_timeout", finish_timeout)):
            if not value > 0:
                raise InputError(f"{_FLAG}.{key} {value}: expected seconds above 0: raise it")
        super().__init__(name=name, save_dir=save_dir, id=id, project=project, log_model=log_model)
        # Lightning passes it always, and wandb warns of it always
        self._wandb_init.pop("anonymous", None)
        self._wandb_init |= {"entity": entity, "group": group, "tags": tags, "notes": notes}
        self._given = offline
        self._timeout, self._finish_timeout = timeout, finish_timeout
        self._has_tree = False
        self._defined: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started when it is first asked for; on other processes than the first one something that does nothing."""
        if self._experiment is None and getattr(self, "_attach_id", None) is None:
            self._experiment = self._start()
        return super().experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the configuration of the command line; what Lightning gathers from its objects only where there is none.

        Args:
            params: The tree, or hyperparameters of task and data.
        """
        tree = isinstance(params, Mapping) and {"trainer", "model", "data"} <= params.keys()
        if self._has_tree and not tree:
            return
        self._has_tree |= tree
        super().log_hyperparams(params if tree else {key: value for key, value in dict(params).items() if key[:1] != "_"})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers; those of validation are told apart by which of them is better.

        Args:
            metrics: Values by name.
            step: Optimiser steps done.
        """
        for key in metrics:
            if key.startswith("val/") and key not in self._defined and isinstance(metrics[key], int | float):
                self._defined.add(key)
                # what is not known is a part of the loss
                best = better(key.rpartition("/")[2]) or "min"
                self.experiment.define_metric(key, step_metric=STEP, summary=f"{best},last")
        super().log_metrics(metrics, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close a run that was stopped with the status that the process leaves with; W&B would take it for finished.

        A preempted run is taken up again by its sweep only then. Other ends wandb notices by itself.

        Args:
            status: success or failed.
        """
        super().finalize(status)
        if status == "success" or self._experiment is None:
            return
        error = sys.exception()
        if isinstance(error, SystemExit):
            self._experiment.finish(exit_code=error.code if isinstance(error.code, int) else int(error.code is not None))
        elif isinstance(error, SIGTERMException):
            self._experiment.finish(exit_code=TERMINATED)

    def _start(self) -> Any:
        """Start a run, offline where the server does not let it start; None where one is in progress that is not ours."""
        import wandb

        if wandb.run is not None:
            if wandb.run is not WandbLog._latest:
                return None
            # of an earlier training in this process
            wandb.run.finish()
        init = dict(self._wandb_init)
        Path(init["dir"] or ".").mkdir(parents=True, exist_ok=True)
        if "WANDB_SWEEP_ID" in os.environ:
            # the agent's, and wandb warns of any other
            init |= {"project": None, "entity": None, "id": None}
        mode: Any  # a literal to wandb
        mode, why = choose_mode(self._given)
        settings = wandb.Settings(init_timeout=self._timeout, finish_timeout=self._finish_timeout)
        try:
            run = wandb.init(**init, mode=mode, settings=settings)
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            raise InputError(
                f"W&B refuses the run: {_plain(error)}; expected a key and settings that it knows: correct them, or log to disk "
                f"alone by {_FLAG}.offline true"
            ) from error
        except (wandb.Error, TimeoutError) as error:
            mode, why = "offline", f"the server did not let the run start: {_plain(error)}"
            run = wandb.init(**init, mode="offline", settings=settings)
        if mode == "offline":
            print(f"W&B: offline, since {why}; upload it by: wandb sync {Path(run.settings.sync_dir)}", flush=True)
        else:
            print(f"W&B: {mode}, since {why}", flush=True)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        run.config["versions"] = versions()
        WandbLog._latest = run
        return run

    _latest: Any = None


def _plain(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()).rstrip(".")


def choose_mode(offline: bool | None) -> tuple[str, str]:
    """What mode to start wandb in, and why.

    Args:
        offline: What the user wants; null for whatever the environment says.

    Returns:
        One of wandb's modes, and the reason in words.

    Raises:
        InputError: If WANDB_MODE is none of them.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode is not None and mode not in MODES:
        # wandb reads it in any case, and would end with a traceback
        raise InputError(f"WANDB_MODE is {mode!r}; expected one of {', '.join(MODES)}: correct or unset it")
    if offline is not None:
        return "offline" if offline else "online", f"{_FLAG}.offline is {str(offline).lower()}"
    if mode is not None:
        return MODES[mode], f"WANDB_MODE is {mode}"
    if has_key(os.environ.get("WANDB_BASE_URL") or CLOUD):
        return "online", "a key is set"
    return "offline", "no key is set (WANDB_API_KEY or `wandb login`)"


def has_key(server: str) -> bool:
    """Whether there is a key for a server: in the environment, or where `wandb login` puts it.

    Args:
        server: Its address.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def versions() -> dict[str, str]:
    """Version of the package, and its commit where it is a git checkout, ``-dirty`` where files were changed since."""
    found = {"ltnet_pl": ltnet_pl.__version__}
    root = Path(ltnet_pl.__file__).resolve().parent.parent
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        # there may be no git here, or it does not trust the folder
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            found["commit"] = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return found

"""What is looked at before the first trial of a sweep starts, so that not all of them fail for one reason."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Sequence
from typing import Any

from ltnet_pl import InputError
from ltnet_pl.experiment import configuration
from ltnet_pl.sweep.plan import Parameters, Sweep, expand, flags_of
from ltnet_pl.sweep.slots import misfit


def check_trials(plan: Sweep, parameters: Parameters, slots: Sequence[str]) -> None:
    """Resolve the first trial's configuration.

    Args:
        plan: The sweep.
        parameters: The first trial's.
        slots: Devices of each slot.

    Raises:
        InputError: If a key is no flag of ours, the program is not there, or a slot has fewer devices than trials ask for.
    """
    line = expand(plan, parameters)
    _check_program(plan, line)
    if flags_of(line) is None:
        return
    config, whole = _resolved(plan, parameters)
    if config is None:
        # the one that is refused alone, where there is one
        alone = {key: why for key, value in parameters.items() if (why := _resolved(plan, {key: value})[1])}
        named, why = next(((f"parameters.{key}", why) for key, why in alone.items()), ("what it asks for", whole))
        raise InputError(
            f"{plan.path}: {named} is refused by fit: {why}; expected flags that python -m ltnet_pl fit --help names: correct it"
        )
    trainer = config["trainer"]
    for devices in [trainer["devices"], *plan.parameters.get("trainer.devices", {}).get("values", [])]:
        wrong = misfit(devices, trainer["accelerator"], slots)
        if wrong is not None:
            raise InputError(
                f"{plan.path}: a trial asks for {wrong}; expected no more than --slots gives: lower trainer.devices "
                f"({devices}), or give larger slots, such as --slots '0,1;2,3'"
            )


def _check_program(plan: Sweep, line: Sequence[str]) -> None:
    """Refuse what no trial could start; what stands behind env is looked for in its place."""
    words = [word for word in line if os.path.basename(word) != "env" and "=" not in word]
    if words and not words[0].startswith("-") and shutil.which(words[0]) is None:
        raise InputError(
            f"{plan.path}: command runs {words[0]}, which is not found; expected a program on the PATH, or the path of one: "
            "correct it"
        )


def _resolved(plan: Sweep, parameters: Parameters) -> tuple[dict[str, Any] | None, str]:
    """The configuration of a command line of ours; where our own parser refuses it, None and what it says."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return configuration(flags_of(expand(plan, parameters)) or []), ""
    except SystemExit:
        lines = " ".join(said.getvalue().rpartition("error:")[2].split())
        return None, lines[:300] or "it ends at once"
    except InputError as error:
        return None, str(error)

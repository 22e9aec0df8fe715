"""The devices that trials run on: slots, each for one trial at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from ltnet_pl import InputError


def parse_slots(slots: str | None) -> list[str]:
    """The devices of each slot, as CUDA_VISIBLE_DEVICES takes them; empty for none.

    Where that variable is set already, numbers count what it lists, as they do for torch: with ``2,3`` the slot ``0`` is ``2``.

    Raises:
        InputError: If a device is unknown, absent or named twice.
    """
    import torch

    there, given = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    # numbers, or the identifiers of GPUs and of their parts
    names = [str(index) for index in range(there)] if given is None else [name.strip() for name in given.split(",")][:there]
    if slots is None:
        return names or [""]
    found, seen = list[str](), set[int]()
    for part in slots.split(";"):
        if part.strip() == "cpu":
            found.append("")
            continue
        devices = list[int]()
        for device in (name.strip() for name in part.split(",")):
            if not device.isdecimal():
                raise InputError(
                    f"--slots {slots}: {device!r} is no device; expected numbers of GPUs as in 0,1;2,3, or cpu: correct it"
                )
            if int(device) >= there:
                among = "" if given is None else f" in CUDA_VISIBLE_DEVICES={given}"
                expected = f"0 to {there - 1}" if there else "cpu"
                raise InputError(
                    f"--slots {slots}: there is no GPU {device}, there are {there}{among}; expected {expected}: correct it"
                )
            if int(device) in seen:
                raise InputError(f"--slots {slots}: GPU {device} is named twice; expected each once: correct it")
            seen.add(int(device))
            devices.append(int(device))
        found.append(",".join(names[device] for device in devices))
    return found


def misfit(devices: Any, accelerator: Any, slots: Sequence[str]) -> str | None:
    """What a trial asks for that a slot does not have; None where each slot serves.

    Args:
        devices: ``trainer.devices``: a number, a list, what stands for one of them, or ``auto``.
        accelerator: ``trainer.accelerator``.
        slots: What `parse_slots` returns.

    Example:
        >>> misfit(2, "auto", ["0,1", "2"]), misfit("auto", "auto", ["0"]), misfit(2, "auto", [""])
        ('2 GPUs, and the slot 2 has 1', None, None)
    """
    if accelerator == "cpu":
        return None
    numbers = [int(number) for number in re.findall(r"-?\d+", str(devices))]
    several = isinstance(devices, list | tuple) or "," in str(devices)
    least = max(numbers, default=0) + several
    for slot in slots:
        size = len(slot.split(",")) if slot else 0
        if size == 0 and accelerator in ("gpu", "cuda"):
            return "a GPU, and the slot cpu has none"
        if 0 < size < least:
            return f"{least} GPUs, and the slot {slot} has {size}"
    return None

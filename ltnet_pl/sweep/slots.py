"""The devices that trials run on: slots, each for one trial at a time."""

from __future__ import annotations

from ltnet_pl import InputError


def parse_slots(slots: str | None) -> list[str]:
    """The devices of each slot, as CUDA_VISIBLE_DEVICES takes them; empty for none.

    Raises:
        InputError: If a device is unknown, absent or named twice.
    """
    import torch

    there = torch.cuda.device_count()
    if slots is None:
        return [str(index) for index in range(there)] or [""]
    parts = [part.strip() for part in slots.split(";")]
    seen: list[str] = []
    for part in parts:
        if part == "cpu":
            continue
        for device in (name.strip() for name in part.split(",")):
            if not device.isdecimal():
                raise InputError(
                    f"--slots {slots}: {device!r} is no device; expected numbers of GPUs as in 0,1;2,3, or cpu: correct it"
                )
            if int(device) >= there:
                raise InputError(
                    f"--slots {slots}: there is no GPU {device}, there are {there}; expected 0 to {there - 1}: correct it"
                )
            if device in seen:
                raise InputError(f"--slots {slots}: GPU {device} is named twice; expected each once: correct it")
            seen.append(device)
    return ["" if part == "cpu" else part.replace(" ", "") for part in parts]

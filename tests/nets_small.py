"""Small networks for tests, and helpers for them and for batches."""

import torch

SMALL = {"widths": (8, 12, 16), "steps": 12, "light_width": 8}


def awake(net):
    """A network whose zero-initialised layers are random, so that everything upstream shows in the output."""
    generator = torch.Generator().manual_seed(3)
    for parameter in net.parameters():
        if parameter.abs().sum() == 0:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return net.eval()


def part(batch, rows):
    return {key: value[rows] if torch.is_tensor(value) else [value[i] for i in rows] for key, value in batch.items()}


def checkpoint(net, settings, path):
    """A checkpoint of an LTNet of some settings, as far as loading a network reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    spec = {"class_path": "ltnet_pl.nets.LTNet", "init_args": plain}
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"net": spec}, "ltnet_pl": {"net": spec["class_path"]}}, path)
    return path

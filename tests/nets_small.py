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

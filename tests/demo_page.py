"""The page of the demo for tests: a small network with random weights, and readers that stand on Pillow alone.

``python tests/demo_page.py PORT`` serves it. ``python tests/demo_page.py pictures [WEIGHTS]`` makes the documentation's pictures
of the page, with the weights in the package or others.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltnet_pl.demo.inputs import Readers, readers
from ltnet_pl.demo.serve import quiet, serve

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
SCREENS = {"desktop": (1280, 1100), "phone": (390, 844)}
WARNS = (
    # Gradio 6.31 against pandas 3, when it counts how long requests wait
    "ignore:'future.no_silent_downcasting' is deprecated",
    "ignore:The copy keyword is deprecated",
    # it opens event loops in threads, and closes none
    "ignore:unclosed event loop:ResourceWarning",
    "ignore:unclosed <socket:ResourceWarning",
)
"""What a page that runs warns of, as pytest's filters."""


@dataclass
class Photo:
    """What `ltnet_pl.photo` makes of a file, as far as the page knows it."""

    pixels: np.ndarray


def read_photo(path):
    return Photo(np.array(Image.open(path).convert("RGB")))


def write_photo(path, photo):
    Image.fromarray(photo.pixels).save(path)


def read_depth(path, size, inverse):
    depth = np.load(path) if path.suffix == ".npy" else np.array(Image.open(path)).astype(np.float32)
    return (1 / depth.clip(1e-3)).astype(np.float32) if inverse else depth


def write_turn(path, frames):
    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=rest, duration=80, loop=0)


def durations(image):
    """Milliseconds that each frame of a moving picture lasts; frames that look alike are stored as one."""
    for frame in range(image.n_frames):
        image.seek(frame)
        image.load()
        yield image.info["duration"]


def estimate(pixels):
    height, width = pixels.shape[:2]
    return np.repeat(np.linspace(2, 1, height, dtype=np.float32)[:, None], width, axis=1)


SIMPLE = Readers(read_photo, write_photo, read_depth, write_turn)
ESTIMATING = Readers(read_photo, write_photo, read_depth, write_turn, estimate)


def small_relighter():
    from nets_small import SMALL, awake

    from ltnet_pl.nets import LTNet
    from ltnet_pl.relight import Relighter

    torch.manual_seed(7)
    return Relighter(awake(LTNet(**SMALL)), working_size=64)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(folder: Path, relighter=None, read: Readers = SIMPLE, max_mb: float = 1, **bounds) -> Iterator[str]:
    """The page on a free port; its address."""
    quiet()
    from ltnet_pl.demo.page import build

    page = build(relighter or small_relighter(), read, folder, **bounds)
    try:
        yield serve(page, "127.0.0.1", free_port(), max_mb)
    finally:
        page.close(verbose=False)
        gc.collect()  # what Gradio leaves open goes here, and not in the midst of another test


def pictures(weights: str | None, out: Path = ROOT / "docs" / "pictures") -> None:
    """Screenshots of the page with an example under a turned light, at a desk's and a phone's width."""
    from playwright.sync_api import sync_playwright

    from ltnet_pl.relight import Relighter

    relighter = Relighter.pretrained() if weights is None else Relighter.from_run(weights)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), relighter, readers()) as url, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, (width, height) in SCREENS.items():
            picture(browser, url, width, height, out / f"demo_{name}.png")
        browser.close()


def picture(browser, url: str, width: int, height: int, path: Path) -> None:
    """One screenshot, packed into few bytes."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(url)
    page.locator("#examples button").nth(0).click(timeout=120_000)
    page.locator("#said strong").wait_for(timeout=120_000)
    page.locator("#azimuth input[type=number]").fill("140")
    page.locator("#azimuth input[type=number]").press("Tab")
    page.locator("#said strong", has_text="(SE)").wait_for(timeout=120_000)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=path, full_page=True)
    page.close()
    # five bits of eight make the file a third, and show less than a palette would
    with Image.open(path) as shot:
        shot.convert("RGB").point(lambda value: min(255, (value + 4) // 8 * 8)).save(path, optimize=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["pictures"]:
        pictures(*sys.argv[2:3] or [None])
    else:
        quiet()
        from ltnet_pl.demo.page import build

        with tempfile.TemporaryDirectory() as place:
            shown = build(small_relighter(), SIMPLE, Path(place))
            print(serve(shown, "127.0.0.1", int(sys.argv[1]), 32))
            shown.block_thread()

"""The demo's page in a real, headless Chromium, as a visitor sees and touches it."""

from __future__ import annotations

import logging
import re
import shutil
import urllib.request
from pathlib import Path

import demo_page
import numpy as np
import pytest
from demo_page import CHROMIUM, SIMPLE, WARNS, served
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="the extra dev (playwright) is not installed")
pytest.importorskip("gradio", reason="the extra demo (gradio) is not installed")

WAIT = 90_000  # milliseconds: shared machines are slow
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which(CHROMIUM), reason=f"{CHROMIUM} is missing: apt-get install chromium"),
    *map(pytest.mark.filterwarnings, WARNS),
]


class Slow:
    """Estimates depth, and fails as programs do."""

    def __call__(self, pixels):
        raise RuntimeError("a wire came off")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    import dataclasses

    read = dataclasses.replace(SIMPLE, estimate=Slow())
    with served(tmp_path_factory.mktemp("page"), read=read, max_mb=1, max_megapixels=1, preview=96) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    """A fresh visitor; nothing may be asked of another host, and no script may fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page, asked, failed = context.new_page(), [], []
    page.set_default_timeout(WAIT)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(url)
    page.locator(".dial").wait_for()
    yield page
    context.close()
    foreign = [address for address in asked if not address.startswith((url, "data:", "blob:"))]
    assert asked
    assert not foreign
    assert not failed


def pick(page, index=0):
    page.locator("#examples button").nth(index).click()
    page.locator("#said strong").wait_for()


def after(page):
    """Where the relit picture is to be had: its name is that of its content."""
    return page.locator("#before_after img").last.get_attribute("src")


def wait_for(page, text):
    page.locator("#said strong", has_text=text).wait_for()


def complaint(page):
    toast = page.locator(".toast-body").first
    toast.wait_for()
    return toast.inner_text()


def upload(page, path, where="#photo_file"):
    page.locator(f"{where} input[type=file]").set_input_files(str(path))


def saved(path, width=320, height=240, seed=0):
    pixels = np.random.default_rng(seed).integers(60, 250, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height)).save(path)
    return path


def test_an_example_follows_the_slider_and_the_dial(page):
    pick(page)
    wait_for(page, "from the right (E), 4500 K")
    east = after(page)
    number = page.locator("#azimuth input[type=number]")
    number.fill("270")
    number.press("Tab")
    wait_for(page, "from the left (W)")
    assert after(page) != east
    assert page.locator(".dial").get_attribute("aria-valuenow") == "270"
    # from the ring's left to its top
    box = page.locator(".dial .ring").bounding_box()
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"] / 2
    page.mouse.move(x - r, y)
    page.mouse.down()
    for step in range(1, 10):
        page.mouse.move(x - r * np.cos(step * np.pi / 18), y - r * np.sin(step * np.pi / 18))
    page.mouse.up()
    wait_for(page, "from behind the scene (N)")
    assert number.input_value() == "0"


def test_the_keyboard_turns_the_dial(page):
    pick(page)
    dial, number = page.locator(".dial"), page.locator("#azimuth input[type=number]")
    dial.focus()
    seen = []
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "Shift+ArrowUp", "PageUp", "End", "Home", "ArrowDown"):
        page.keyboard.press(key)
        seen.append(dial.get_attribute("aria-valuenow"))
    assert seen == ["95", "90", "85", "86", "131", "180", "0", "355"]
    assert dial.get_attribute("role") == "slider"
    assert dial.get_attribute("aria-valuetext") == "355 degrees, from behind the scene"
    wait_for(page, "from behind the scene (N)")
    assert number.input_value() == "355"
    assert page.evaluate("document.activeElement.classList.contains('dial')")


def test_the_colour_of_the_light_is_shown(page):
    def shown():
        return page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--light-colour')")

    pick(page)
    first = shown()
    number = page.locator("#temperature input[type=number]")
    number.fill("2500")
    number.press("Tab")
    wait_for(page, "2500 K")
    red, green, blue = (int(shown()[i : i + 2], 16) for i in (1, 3, 5))
    assert first != shown()
    assert red == 255 > green > blue


def test_a_photograph_is_uploaded_and_downloaded_in_full_size(page, tmp_path):
    upload(page, saved(tmp_path / "garden.png"))
    wait_for(page, "from the right (E)")
    assert "No depth, so only its colour changes" in page.locator("#said").inner_text()
    page.locator("#render").click()
    link = page.locator("#download")
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    target = tmp_path / "result.png"
    download.value.save_as(target)
    assert download.value.suggested_filename == "garden_90deg_4500K.png"
    with Image.open(target) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (320, 240))


def test_depth_comes_from_a_file_and_goes_again(page, tmp_path):
    upload(page, saved(tmp_path / "garden.png"))
    wait_for(page, "from the right (E)")
    page.get_by_text("Depth: how far away things are").click()
    np.save(tmp_path / "far.npy", np.linspace(1, 3, 240 * 320, dtype=np.float32).reshape(240, 320))
    upload(page, tmp_path / "far.npy", "#depth_file")
    page.locator("#depth_seen img").wait_for()
    assert "From a file (far.npy)" in page.locator("#depth_said").inner_text()
    assert "No depth" not in page.locator("#said").inner_text()
    page.get_by_role("button", name="Go without depth").click()
    page.locator("#depth_said", has_text="None yet").wait_for()


def test_the_light_of_another_picture(page, tmp_path):
    pick(page)
    by_hand = after(page)
    page.get_by_role("tab", name="From another picture").click()
    upload(page, saved(tmp_path / "evening.png", seed=3), "#guide")
    wait_for(page, "Lit as that picture is")
    assert after(page) != by_hand
    assert "Its light comes from" in page.locator("#guide_said").inner_text()
    page.get_by_role("tab", name="By hand").click()
    wait_for(page, "from the right (E)")


def test_the_light_turns_once_around(page):
    pick(page)
    page.locator("#orbit").click()
    image = page.locator("#turning img")
    image.wait_for()
    address = image.get_attribute("src")
    assert address.endswith(".webp")
    content = urllib.request.urlopen(address).read()
    assert content[:4] == b"RIFF"
    assert content.count(b"ANMF") > 3


def test_mistakes_become_sentences(page, tmp_path):
    page.locator("#photo_file").wait_for()
    (tmp_path / "notes.png").write_text("no picture")
    upload(page, tmp_path / "notes.png")
    assert "notes.png: is not an image that can be read; expected a PNG or JPEG: choose another" in complaint(page)


def test_too_many_pixels_become_a_sentence(page, tmp_path):
    Image.new("L", (1500, 1000), 128).save(tmp_path / "large.png")
    upload(page, tmp_path / "large.png")
    assert "has 1.5 megapixels; expected at most 1 megapixels: make it smaller" in complaint(page)


def test_too_large_a_file_becomes_a_sentence(page, tmp_path):
    saved(tmp_path / "heavy.png", 800, 700)
    assert (tmp_path / "heavy.png").stat().st_size > 2**20
    upload(page, tmp_path / "heavy.png")
    assert re.search(r"maximum allowed size|exceed|too large", complaint(page))


def test_names_are_text_and_no_markup(page, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    path.write_text("no picture")
    upload(page, path)
    assert "is not an image" in complaint(page)
    assert page.locator(".toast-body img").count() == 0


def test_what_nobody_foresaw_is_logged_and_said(page, caplog):
    pick(page)
    page.get_by_text("Depth: how far away things are").click()
    with caplog.at_level(logging.ERROR):
        page.get_by_role("button", name="Estimate depth").click()
        assert "Something went wrong here. It was written to the log" in complaint(page)
    assert "a wire came off" in caplog.text


def test_a_phone_has_no_horizontal_scroll(browser, url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.goto(url)
    pick(page, 1)
    page.get_by_text("Depth: how far away things are").click()
    page.locator("#depth_seen img").wait_for()
    page.get_by_text("More", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # the picture stays in sight while the lamp is moved
    page.locator(".dial").evaluate("dial => dial.scrollIntoView({block: 'end'})")
    picture, dial = page.locator("#before_after").bounding_box(), page.locator(".dial").bounding_box()
    assert 0 <= picture["y"] < picture["y"] + picture["height"] <= dial["y"]
    assert dial["y"] + dial["height"] <= 845
    context.close()


def test_pictures_of_the_page(browser, url, tmp_path):
    for name, (width, height) in demo_page.SCREENS.items():
        path = tmp_path / f"{name}.png"
        demo_page.picture(browser, url, width, height, path)
        assert path.stat().st_size < 300 * 1024
        with Image.open(path) as shot:
            assert shot.width == width
    for name in demo_page.SCREENS:
        kept = Path(demo_page.ROOT / "docs" / "pictures" / f"demo_{name}.png")
        assert kept.stat().st_size < 300 * 1024


def test_the_command_serves_the_page_and_leaves_nothing(monkeypatch, capsys, tmp_path):
    import gradio

    from ltnet_pl.cli import main
    from ltnet_pl.demo import inputs
    from ltnet_pl.relight import Relighter

    port, seen = demo_page.free_port(), []

    def visit(page):
        """Instead of waiting for Ctrl-C."""
        seen.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/").read())
        seen.extend(tmp_path.iterdir())
        page.close(verbose=False)

    monkeypatch.setattr(Relighter, "pretrained", lambda device: demo_page.small_relighter())
    monkeypatch.setattr(inputs, "readers", lambda model, device: SIMPLE)
    monkeypatch.setattr(gradio.Blocks, "block_thread", visit)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["demo", "--port", str(port), "--max_mb", "2"]) == 0
    assert b"Relight a photograph" in seen[0]
    assert [folder.name.startswith("ltnet_pl_demo_") for folder in seen[1:]] == [True]
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"

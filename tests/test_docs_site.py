"""The documentation site: it builds without a warning, asks no other host for anything, and no link of it is dead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from ltnet_pl.cli import COMMANDS

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("mkdocstrings", reason="needs the extra docs")

ROOT = Path(__file__).resolve().parent.parent
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
"""What a browser fetches by itself, by tag and attribute."""


class Page(HTMLParser):
    """What a page loads, links to, and can be linked to at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads, self.links, self.anchors, self.classes = [], [], {"", "__top"}, set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.anchors.add(given["id"])
        self.classes |= set((given.get("class") or "").split())
        if tag in LOADED and given.get(LOADED[tag]):
            self.loads.append(given[LOADED[tag]])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


def build(config, out):
    """`mkdocs build --strict` in a process of its own."""
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(out)]
    own = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(call, check=False, capture_output=True, text=True, timeout=400, cwd=ROOT, env=own)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as built."""
    out = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "WARNING" not in done.stderr
    return out


@pytest.fixture(scope="module")
def built(site):
    """Its pages by path."""
    return {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def foreign(address):
    """Whether an address is another host's."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp")


def target(site, page, address):
    """The file that an address of a page means, and the place within it."""
    parts = urlsplit(address)
    start = site if parts.path.startswith("/") else page.parent
    file = page if not parts.path else Path(os.path.normpath(start / unquote(parts.path).lstrip("/")))
    return file / "index.html" if file.is_dir() else file, unquote(parts.fragment)


def dead(site, built):
    """Links and pictures of the site itself that lead nowhere: {page: [address, ...]}."""
    found = defaultdict(list)
    for path, page in built.items():
        for address in [*page.loads, *page.links]:
            if foreign(address) or urlsplit(address).scheme in ("mailto", "data", "javascript"):
                continue
            file, place = target(site, path, address)
            if not file.is_file() or (file in built and place not in built[file].anchors):
                found[path.relative_to(site).as_posix()].append(address)
    return dict(found)


def listed(entries):
    """The files of a navigation."""
    for entry in entries:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else listed(value)


def test_every_page_is_in_the_navigation_and_the_other_way_round(site):
    nav = list(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(nav) == len(set(nav))
    assert set(nav) == there
    assert all((site / name).with_suffix(".html").is_file() for name in nav)


def test_no_page_asks_another_host_for_anything(site, built):
    assert {path.name: page.loads for path, page in built.items() if any(map(foreign, page.loads))} == {}
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\"')\s]+", sheet.read_text()), sheet
    # what makes the theme's script fetch more: diagrams, and the repository's numbers
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert not {"repo_url", "extra"} & config.keys()
    assert not any("mermaid" in page.classes for page in built.values())


def test_every_link_and_picture_of_the_site_is_there(site, built):
    assert dead(site, built) == {}
    assert sum(len(page.links) for page in built.values()) > 500


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html"></a><a href="#y"></a><a href="#x"></a><img src="c.png"></p>')
    built = {tmp_path / "a.html": Page((tmp_path / "a.html").read_text())}
    assert dead(tmp_path, built) == {"a.html": ["c.png", "b.html", "#y"]}
    assert all(map(foreign, ("https://a.b/c.js", "//a.b/c.js")))
    assert not any(map(foreign, ("c.js", "../c.js", "data:image/png;base64,")))


def test_pages_are_made_of_the_package(site, built):
    """Commands, API and changelog are inserted at build time."""
    assert not [path for path in built if "<!-- insert" in path.read_text()]
    commands = site / "reference" / "commands.html"
    assert set(COMMANDS) <= built[commands].anchors
    text = commands.read_text()
    for flag in ("--scenes", "--trainer.max_steps", "--model.loss.ssim", "--slots", "--azimuth", "--confirm"):
        assert flag in text, flag
    anchors = built[site / "reference" / "api.html"].anchors
    public = (
        "relight.Relighter",
        "light.Light",
        "geometry.normals_from_depth",
        "nets.LTNet",
        "losses.RelightLoss",
        "results.table",
    )
    for name in public:
        assert f"ltnet_pl.{name}" in anchors, name
    assert "Unreleased" in (site / "changelog.html").read_text()
    assert not (site / "hooks.py").exists()


def test_a_page_that_is_not_in_the_navigation_fails_the_build(tmp_path):
    """The settings are strict; a small site shows it in a second."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    kept = {key: settings[key] for key in ("site_name", "strict", "validation")}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[dead](nothing.md)\n")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(kept | {"nav": [{"Home": "index.md"}]}))
    assert "nothing.md" in build(tmp_path / "mkdocs.yml", tmp_path / "site").stderr
    (tmp_path / "docs" / "index.md").write_text("# Home\n")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode == 0
    (tmp_path / "docs" / "other.md").write_text("# Other\n")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode != 0

"""README and docs/: every command, in blocks and in running text, is read by its own parser. `test_docs_run` runs them."""

from __future__ import annotations

import re

import pages
import pytest

from ltnet_pl.cli import COMMANDS

PAGES = pages.BY_NAME
pytestmark = pytest.mark.filterwarnings("ignore:.*class_path.*discard")

# ---- checked


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_block_says_its_language(page):
    """So that none escapes the checks."""
    text = page.read_text()
    opened = [line for line in text.splitlines() if line.lstrip().startswith("```")]
    assert all(line.startswith("```") for line in opened), "a block within a list is not found"
    assert all(line == "```" for line in opened[1::2])
    assert {line[3:] for line in opened[::2]} <= {"bash", "python", "yaml", "text"}
    assert not [
        block for block in pages.blocks(page, "text", "yaml") if re.search(r"python -m|^pip |^make ", block, re.MULTILINE)
    ]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_command_is_understood(page, tmp_path, monkeypatch):
    pages.stand_in(tmp_path, page)
    monkeypatch.chdir(tmp_path)
    with pages.own_network(tmp_path):
        for step in pages.steps(page):
            if step.words:
                pages.check_command(step.words)
            else:
                pages.check_code(step.code)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_what_is_inline_is_understood(tmp_path, monkeypatch, page):
    """Pages name in running text the commands that made their numbers."""
    pages.stand_in(tmp_path, page)
    monkeypatch.chdir(tmp_path)
    for step in pages.inline(page):
        mine = pages.ours(step.words)
        if mine is not None and len(mine) == 1:
            assert mine[0] in [*COMMANDS, "--version", "COMMAND"]  # a name, and no call
        else:
            pages.check_command(step.words)


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("docs/results.md", 8),
        ("docs/real_pictures.md", 2),
        ("docs/performance.md", 4),
        ("docs/model_card.md", 2),
        ("docs/cluster.md", 1),
    ],
)
def test_what_is_inline_is_found(page, least):
    assert sum(pages.ours(step.words) is not None for step in pages.inline(PAGES[page])) >= least


def test_a_command_that_is_broken_over_lines_is_one(tmp_path):
    (tmp_path / "page.md").write_text(
        "See `python -m ltnet_pl bench\nquality --table`, `bench`, and:\n\n```text\n`make all`\n```\n"
    )
    assert pages.inline(tmp_path / "page.md") == [pages.Step(["python", "-m", "ltnet_pl", "bench", "quality", "--table"], "")]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python -m ltnet_pl render data --scene 3", "refused"),
        ("python -m ltnet_pl render data --scenes many", "refused"),
        ("python -m ltnet_pl bend quality", "no command"),
        ("python -m ltnet_pl bench quality --teer screen", "refused"),
        ("python -m ltnet_pl fit --config experiments/base.yaml --data.rot data", "refused"),
        ("python -m ltnet_pl fit --config experiments/base.yaml --model.net.init_args.field curl", "refused"),
        ("python -m ltnet_pl fit --config experiments/none.yaml", "not in the repository"),
        ("python -m ltnet_pl sweep nothing.yaml", "nothing.yaml"),
        ("torchrun --processes=2 -m ltnet_pl fit --config experiments/base.yaml", None),
        ("pip install -e .[rendering]", "no extra"),
        ("make breakfast", "no target"),
        ("wandb sleep", "not known"),
        ("rm data", "not known"),
        ("python tests/nothing.py", "not in the repository"),
        ("python -m ltnet_pl.nothing", "no module"),
    ],
)
def test_the_checks_find_what_is_wrong(command, said, tmp_path, monkeypatch):
    pages.stand_in(tmp_path, PAGES["README.md"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, SystemExit), match=said):
        pages.check_command(command.split())


@pytest.mark.parametrize("code", ["from ltnet_pl.light import Lamp", "import ltnet_pl; from ltnet_pl.relit import x", "def f(:"])
def test_the_checks_find_code_that_does_not_fit(code):
    with pytest.raises((ImportError, SyntaxError)):
        pages.check_code(code)

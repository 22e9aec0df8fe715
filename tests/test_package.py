"""The package as a whole: what it imports, ships, pins and promises, and what `make` does."""

import configparser
import fnmatch
import hashlib
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import ltnet_pl

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_LINES = 400

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture(scope="module")
def tracked():
    """Files under version control that still exist, relative to the repository."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("needs git and a checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    files = [Path(name) for name in listing.split("\0") if name and (REPOSITORY / name).is_file()]
    assert Path("setup.cfg") in files
    return files


@pytest.fixture(scope="module")
def requirements():
    """Every requirement of setup.cfg, the core ones and those of the extras."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(REPOSITORY / "setup.cfg")
    blocks = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    found = [Requirement(line) for block in blocks for line in block.splitlines() if line and not line.startswith("#")]
    assert {"torch", "mitsuba", "pytest"} <= {requirement.name for requirement in found}
    return found


@pytest.fixture(scope="module")
def constraints():
    """Lines of the constraints file that are not comments."""
    lines = (REPOSITORY / "requirements" / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


# Every module of the package is imported while torchvision cannot be and every look at the network is recorded. Recording
# matters: a library that checks for updates swallows the error, so an exception alone would prove nothing.
IMPORT_ALL = """
import importlib, importlib.util, socket, sys

class NoTorchvision:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            raise ModuleNotFoundError("No module named 'torchvision'", name=name)

sys.meta_path.insert(0, NoTorchvision())
# who only asks whether it is there learns that it is not
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torchvision" else find_spec(name, package)
reached = []

def refuse(*args, **kwargs):
    reached.append(repr(args))
    raise OSError("no network")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse

for name in sys.argv[1:]:
    importlib.import_module(name)
assert not reached, reached
assert "torchvision" not in sys.modules
"""


def test_every_module_imports_without_torchvision_and_network(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    environment |= {"HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    package = REPOSITORY / "ltnet_pl"
    paths = [path.relative_to(REPOSITORY).with_suffix("") for path in sorted(package.rglob("*.py"))]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]
    if importlib.util.find_spec("mitsuba") is None:  # the `render` extra is not installed
        modules = [name for name in modules if not name.startswith("ltnet_pl.render")]
    if importlib.util.find_spec("gradio") is None:  # the `demo` extra is not installed
        modules.remove("ltnet_pl.demo.page")
    assert "ltnet_pl.light" in modules
    command = [sys.executable, "-c", IMPORT_ALL, *modules]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_alone_imports_nothing_heavy():
    code = "import sys, ltnet_pl; sys.exit(bool({'torch', 'numpy', 'pytorch_lightning'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_typing_marker_and_templates_are_shipped():
    config = configparser.ConfigParser(interpolation=None)
    config.read(REPOSITORY / "setup.cfg")
    patterns = [p.strip() for p in config["options.package_data"]["ltnet_pl"].split(",")]
    assert (REPOSITORY / "ltnet_pl" / "py.typed").is_file()
    package = REPOSITORY / "ltnet_pl"
    files = [path.relative_to(package) for path in package.rglob("*") if path.is_file()]
    others = [path.as_posix() for path in files if path.suffix not in {".py", ".pyc"}]
    assert "report/page.html" in others
    assert [name for name in others if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


def test_version_strings_agree():
    config = configparser.ConfigParser(interpolation=None)
    config.read(REPOSITORY / "setup.cfg")
    assert config["metadata"]["version"] == "attr: ltnet_pl.__version__"
    Version(ltnet_pl.__version__)
    headings = re.findall(r"^## \[?([^\]\s]+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings, "CHANGELOG.md has no '## ' heading"
    released = [heading for heading in headings if heading.lower() != "unreleased"]
    assert not released or released[0] == ltnet_pl.__version__


def test_input_error_is_a_value_error():
    assert issubclass(ltnet_pl.InputError, ValueError)


def test_every_requirement_is_met_by_the_constraints(requirements, constraints):
    versions = {_canonical(name): version for name, version in (line.split("==") for line in constraints)}
    for requirement in requirements:
        version = versions.get(_canonical(requirement.name))
        assert version is not None, f"requirements/constraints.txt does not name {requirement.name}"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is not met by {version}"


def test_constraints_are_exact_and_unique(constraints):
    names = []
    for line in constraints:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"not an exact version: {line!r}"
        names.append(_canonical(match[1]))
    assert len(set(names)) == len(names)
    assert "torch==2.13.0" in constraints
    assert "torchvision" not in names


def test_every_bound_in_setup_cfg_has_its_reason():
    lines = (REPOSITORY / "setup.cfg").read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if re.match(r"    [A-Za-z0-9_.\[\],-]+(<|==)", line) or ",<" in line:
            assert above.startswith("    #"), f"no reason above {line.strip()!r}"


def test_licence_is_apache_2_verbatim():
    # SHA-256 of the licence text as its authors publish it
    expected = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256((REPOSITORY / "LICENSE").read_bytes()).hexdigest() == expected


def test_source_files_stay_short(tracked):
    sources = [path for path in tracked if path.suffix in {".py", ".html"}]
    lengths = {str(path): len((REPOSITORY / path).read_text().splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


# Written in pieces, so that this file does not hold what it forbids.
FORBIDDEN = {
    "a machine's path": r"(?<![\w.$)}~/-])/" + r"(?:work|root|home/\w+|tmp|Users/\w+|mnt)" + r"/",
    "a package host": r"(?:pypi\." + r"org|pythonhosted\." + r"org|download\.pytorch\." + r"org|conda\." + r"anaconda)",
    "an issue number": r"(?i)\bissues?" + r"\s*#?\d+",
    "a note to self": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tracked_files_hold_nothing_private(tracked, what):
    pattern = re.compile(FORBIDDEN[what])
    hits = []
    for path in tracked:
        data = (REPOSITORY / path).read_bytes()
        if b"\0" in data:
            continue  # pictures and the like
        for number, line in enumerate(data.decode().splitlines(), 1):
            if pattern.search(line):
                hits.append(f"{path}:{number}: {line.strip()[:100]}")
    assert hits == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a machine's path", "data = '/" + "root/data'"),
        ("a machine's path", "see /" + "tmp/x"),
        ("a package host", "https://pypi." + "org/simple"),
        ("an issue number", "see issue" + " #12"),
        ("a note to self", "# TO" + "DO: later"),
    ],
)
def test_the_forbidden_patterns_find_what_they_name(what, line):
    assert re.search(FORBIDDEN[what], line)


@pytest.mark.parametrize(
    "line", ["experiments/" + "root/x", "#!/usr/bin/env bash", "../" + "work/x", "tests of 12 issues", "${HOME}/" + "tmp/x"]
)
def test_the_forbidden_patterns_leave_the_rest_alone(line):
    assert not any(re.search(pattern, line) for pattern in FORBIDDEN.values())


# ---- make


@pytest.fixture
def sandbox(tmp_path):
    """A folder with the build files and an environment whose Python only writes down what it is asked for.

    The n-th call fails where the file ``fail_at`` holds n.
    """
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "requirements/constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in "-m pip --version"|-c*) exit 0;; esac\n'
        'echo "$*" >> calls\n'
        '[ -f fail_at ] && [ "$(wc -l < calls)" -eq "$(cat fail_at)" ] && exit 1\n'
        'while [ $# -gt 0 ]; do case "$1" in --output|--out) mkdir -p "$(dirname "$2")" && : > "$2";; esac; shift; done\n'
        "exit 0\n"
    )
    python.chmod(0o755)
    return tmp_path


def _make(folder, *arguments):
    # make's own variables would leak in where the tests themselves run under make
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "MFLAGS"}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def _calls(folder):
    return (folder / "calls").read_text().splitlines()


def test_readme_is_finished():
    """Its pictures and the pages that it sends to exist, and no number is still to be filled in."""
    text = (REPOSITORY / "README.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert pictures
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert {"docs/results.md", "docs/tutorials/photo_to_picture.md"} <= set(links)
    assert [link for link in [*pictures, *links] if not (REPOSITORY / link).is_file()] == []
    assert not re.findall(r"\b[A-Z]+_[A-Z]{4,}\b", text)


@needs_make
def test_quickstart_renders_trains_tests_reports_and_then_rests(sandbox):
    first = _make(sandbox, "quickstart")
    assert first.returncode == 0, first.stderr
    calls = _calls(sandbox)
    install, commands = calls[:2], [call.split()[2] for call in calls[2:]]
    assert install[0].endswith("torch")
    assert install[1].endswith("-e .[render,notebooks,photo,export,demo,docs,dev]")
    assert commands[:2] == ["relight", "render"]
    assert commands[-1] == "report"
    assert set(commands) == {"relight", "render", "fit", "test", "report"}
    assert commands.count("test") == commands.count("fit") + 2  # LTNet has two rows, and a copy of the input has nothing to train
    assert "report.html" in first.stdout.splitlines()[-1]

    again = _make(sandbox, "quickstart")
    assert again.returncode == 0
    assert _calls(sandbox) == calls
    assert "report.html" in again.stdout


@needs_make
@pytest.mark.parametrize("step", [1, 2, 3, 4, 7, 10])
def test_quickstart_goes_on_where_it_was_interrupted(sandbox, step):
    whole = _make(sandbox, "quickstart", "--dry-run").stdout
    (sandbox / "fail_at").write_text(str(step))
    stopped = _make(sandbox, "quickstart")
    assert stopped.returncode != 0
    before = _calls(sandbox)
    assert len(before) == step
    (sandbox / "fail_at").unlink()
    assert _make(sandbox, "quickstart").returncode == 0
    after = _calls(sandbox)[step:]
    # an install is repeated whole (it is quick where all is there); every other step that was done is left alone
    assert after[0] == (before[-1] if step != 2 else before[0])
    done = [call for call in before[:-1] if call not in after] + after
    assert len(done) == len(set(done)) == whole.count(".venv/bin/python -m ") - whole.count("-m pip --version")


@needs_make
def test_a_moved_requirement_installs_again_but_trains_nothing_again(sandbox):
    _make(sandbox, "quickstart")
    calls = _calls(sandbox)
    stamp = (sandbox / ".venv" / ".installed").stat().st_mtime
    os.utime(sandbox / "requirements" / "constraints.txt", (stamp + 5, stamp + 5))
    assert _make(sandbox, "quickstart").returncode == 0
    assert [call.split()[1:3] for call in _calls(sandbox)[len(calls) :]] == [["pip", "install"], ["pip", "install"]]


@needs_make
@pytest.mark.parametrize("missing", ["missing", "old"])
def test_a_python_that_will_not_do_is_named(sandbox, missing):
    shutil.rmtree(sandbox / ".venv")
    python = sandbox / "python"
    if missing == "old":
        pretend = "import sys; sys.version_info = (3, 10, 4, 'final', 0); exec(sys.argv[2])"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$@"\n')
        python.chmod(0o755)
    result = _make(sandbox, "test", f"PYTHON={python}")
    assert result.returncode != 0
    expected = "needs Python 3.11 or later, but" if missing == "old" else "is not found"
    assert expected in result.stderr
    assert str(python) in result.stderr
    assert "PYTHON=" in result.stderr
    assert not (sandbox / ".venv").exists()


@needs_make
@pytest.mark.parametrize("target", ["test", "test-all", "lint", "docs", "quickstart"])
def test_every_target_builds_the_environment(sandbox, target):
    plan = _make(sandbox, target, "--dry-run").stdout
    assert "-c requirements/constraints.txt torch" in plan
    assert plan.index("torch\n") < plan.index("-e '.[render,notebooks,photo,export,demo,docs,dev]'")


@pytest.mark.parametrize(
    ("lint", "test", "closing", "said", "status"),
    [
        (0, 0, "===== 12 passed, 3 deselected in 4.56s =====", ["lint", "test"], 0),
        (0, 2, "===== 1 failed, 11 passed in 4.56s =====", ["lint", "test"], 2),
        (0, 2, "12 passed in 75.20s (0:01:15)", ["lint", "test"], 2),
        (0, 2, "Killed", ["lint", "test"], 2),
        (3, 0, "", ["lint"], 3),
    ],
)
def test_ci_lints_tests_and_ends_with_the_closing_line(tmp_path, lint, test, closing, said, status):
    make = tmp_path / "make"
    make.write_text(
        f'#!/bin/sh\necho "made $1"\n[ $1 = lint ] && exit {lint}\necho "{closing}"\necho "make: *** Error"\nexit {test}\n'
    )
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run([REPOSITORY / ".ci" / "run"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert [line.removeprefix("made ") for line in lines if line.startswith("made ")] == said
    assert result.returncode == status
    if "test" in said:
        assert lines[-1] == (closing if "passed" in closing else "pytest did not finish")


def test_the_workflow_runs_the_same_on_both_pythons():
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert job["steps"][-1]["run"] == ".ci/run"
    assert job["steps"][-1]["env"] == {"PYTHON": "python"}

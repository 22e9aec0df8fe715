"""What every test stands on: no network, no home folder, fixed seeds, few threads, and tiny scenes with known answers."""

from __future__ import annotations

import errno
import ipaddress
import os
import random
import shutil
import socket
import sys
import tempfile
from pathlib import Path

# Libraries read these when they are imported, so they are set before any import below.
_HOME = tempfile.TemporaryDirectory(prefix="ltnet-tests-")
os.environ.update(
    HOME=_HOME.name,
    XDG_CACHE_HOME=_HOME.name + "/cache",
    XDG_CONFIG_HOME=_HOME.name + "/config",
    TORCH_HOME=_HOME.name + "/torch",
    MPLCONFIGDIR=_HOME.name + "/matplotlib",
    MPLBACKEND="Agg",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    OMP_NUM_THREADS="1",
)
sys.path.insert(0, str(Path(__file__).parent))  # `import scenes` in any test

import numpy as np  # noqa: E402 - after the environment
import pytest  # noqa: E402 - after the environment
import scenes  # noqa: E402 - after the environment
import torch  # noqa: E402 - after the environment
from hypothesis import settings  # noqa: E402 - after the environment

from ltnet_pl.cache import cache  # noqa: E402 - after the environment
from ltnet_pl.light import Light, light_tensor  # noqa: E402 - after the environment

# A shared machine makes single examples slow now and then: no deadline, and the same examples every time.
settings.register_profile("ltnet", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("ltnet")
torch.set_num_threads(1)

_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex


def _refuse_foreign(address):
    """Raise unless the address is on this machine."""
    if not isinstance(address, tuple):
        return  # a local (unix) socket
    host = address[0]
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, not yet looked up
        loopback = host == "localhost"
    if not loopback:
        # an OSError, as without a network: callers close their socket and say so in their own words
        raise ConnectionRefusedError(f"a test tried to reach {host}: tests run without network")


def _guarded_connect(self, address):
    _refuse_foreign(address)
    return _connect(self, address)


def _guarded_connect_ex(self, address):
    _refuse_foreign(address)
    return _connect_ex(self, address)


socket.socket.connect = _guarded_connect
socket.socket.connect_ex = _guarded_connect_ex


@pytest.fixture(autouse=True)
def _seeded():
    """The same random numbers for every test, whatever ran before; the default dtype restored after it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test may use the global generator; tests themselves do not
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(scope="session")
def vidit_root(tmp_path_factory):
    """Six analytic scenes of 40x56 pixels in the any-to-any training layout, 2500, 4500 and 6500 K; read only."""
    root = scenes.write_any_to_any(tmp_path_factory.mktemp("vidit"))
    names = {path.name for path in root.iterdir()}
    yield root
    added = {path.name for path in root.iterdir()} - names
    assert not added, f"a test that takes vidit_root wrote {sorted(added)} into it; use vidit_copy there"


@pytest.fixture
def vidit_copy(vidit_root, tmp_path):
    """A copy of the set that a test may change."""
    return shutil.copytree(vidit_root, tmp_path / "set")


@pytest.fixture
def any_to_any(vidit_root, tmp_path):
    """Makes an any-to-any module on the shared set, its lists in the test's own folder."""

    def make(stage="fit", **kwargs):
        given = {"val_scenes": 2, "test_scenes": 2, "pairs_per_scene": 4, "batch_size": 3, "crop": 32}
        from ltnet_pl.data import AnyToAnyDataModule  # here, so that tests of other rooms do not wait for it

        data = AnyToAnyDataModule(**{"root": str(vidit_root), "pairs": str(tmp_path / "pairs"), **given, **kwargs})
        data.setup(stage)
        return data

    return make


@pytest.fixture(scope="session")
def samples():
    """The folder of sample data: LTNET_SAMPLES, else ``../shared/data`` beside the repository."""
    repository = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("LTNET_SAMPLES", repository.parent / "shared" / "data"))
    if not (folder / "vidit").is_dir():
        pytest.skip(f"sample data (LTNET_SAMPLES) not found in {folder}")
    return folder


class _Full:
    """A file on a full disk: half of the first write arrives, then the system refuses."""

    def __init__(self, path, mode):
        self.file = open(path, mode)  # noqa: SIM115 - closed on exit, as the real one would be

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full_disk(monkeypatch):
    """Every file that the package writes meets a full disk."""
    monkeypatch.setattr("ltnet_pl.files.open", _Full, raising=False)


def _window(top, left, height, width, frame):
    return [top / frame[0], left / frame[1], height / frame[0], width / frame[1]]


@pytest.fixture
def batch():
    """A contract batch of three 37x50 crops out of 48x64 frames; the third has no guide depth, no camera and no rig."""
    frame_size, (height, width) = (48, 64), (37, 50)
    rows = []
    for i, (present, wanted) in enumerate([("6500_N", "4500_E"), ("2500_SW", "6500_NE"), ("4500_S", "2500_W")]):
        frame, other = (scenes.trace(scenes.scene(7, k), frame_size) for k in (i, i + 3))
        windows = [(i, 2 * i, height, width), (5 - i, 3, height, width)]
        (top, left, _, _), (guide_top, guide_left, _, _) = windows
        here = (slice(top, top + height), slice(left, left + width))
        there = (slice(guide_top, guide_top + height), slice(guide_left, guide_left + width))
        depth = scenes.stored_depth(frame)
        guide_depth = scenes.stored_depth(other) if i < 2 else np.zeros(frame_size, np.float32)
        known = i < 2
        camera, rig = frame.scene.camera, frame.scene.rig
        rows.append(
            {
                "input": _image(frame, present)[(slice(None), *here)],
                "target": _image(frame, wanted)[(slice(None), *here)],
                "guide": _image(other, wanted)[(slice(None), *there)],
                "depth": torch.from_numpy(depth[here])[None],
                "guide_depth": torch.from_numpy(guide_depth[there])[None],
                "frame_depth": torch.from_numpy(depth[1::2, 1::2].copy())[None],
                "input_light": light_tensor([Light.from_name(present)])[0],
                "target_light": light_tensor([Light.from_name(wanted)])[0],
                "crop": torch.tensor(_window(*windows[0], frame_size)),
                "guide_crop": torch.tensor(_window(*windows[1], frame_size)),
                "camera": torch.tensor([camera.fov, camera.pitch] if known else [torch.nan] * 2),
                "rig": torch.tensor([rig.radius, rig.height] if known else [torch.nan] * 2),
            }
        )
    out = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    out["name"] = [f"pair{i}" for i in range(3)]
    return out


def _image(frame, name):
    """(3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(scenes.picture(frame, Light.from_name(name))).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    """A folder like the sample data of real pixels (see `real_samples`). Read only."""
    import real_samples  # it imports the whole package, which most tests do not need

    root = tmp_path_factory.mktemp("samples")
    real_samples.write_samples(root)
    return root


@pytest.fixture
def copied(made_up, tmp_path):
    """The same for a test that breaks it."""
    return shutil.copytree(made_up, tmp_path / "data")


@pytest.fixture(scope="module")
def built_cache(vidit_root, tmp_path_factory):
    """A cache of the shared set at the files' size. Read only."""
    folder = tmp_path_factory.mktemp("caches") / "cache"
    cache(str(vidit_root), str(folder), workers=1)
    return folder


@pytest.fixture
def own_cache(vidit_copy, tmp_path):
    """A set of two scenes, and a cache of it, which a test may change."""
    for path in vidit_copy.glob("Image00[2-9]*"):
        path.unlink()
    cache(str(vidit_copy), str(tmp_path / "cache"), workers=1)
    return vidit_copy, tmp_path / "cache"

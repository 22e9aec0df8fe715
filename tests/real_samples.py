"""A made-up folder like the sample data of real pixels, with known answers, and a network that cheats on it."""

from pathlib import Path

import numpy as np
import scenes
import torch

from ltnet_pl.bench.trained import Method
from ltnet_pl.light import DIRECTIONS, TEMPERATURES, Light, encode

SIDE = 40
LIGHTS = np.array([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [0.0, 0.6, 0.8], [-0.48, 0.36, 0.8]])


class Cheat:
    """Reads what file names tell, N at 5000 K where they tell nothing, and returns the ground truth where there is one."""

    light, camera_from = "guide", "assumed"

    def read_light(self, image, depth, crop, batch):
        lights = batch["input_light"]
        return encode(torch.where(lights.isnan(), torch.tensor([0.0, 5000.0]), lights)), None

    def __call__(self, batch):
        self.seen = batch
        return {"relit": batch.get("target", batch["input"])}


def method(net):
    return Method("cheat", Path("last.ckpt"), net, reads=True)


def save(path, net, **arguments):
    """An untrained network as `fit` keeps it."""
    torch.manual_seed(0)
    state = {f"net.{key}": value for key, value in net(**arguments).state_dict().items()}
    spec = {"class_path": f"{net.__module__}.{net.__name__}", "init_args": arguments}
    path.parent.mkdir(parents=True)
    kept = {"net": net.__name__, "loss": {"light": 0.5, "relit_light": 0.0}}
    torch.save({"state_dict": state, "hyper_parameters": {"net": spec}, "ltnet_pl": kept}, path)
    return str(path.parent.parent)


def dome():
    """Height in pixels, normals and mask of a spherical cap of 14 pixels' radius on a frame of 40 x 48."""
    v, u = np.mgrid[:40, :48].astype(np.float64)
    x, y = (u - 24) / 18, (19 - v) / 18
    inside = x**2 + y**2 < (14 / 18) ** 2
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    return (18 * z * inside).astype(np.float32), np.stack([x, y, z], axis=-1), inside


def write_object(folder):
    """A matt dome under `LIGHTS`, in linear light."""
    height, normals, inside = dome()
    folder.mkdir(parents=True)
    np.savez(folder / "derived_geometry.npz", mask=inside, height_px=height)
    for i, light in enumerate(LIGHTS):
        shade = np.clip(normals @ light, 0, None) * inside * 0.9
        scenes.write_image(folder / f"light{i:02d}.png", (shade[..., None] * [255, 200, 150]).round().astype(np.uint8))


def write_samples(root):
    """Fill a folder like the sample data; the matrices change nothing but one, which halves red."""
    vidit = root / "vidit"
    for at, name in enumerate("AB"):
        frame = scenes.trace(scenes.scene(5, at), (SIDE, SIDE))
        for kind, settings in (
            ("directions", {d: f"5500_{d}" for d in DIRECTIONS}),
            ("illuminants", {str(t): f"{t}_N" for t in TEMPERATURES}),
        ):
            for label, setting in settings.items():
                path = vidit / "frames_512" / f"{name}_{kind}" / f"{name}_{label}.png"
                scenes.write_image(path, scenes.picture(frame, Light.from_name(setting)))
        scenes.write_image(
            vidit / "full_1024/train_guides" / f"Image0{at}4_4500_E.png", scenes.picture(frame, Light.from_name("4500_E"))
        )
    scenes.write_one_to_one(vidit / "full_1024/track1_val_input", size=(SIDE, SIDE), flat_target=root / "elsewhere")
    scenes.write_one_to_one(vidit / "native_layout/track1", scenes=1, size=(SIDE, SIDE))
    scenes.write_pairs_layout(vidit / "native_layout/track2", pairs=1, size=(SIDE, SIDE))
    matrices = vidit / "colour_temperature_matrices"
    matrices.mkdir()
    for i in range(5):
        for j in range(5):
            np.save(matrices / f"weight_{i}_{j}.npy", np.eye(3, 34, dtype=np.float32))
    np.save(matrices / "weight_0_4.npy", np.diag([0.5, 1, 1]).astype(np.float32) @ np.eye(3, 34, dtype=np.float32))
    for name in ("gray", "buddha", "rock"):
        write_object(root / "photostereo_uw12" / name)
    lines = [" ".join(map(str, light)) for light in LIGHTS]
    (root / "photostereo_uw12" / "lights.txt").write_text("\n".join([str(len(LIGHTS)), *lines, ""]))

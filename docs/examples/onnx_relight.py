"""Relight a photograph with an exported LTNet: onnxruntime, numpy and pillow alone.

python onnx_relight.py LTNET.onnx PHOTO DEPTH.npy OUT.png AZIMUTH KELVIN

DEPTH.npy: planar depth of the photograph's height and width, larger is farther, 0 = background, any scale.
AZIMUTH: where the light shall come from: 0 from behind the scene, 90 from the right, 180 from behind the camera.
KELVIN: its colour temperature, 1000 to 20000; the network itself knows 2500 to 6500, beyond it the file changes the colour alone.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, photo, depth, out, azimuth, kelvin = sys.argv[1:]
with Image.open(photo) as opened:
    image = np.asarray(opened.convert("RGB"), dtype=np.float32) / 255
distance = np.load(depth).astype(np.float32)
if distance.shape != image.shape[:2]:
    raise SystemExit(f"{depth} is {distance.shape}, {photo} {image.shape[:2]} (height, width): resize one of them")

options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # it warns of an input that is left out here: the light that is there, which is then read
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
(relit,) = session.run(
    None,
    {
        "image": np.ascontiguousarray(image.transpose(2, 0, 1))[None],
        "depth": np.ascontiguousarray(distance)[None, None],
        "light": np.array([[float(azimuth), float(kelvin)]], dtype=np.float32),
    },
)
Image.fromarray((relit[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)).save(out)

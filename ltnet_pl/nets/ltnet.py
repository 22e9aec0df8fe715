"""LTNet: depth stream, light stream, and the interaction that decodes the light transfer field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.light import Camera, Rig, decode, encode
from ltnet_pl.nets.blocks import Backbone
from ltnet_pl.nets.fields import Field, FieldKind
from ltnet_pl.nets.streams import CameraSource, CueKind, DepthStream, LightStream, known_or

LightSource = Literal["guide", "label"]


class LTNet(nn.Module):
    """Light Transfer Network: relights an image by the light of a guide, or by a light that is given.

    The light stream reads the present light off the input and the wanted light off the guide; a known light takes the place of a
    reading. The depth stream computes geometry features and the cues of both lights. The interaction, a U-Net whose decoder is
    modulated by both light codes, decodes the light transfer field, and the field relights the input.

    Args:
        widths: Channels of the interaction per level, each level at half the resolution of the one before.
        field: Kind of light transfer field: ``residual`` or ``affine``.
        cues: Cues computed from depth: ``none``, ``shading``, or ``visibility`` (shading and cast shadows).
        use_depth: Whether the network sees the depth at all; without it, cues must be ``none``.
        light: Where the lights come from outside training: ``guide`` (read by the light stream) or ``label`` (the batch's lights
            wherever they are known, read where not).
        label_dropout: Share of the training samples whose light is read although its label is known, for input and guide apart;
            without depth the label is taken.
        latent: Length of the latent light code.
        match: Whether the light stream correlates the image with computed light and shadow.
        light_width: Channels of the light stream's first stage.
        steps: Steps of the march towards each light in the visibility cue.
        camera: The camera that is assumed.
        rig: The rig that is assumed.
        camera_from: ``assumed``; ``estimated``: the pitch under which some light explains the image best, the rest as assumed;
            ``true``: the batch's camera and rig where they are known (an upper bound).

    Raises:
        InputError: If a value is none of those, or too small.
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96, 128),
        field: FieldKind = "affine",
        cues: CueKind = "visibility",
        use_depth: bool = True,
        light: LightSource = "guide",
        label_dropout: float = 0.5,
        latent: int = 8,
        match: bool = True,
        light_width: int = 16,
        steps: int = 32,
        camera: Camera = Camera(),
        rig: Rig = Rig(),
        camera_from: CameraSource = "estimated",
    ) -> None:
        super().__init__()
        if light not in get_args(LightSource):
            raise InputError(f"light is {light!r}; expected one of {', '.join(get_args(LightSource))}")
        if not use_depth and cues != "none":
            raise InputError(f"cues is {cues!r} with use_depth false; cues are computed from depth: set cues to none")
        if not 0.0 <= label_dropout <= 1.0:
            raise InputError(f"label_dropout is {label_dropout}; expected a share within 0-1")
        for name, value, least in (("latent", latent, 0), ("light_width", light_width, 1), ("steps", steps, 1)):
            if value < least:
                raise InputError(f"--model.net.init_args.{name} is {value}; expected {least} or more")
        self.light, self.label_dropout, self.use_depth = light, label_dropout, use_depth
        if camera_from not in get_args(CameraSource):
            raise InputError(f"camera_from is {camera_from!r}; expected one of {', '.join(get_args(CameraSource))}")
        self.camera, self.rig, self.camera_from = camera, rig, camera_from
        self.light_stream = LightStream(latent, light_width, match and use_depth)
        self.depth_stream = DepthStream(cues, steps)
        code_channels = 2 * (3 + latent)
        self.mix = nn.Sequential(nn.Linear(code_channels, 64), nn.SiLU())
        self.backbone = Backbone(3 + self.depth_stream.channels, widths, code_channels=64)
        self.field = Field(field, widths[0])

    def read_light(self, image: Tensor, depth: Tensor, crop: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The light stream's raw code ``(B, 3)`` and latent of an image of the batch's scenes, with its depth."""
        depth = depth if self.use_depth else torch.zeros_like(depth)
        code, latent, _ = self._read(image, depth, *self._camera_and_rig(batch), crop)
        return code, latent

    def _read(self, image: Tensor, depth: Tensor, camera: Tensor, rig: Tensor, crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw code, latent, and the camera that they were read under: its pitch estimated where that is asked."""
        if self.camera_from == "estimated":
            camera = torch.stack([camera[:, 0], self.light_stream.pitch(image, depth, camera, rig, crop)], dim=1)
        code, latent = self.light_stream(image, depth, camera, rig, crop)
        return code, latent, camera

    def _camera_and_rig(self, batch: dict[str, Tensor], known: bool = True) -> tuple[Tensor, Tensor]:
        """Camera and rig ``(B, 2)``: assumed, or the batch's where they are to be used and known."""
        depth = batch["depth"]
        use = known and self.camera_from == "true"
        camera, rig = (part.tensor(depth, len(depth)) for part in (self.camera, self.rig))
        return known_or(camera, batch["camera"], use), known_or(rig, batch["rig"], use)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Relight a batch (the contract in the data module's docstring).

        Returns:
            ``relit`` ``(B, 3, H, W)``, unclamped; ``field`` ``(B, C, H, W)``; ``input_code`` and, where there is a guide,
            ``guide_code`` ``(B, 3)``: the light stream's raw readings.

        Raises:
            InputError: If the batch has neither a guide nor a known wanted light.
        """
        if not self.use_depth:
            batch = {key: torch.zeros_like(value) if key.endswith("depth") else value for key, value in batch.items()}
        images, depths, crops = [batch["input"]], [batch["depth"]], [batch["crop"]]
        cameras, rigs = ([tensor] for tensor in self._camera_and_rig(batch))
        if "guide" in batch:
            images.append(batch["guide"])
            depths.append(batch["guide_depth"])
            crops.append(batch["guide_crop"])
            # the guide is another scene, whose camera no batch tells
            assumed = self._camera_and_rig(batch, known=False)
            cameras.append(assumed[0])
            rigs.append(assumed[1])
        image, depth, crop, camera, rig = map(torch.cat, (images, depths, crops, cameras, rigs))
        codes, latents, camera = self._read(image, depth, camera, rig, crop)
        camera, rig = camera[: len(batch["input"])], rig[: len(batch["input"])]
        raw_input, latent_input = codes[: len(camera)], latents[: len(camera)]
        out = {"input_code": raw_input}
        present, _ = self._choose(batch["input_light"], raw_input, batch["depth"])
        if "guide" in batch:
            raw_guide, latent_guide = codes[len(camera) :], latents[len(camera) :]
            out["guide_code"] = raw_guide
            wanted, given = self._choose(batch["target_light"], raw_guide, batch["guide_depth"])
            # a light that is given says nothing beyond its numbers, so its latent is zero
            latent_guide = latent_guide * (~given).to(latent_guide.dtype)
        else:
            wanted = encode(batch["target_light"]).to(raw_input.dtype)
            if wanted.isnan().any():
                raise InputError("the wanted light is unknown: the batch has no guide, and its target_light is not given")
            latent_guide = torch.zeros_like(latent_input)
        lights = (_light_rows(present, batch["input_light"]), _light_rows(wanted, batch["target_light"]))
        geometry = self.depth_stream(batch, lights, camera, rig)
        code = self.mix(torch.cat([present, latent_input, wanted, latent_guide], dim=1))
        features = self.backbone(torch.cat([batch["input"], geometry.to(batch["input"].dtype)], dim=1), code)
        out["relit"], out["field"] = self.field(features, batch["input"])
        return out

    def _choose(self, lights: Tensor, reading: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """The code to work with, label or reading, and a mask ``(B, 1)`` of the samples whose light is wholly the label's."""
        label = encode(lights).to(reading.dtype)
        if self.training:
            use = torch.rand(len(reading), 1, device=reading.device) >= self.label_dropout
            if self.use_depth:
                # a reading without depth is too often wrong to teach the relighting by; the light loss still teaches the reading
                use = use | (depth.flatten(1).amax(dim=1, keepdim=True) == 0)
        else:
            use = torch.full((len(reading), 1), self.light == "label", device=reading.device)
        use = use & ~label.isnan()
        unit = torch.cat([functional.normalize(reading[:, :2], dim=1), reading[:, 2:]], dim=1)
        return torch.where(use, label.nan_to_num(), unit), use.all(dim=1, keepdim=True)


def _light_rows(code: Tensor, lights: Tensor) -> Tensor:
    """Light tensor for the cues: azimuth and kelvin of the code; elevation and ambient share, where given, of the light."""
    return torch.cat([decode(code.detach().float()), lights[:, 2:]], dim=1)

"""LTNet: depth stream, light stream, and the interaction that decodes the light transfer field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltnet_pl import InputError
from ltnet_pl.geometry import Geometry, is_open, marched_points
from ltnet_pl.light import Camera, Rig, decode, encode
from ltnet_pl.nets.blocks import Backbone, InteractionKind
from ltnet_pl.nets.camera import THINNED, CameraEstimate, CameraSource, known_or, march_operations, reduce
from ltnet_pl.nets.fields import BilateralField, Field, FieldKind, Window
from ltnet_pl.nets.scene import Reading, Scene, View
from ltnet_pl.nets.streams import CueKind, DepthStream, LightStream
from ltnet_pl.nets.tint import Tint

LightSource = Literal["guide", "label"]

# distance of two light codes from which on the field works: 6 degrees, or, untinted, 12 mired; where one is read, which errs, 17
_SAME_LIGHT, _SAME_READING = 0.1, 0.3
_SPREAD_OPERATIONS = 90  # per pixel, of spreading two lights' visibility: counted in `geometry.upsampling.Lattice`


class LTNet(nn.Module):
    """Light Transfer Network: relights an image by the light of a guide, or by a light that is given.

    The light stream reads the present light off the input and the wanted light off the guide; a known light takes the place of a
    reading. The known part of the change, that of colour temperature, is applied in closed form. The depth stream computes
    geometry features and the cues of both lights. The interaction, a U-Net steered by both light codes, decodes the light
    transfer field, which relights the rest; it fades where both lights stand in the same place.

    Args:
        widths: Channels of the interaction per level, each level at half the resolution of the one before.
        fold: Pixels along each side that the interaction folds into one: its finest level stands at 1 / fold of the image.
            The ``bilateral`` field's interaction sees a reduced image, and folds nothing.
        field: Kind of light transfer field: ``residual``, ``gain``, ``affine``, ``bilateral``; or ``direct``, which is none.
        interaction: How the light code meets the geometry features: ``film``, ``attention``, or ``concat``.
        tint: Whether the change of colour temperature is applied in closed form before the field.
        cues: Cues computed from depth: ``none``, ``shading``, or ``visibility`` (shading and cast shadows).
        use_depth: Whether the network sees the depth at all; without it, cues must be ``none``.
        light: Where the lights come from outside training: ``guide`` (read by the light stream) or ``label`` (the batch's lights
            wherever they are known, read where not).
        label_dropout: Share of the training samples whose light is read although its label is known, for input and guide apart;
            without depth the label is taken. With 0, light ``label`` and no latent, no known light is ever read: the light stream
            is not trained, and the losses ``light`` and ``relit_light`` must be 0.
        latent: Length of the latent light code; 0 for none.
        streams: 1: one light stream reads input and guide; 2: one for each.
        match: Whether the light stream correlates the image with computed light and shadow.
        light_width: Channels of the light stream's first stage.
        steps: Steps of the march towards each light in the visibility cue.
        camera: The camera that is assumed, and around which an estimate's prior stands.
        rig: The rig that is assumed.
        camera_from: ``assumed``; ``estimated``: the camera read off depth and image, the rig as assumed; ``true``: the
            batch's camera and rig where they are known (an upper bound).

    Raises:
        InputError: If a value is none of those, or too small.
    """

    bilateral_factor = 4
    """Pixels of the image per pixel of what the bilateral kind's interaction sees, along each side."""

    working_size: int | None = None
    """Longer side in pixels that the interaction works at, of larger images; the field is decoded at the image's own. None: at
    any size. To be set on a trained network: features of a resolution far above that of its training mean nothing to it."""

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96, 128),
        fold: int = 2,
        field: FieldKind = "affine",
        interaction: InteractionKind = "film",
        tint: bool = True,
        cues: CueKind = "visibility",
        use_depth: bool = True,
        light: LightSource = "guide",
        label_dropout: float = 0.5,
        latent: int = 0,
        streams: int = 1,
        match: bool = True,
        light_width: int = 16,
        steps: int = 16,
        camera: Camera = Camera(),
        rig: Rig = Rig(),
        camera_from: CameraSource = "estimated",
    ) -> None:
        super().__init__()
        for name, given, known in (("light", light, LightSource), ("camera_from", camera_from, CameraSource)):
            if given not in get_args(known):
                raise InputError(f"{name} is {given!r}; expected one of {', '.join(get_args(known))}")
        if not use_depth and cues != "none":
            raise InputError(f"cues is {cues!r} with use_depth false; cues are computed from depth: set cues to none")
        if not 0.0 <= label_dropout <= 1.0:
            raise InputError(f"label_dropout is {label_dropout}; expected a share within 0-1")
        for name, value, least in (("latent", latent, 0), ("light_width", light_width, 1), ("steps", steps, 1)):
            if value < least:
                raise InputError(f"--model.net.init_args.{name} is {value}; expected {least} or more")
        if streams not in (1, 2):
            raise InputError(f"--model.net.init_args.streams is {streams}; expected 1 or 2")
        self.light, self.label_dropout, self.use_depth = light, label_dropout, use_depth
        self.camera, self.rig, self.camera_from, self.latent = camera, rig, camera_from, latent
        self.tint = Tint() if tint else None
        self.light_stream = LightStream(latent, light_width, match and use_depth)
        self.guide_stream = LightStream(latent, light_width, match and use_depth) if streams == 2 else None
        if self.told:
            # nothing would ever train it, and a parameter without a gradient stops training on several devices
            for stream in (self.light_stream, self.guide_stream):
                if stream is not None:
                    stream.requires_grad_(False)
        self.depth_stream = DepthStream(cues, steps)
        self.estimate = CameraEstimate()
        self.mix = nn.Sequential(nn.Linear(2 * (3 + latent), 64), nn.SiLU())
        channels = 6 + self.depth_stream.channels
        self.grain = self.bilateral_factor if field == "bilateral" else fold  # pixels per feature
        fold = 1 if field == "bilateral" else fold
        self.backbone = Backbone(channels, widths, 64, interaction, fold)
        self.field: Field | BilateralField
        if field == "bilateral":
            self.field = BilateralField(widths[0], channels, cues != "none")
        else:
            self.field = Field(field, widths[0], channels, fold)

    @property
    def told(self) -> bool:
        """Whether known lights are all that is ever used, in training too."""
        return self.light == "label" and self.label_dropout == 0 and not self.latent

    def read_light(self, image: Tensor, depth: Tensor, crop: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The light stream's raw code ``(B, 3)`` and latent of an image of the batch's scenes, with its depth."""
        depth = depth if self.use_depth else torch.zeros_like(depth)
        camera, rig = self._camera_and_rig(batch)
        if self.camera_from == "estimated":
            camera = self.estimate.camera(self.estimate.of_depth(depth, crop, camera))
        code, latent = self.light_stream(image, depth, camera, rig, crop)
        return code, latent

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
            ``guide_code`` ``(B, 3)``: the light stream's raw readings, left out by a network that takes every light from its
            label, in training too.

        Raises:
            InputError: If the batch has neither a guide nor a known wanted light, or a light is unknown to a network that was
                trained on labels alone.
        """
        scene = self.prepare(batch)
        wanted = self.wanted(batch)
        shadow = self.shadow(scene, wanted)
        base, seen = self.look(scene, wanted, scene.view, shadow)
        features = self.interact(scene, wanted, base, seen)
        window = None
        if self._is_reduced(batch["input"]):
            view = self.view(scene, batch["input"], batch["depth"])
            base, seen = self.look(scene, wanted, view, shadow)
            window = (0.0, 0.0, 1.0, 1.0)
        relit, field = self.decode(scene, wanted, features, base, seen, window)
        codes = {"input_code": scene.present.raw, "guide_code": wanted.raw}
        return {"relit": relit, "field": field} | {key: code for key, code in codes.items() if code is not None}

    def _is_reduced(self, image: Tensor) -> bool:
        """Whether the interaction sees less of an image than there is; of a size that an export leaves open, always so."""
        if self.working_size is None:
            return False
        return is_open(*image.shape[-2:]) or max(image.shape[-2:]) > self.working_size

    def prepare(self, batch: dict[str, Tensor]) -> Scene:
        """What no wanted light changes: the present light, the camera, the geometry and the present light's cues."""
        image, depth = batch["input"], batch["depth"]
        if self.working_size is not None and self._is_reduced(image):
            image, depth = reduce(image, depth, self.working_size)
        batch = batch | {"input": image, "depth": depth}
        if not self.use_depth:
            batch = {key: torch.zeros_like(value) if key.endswith("depth") else value for key, value in batch.items()}
        camera, rig = self._camera_and_rig(batch)
        scores = self.estimate.of_depth(batch["frame_depth"], None, camera) if self.camera_from == "estimated" else None
        camera = camera if scores is None else self.estimate.camera(scores)
        present = self._present(batch, camera, rig)
        if scores is not None:
            camera = self.estimate.camera(scores + self.estimate.of_image(batch, present.row, rig))
        geometry = Geometry.of(batch["depth"], batch["frame_depth"], batch["crop"], camera)
        shadow = self.depth_stream.shadow(geometry, present.row, rig)
        view = View(batch["input"], geometry, *self.depth_stream(geometry, present.row, rig, shadow))
        return Scene(present, shadow, camera, rig, batch["crop"], view)

    def view(self, scene: Scene, image: Tensor, depth: Tensor, window: Window | None = None) -> View:
        """A window of the scene's image at another resolution; its shadows are those of the scene's own view.

        Args:
            scene: What `prepare` returned.
            image: The window ``(B, 3, H, W)`` at the resolution that is wanted.
            depth: Its depth ``(B, 1, H, W)``.
            window: Its top, left, height and width as fractions of the scene's image; None for all of it.
        """
        crop = scene.crop
        if window is not None:
            top, left, height, width = crop.unbind(dim=1)
            inner = (top + window[0] * height, left + window[1] * width, window[2] * height, window[3] * width)
            crop = torch.stack(inner, dim=1)
        depth = depth if self.use_depth else torch.zeros_like(depth)
        whole = scene.view.geometry
        geometry = replace(Geometry.of(depth, whole.frame_depth, crop, scene.camera), source=(whole.marched, window))
        return View(image, geometry, *self.depth_stream(geometry, scene.present.row, scene.rig, scene.shadow))

    def shadow(self, scene: Scene, wanted: Reading) -> Tensor | None:
        """Where the wanted light falls, looked up once for all views of the scene; None without that cue."""
        return self.depth_stream.shadow(scene.view.geometry, wanted.row, scene.rig)

    def look(self, scene: Scene, wanted: Reading, view: View, shadow: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tinted image ``(B, 3, H, W)`` of a view, and all that the network sees of it under the wanted light."""
        image = view.image
        base = image if self.tint is None else self.tint(image, scene.present.row[:, 1], wanted.row[:, 1])
        cues = self.depth_stream.wanted(view.geometry, wanted.row, scene.rig, shadow, view.lit)
        return base, torch.cat([image, base, *(part.to(image.dtype) for part in (view.features, *cues))], dim=1)

    def interact(self, scene: Scene, wanted: Reading, base: Tensor, seen: Tensor) -> Tensor:
        """The interaction's features of what is seen."""
        present = scene.present
        code = self.mix(torch.cat([present.code, present.latent, wanted.code, wanted.latent], dim=1))
        if isinstance(self.field, BilateralField):
            seen = functional.avg_pool2d(seen, self.grain, ceil_mode=True, count_include_pad=False)
        features: Tensor = self.backbone(seen, code)
        return features

    def decode(
        self,
        scene: Scene,
        wanted: Reading,
        features: Tensor,
        base: Tensor,
        seen: Tensor,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Relit image, unclamped, and field of a view: what `look` returned of it, under the features of the whole."""
        relit, field = self.field(features, base, seen, self._covered(scene.view.image, features, window))
        return base + (relit - base) * (1 - self._fade(scene, wanted, base)[:, None, None, None]), field

    def _fade(self, scene: Scene, wanted: Reading, like: Tensor) -> Tensor:
        """The share of the field that is left out, ``(B,)``: all of it where both lights are one, none where they are apart."""
        # one light's colour scales all that it lights, bounced light too: once tinted, a change of temperature is done
        change = (wanted.code - scene.present.code).detach() * like.new_tensor([1.0, 1.0, 1.0 if self.tint is None else 0.0])
        same = torch.where(scene.present.given & wanted.given, _SAME_LIGHT, _SAME_READING)[:, 0]
        frame = scene.view.geometry.frame_depth
        # of an image without depth a network that was trained with it knows where nothing stands, and no light can be moved
        shown = frame.flatten(1).amax(dim=1) > 0 if self.use_depth else frame.new_ones(len(frame))
        place, colour = change[:, :2].square().sum(dim=1), change[:, 2].square()
        far = (place * shown + colour) / same.square() + self._lifted(scene, wanted) * shown / _SAME_LIGHT**2
        return torch.exp(-far.square())

    def _lifted(self, scene: Scene, wanted: Reading) -> Tensor:
        """Squared distance of two lights in elevation (radians) and ambient share, ``(B,)``; 0 without cues, which show them."""
        if self.depth_stream.cues == "none":
            return scene.rig.new_zeros(len(scene.rig))
        return (_lift(wanted.row, scene.rig) - _lift(scene.present.row, scene.rig)).square().sum(dim=1)

    def _covered(self, image: Tensor, features: Tensor, window: Window | None) -> Window | None:
        """A window of the image as one of its features, which reach beyond the edges of an image whose sides are no multiples."""
        if window is None and isinstance(self.field, Field):
            return None
        top, left, height, width = window or (0.0, 0.0, 1.0, 1.0)
        down, across = (side / (self.grain * count) for side, count in zip(image.shape[-2:], features.shape[-2:], strict=True))
        return top * down, left * across, height * down, width * across

    def _present(self, batch: dict[str, Tensor], camera: Tensor, rig: Tensor) -> Reading:
        """The present light."""
        label = encode(batch["input_light"]).to(batch["input"].dtype)
        if self.told:
            _expect_known(label, "present", "put it into the file's name (photo_4500_E.png)")
            return _labelled(label, self.latent, batch["input_light"])
        raw, latent = self.light_stream(batch["input"], batch["depth"], camera, rig, batch["crop"])
        code, given = self._choose(label, raw, batch, "input")
        return Reading(code, latent, given, _light_rows(code, batch["input_light"]), raw)

    def wanted(self, batch: dict[str, Tensor]) -> Reading:
        """The wanted light of a batch: of its label, or read off its guide, ``(B, 3, h, w)`` of any size.

        Raises:
            InputError: If the batch has neither, or the network was trained with labels alone and has none.
        """
        if not self.use_depth and "guide" in batch:
            batch = batch | {"guide_depth": torch.zeros_like(batch["guide_depth"])}
        label = encode(batch["target_light"]).to(batch["input"].dtype)
        if "guide" not in batch and not torch.compiler.is_compiling() and label.isnan().any():
            raise InputError("the wanted light is unknown: the batch has no guide, and its target_light is not given")
        if self.told:
            _expect_known(label, "wanted", "give its azimuth and temperature")
        if "guide" not in batch or self.told:
            return _labelled(label, self.latent, batch["target_light"])
        depth, crop = batch["guide_depth"], batch["guide_crop"]
        # another scene, whose camera no batch tells
        camera, rig = self._camera_and_rig(batch, known=False)
        if self.camera_from == "estimated":
            camera = self.estimate.camera(self.estimate.of_depth(depth, crop, camera))
        stream = self.light_stream if self.guide_stream is None else self.guide_stream
        raw, latent = stream(batch["guide"], depth, camera, rig, crop)
        code, given = self._choose(label, raw, batch, "guide")
        # a light that is given says nothing beyond its numbers, so its latent is zero
        return Reading(code, latent * (~given).to(latent.dtype), given, _light_rows(code, batch["target_light"]), raw)

    def _choose(self, label: Tensor, reading: Tensor, batch: dict[str, Tensor], which: str) -> tuple[Tensor, Tensor]:
        """The code to work with, label or reading, and a mask ``(B, 1)`` of the samples whose light is wholly the label's."""
        if self.training:
            depth = batch["depth" if which == "input" else "guide_depth"]
            column = 0 if which == "input" else 1
            chance = batch["chance"][:, column] if "chance" in batch else torch.rand(len(reading), device=reading.device)
            use = chance[:, None] >= self.label_dropout
            if self.use_depth:
                # a reading without depth is too often wrong to teach the relighting by; the light loss still teaches the reading
                use = use | (depth.flatten(1).amax(dim=1, keepdim=True) == 0)
        else:
            use = torch.full((len(reading), 1), self.light == "label", device=reading.device)
        use = use & ~label.isnan()
        # in use, a temperature beyond those of the training is an error of the reading
        kelvin = reading[:, 2:] if self.training else reading[:, 2:].clamp(-1, 1)
        unit = torch.cat([functional.normalize(reading[:, :2], dim=1), kelvin], dim=1)
        return torch.where(use, label.nan_to_num(), unit), use.all(dim=1, keepdim=True)

    def cue_operations(self, height: int, width: int) -> int:
        """Multiply-adds of all marches towards lights for one image of that size: points x steps x lights x 60 of a step.

        For both lights from the points of the image that are marched from, with their spreading over all pixels; and, at a low
        resolution, for what the light stream and the camera estimate compare.
        """
        stream, estimate, pixels = self.light_stream, self.estimate, height * width
        shadows = march_operations(marched_points(height, width), self.depth_stream.steps, 2)
        if marched_points(height, width) < pixels:
            shadows += _SPREAD_OPERATIONS * pixels
        full = shadows if self.depth_stream.cues == "visibility" else 0
        points = [(side // THINNED) ** 2 for side in (stream.match_size, estimate.image_side)]
        read = march_operations(points[0], stream.match_steps, 2 * stream.candidates) if stream.match and not self.told else 0
        guessed = march_operations(points[1], estimate.steps, len(estimate.coarse)) if self.camera_from == "estimated" else 0
        return full + read + guessed


def _labelled(label: Tensor, latent: int, lights: Tensor) -> Reading:
    """A light that is given, whose code is its label's."""
    given = torch.ones(len(label), 1, dtype=torch.bool, device=label.device)
    return Reading(label, label.new_zeros(len(label), latent), given, _light_rows(label, lights), None)


def _expect_known(label: Tensor, which: str, remedy: str) -> None:
    """Refuse what a light stream would have to read that nothing has trained."""
    if not torch.compiler.is_compiling() and bool(label.isnan().any()):
        raise InputError(
            f"the {which} light of an image is unknown, and this network was trained with labels alone (label_dropout 0); "
            f"expected a known light: {remedy}, or use a network whose light stream was trained"
        )


def _light_rows(code: Tensor, lights: Tensor) -> Tensor:
    """Light tensor for the cues: azimuth and kelvin of the code; elevation and ambient share, where given, of the light."""
    return torch.cat([decode(code.detach().float()), lights[:, 2:]], dim=1)


def _lift(lights: Tensor, rig: Tensor) -> Tensor:
    """Elevation in radians, the rig's where none is given, and ambient share of lights ``(B, 2 or 4)``: ``(B, 2)``."""
    rigs = torch.atan2(rig[:, 1], rig[:, 0]).to(lights.dtype)
    if lights.shape[1] == 2:
        return torch.stack([rigs, torch.zeros_like(rigs)], dim=1)
    own = ~lights[:, 2].isnan()
    elevation = torch.where(own, torch.deg2rad(torch.where(own, lights[:, 2], 0.0)), rigs)
    return torch.stack([elevation, lights[:, 3]], dim=1)

"""The page: what stands where, and what happens when it is touched."""

from __future__ import annotations

import functools
import html
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ltnet_pl import InputError
from ltnet_pl.demo.examples import FOLDER, examples
from ltnet_pl.demo.inputs import Readers
from ltnet_pl.demo.lights import COOL, FROM, STEP, WARM, Wanted, colours, light_from, said, usual_elevation
from ltnet_pl.demo.studio import FRAMES, NEARER, NO_ESTIMATE, Picture, Studio
from ltnet_pl.light import DIRECTIONS
from ltnet_pl.relight import Relighter

HERE = Path(__file__).parent
LOG = logging.getLogger(__name__)

WAITING = 32
"""Requests that may wait; the page tells further ones that it is busy."""

PROGRESS = gr.Progress()
"""Gradio gives a handler that has this default a bar of its own."""

UNEXPECTED = "Something went wrong here. It was written to the log of whoever runs this page. Try another picture."

FLAT = (
    "**None yet.** Without depth only the colour of the light can be changed: where it falls cannot be computed. "
    "Give a depth file{or_estimate}."
)


def build(relighter: Relighter, readers: Readers, folder: Path, **bounds: Any) -> gr.Blocks:
    """The page, to be served by `ltnet_pl.demo.serve.serve`.

    Args:
        relighter: What relights.
        readers: What reads and writes files.
        folder: Where uploads and results lie; old ones are removed.
        bounds: Of `Studio`: ``max_megapixels``, ``preview``, ``kept``, ``disk_mb``.
    """
    # read by Gradio's parts as they are made
    os.environ["GRADIO_TEMP_DIR"] = str(folder.resolve())
    gr.set_static_paths([FOLDER])
    studio = Studio(relighter, readers, folder, **bounds)
    page: gr.Blocks
    with gr.Blocks(title="Relight a photograph", analytics_enabled=False) as page:
        _Page(studio).draw(page)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def sentences(call: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors are sentences on the page: a user's mistake in its own words, any other also in the log."""

    @functools.wraps(call)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except InputError as error:
            raise _sentence(str(error)) from error
        except Exception as error:
            LOG.exception("a request failed")
            raise _sentence(UNEXPECTED) from error

    return told


def _sentence(text: str) -> gr.Error:
    # the page shows HTML, and names of files come from outside
    return gr.Error(html.escape(text), duration=15, print_exception=False)


class _Page:
    """The parts of one page, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.usual = usual_elevation(studio.relighter)
        self.flat = FLAT.format(or_estimate=", or let it be estimated" if studio.readers.estimate else "")
        self.examples = examples()

    def draw(self, page: gr.Blocks) -> None:
        self.picture, self.by_guide = gr.State(None), gr.State(False)
        gr.Markdown(
            "# Relight a photograph\nChoose a picture, then drag the lamp around it. Nothing leaves the computer that runs this "
            "page.",
            elem_id="head",
        )
        with gr.Row(elem_id="page"):
            with gr.Column(elem_id="photo"):
                self._draw_photo()
            with gr.Column(elem_id="result"):
                self._draw_result()
            with gr.Column(elem_id="light"):
                self._draw_light()
        self._connect(page)

    def _draw_photo(self) -> None:
        self.photo = gr.File(
            label="Your photograph (PNG or JPEG)", file_types=[".png", ".jpg", ".jpeg"], height=150, elem_id="photo_file"
        )
        self.gallery = gr.Gallery(
            [str(example.photo) for example in self.examples],
            label="Or an example",
            columns=max(1, len(self.examples)),
            height="auto",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="examples",
        )
        with gr.Accordion("Depth: how far away things are", open=False):
            self.depth_said = gr.Markdown(self.flat, elem_id="depth_said")
            self.depth_seen = gr.Image(
                label="Depth (near is bright)", interactive=False, visible=False, height=180, buttons=[], elem_id="depth_seen"
            )
            self.depth = gr.File(label="Depth file of this picture (16-bit PNG or .npy)", height=150, elem_id="depth_file")
            self.nearer = gr.Checkbox(label=NEARER, value=False)
            with gr.Row():
                self.estimate = gr.Button("Estimate depth", size="sm", visible=self.studio.readers.estimate is not None)
                self.no_depth = gr.Button("Go without depth", size="sm")
            if self.studio.readers.estimate is None:
                gr.Markdown(NO_ESTIMATE)

    def _draw_result(self) -> None:
        self.empty = gr.HTML('<div id="empty">The picture appears here.<br>Choose a photograph or an example.</div>')
        self.result = gr.ImageSlider(
            label="Before and after: drag the line",
            show_label=True,
            interactive=False,
            visible=False,
            max_height=620,
            buttons=["fullscreen"],
            elem_id="before_after",
        )
        self.said = gr.Markdown("", elem_id="said")
        self.turning = gr.Image(
            label="The light turns once around",
            type="filepath",
            interactive=False,
            visible=False,
            buttons=["download"],
            elem_id="turning",
        )

    def _draw_light(self) -> None:
        with gr.Tabs():
            with gr.Tab("By hand") as self.by_hand_tab:
                self.dial = gr.HTML(
                    90,
                    html_template=(HERE / "dial.html").read_text(encoding="utf-8"),
                    css_template=(HERE / "dial.css").read_text(encoding="utf-8"),
                    js_on_load=(HERE / "dial.js").read_text(encoding="utf-8"),
                    apply_default_css=False,
                    elem_id="dial",
                    words=[FROM[name] for name in DIRECTIONS],
                    present=-1,
                )
                gr.Markdown("Seen from above: **N** is behind the scene, **S** is where the camera stands.", elem_id="dial_said")
                self.azimuth = gr.Slider(0, 359, 90, step=1, label="Direction in degrees (90 is E)", elem_id="azimuth")
                self.temperature = gr.Slider(
                    WARM, COOL, 4500, step=STEP, label="Colour in kelvin (low is warm)", elem_id="temperature"
                )
                stops = ", ".join(colours().values())
                gr.HTML(
                    '<div id="swatch" role="img" aria-label="Colour of the light" '
                    f'style="background: linear-gradient(90deg, {stops})"></div>'
                )
                with gr.Accordion("More", open=False):
                    self.elevation = gr.Slider(
                        5, 85, self.usual, step=5, label="Height of the light above the ground, in degrees"
                    )
                    self.ambient = gr.Slider(0, 100, 0, step=5, label="Light from everywhere, in percent (softens shadows)")
                    self.strength = gr.Slider(0, 100, 100, step=5, label="Strength of the change, in percent")
            with gr.Tab("From another picture") as self.by_guide_tab:
                gr.Markdown("The light of this picture is read, and yours is shown in it.")
                self.guide = gr.File(
                    label="Picture whose light you want", file_types=[".png", ".jpg", ".jpeg"], height=150, elem_id="guide"
                )
                self.guide_seen = gr.Image(label="Its light is taken", interactive=False, visible=False, height=180, buttons=[])
                self.guide_said = gr.Markdown("", elem_id="guide_said")
        with gr.Row(visible=False) as self.actions:
            self.render = gr.Button("Make full size", variant="primary", min_width=140, elem_id="render")
            self.orbit = gr.Button("Turn once around", min_width=140, elem_id="orbit")
        self.download = gr.DownloadButton("Download", visible=False, variant="primary", elem_id="download")
        self.controls = [self.azimuth, self.temperature, self.elevation, self.ambient, self.strength]

    def _connect(self, page: gr.Blocks) -> None:
        shown = [
            self.picture, self.depth_said, self.depth_seen, self.dial, self.empty, self.result, self.actions, self.download,
            self.turning, self.said,
        ]  # fmt: skip
        asked = [self.picture, *self.controls, self.by_guide, self.guide]
        live: dict[str, Any] = {"concurrency_id": "live", "api_visibility": "private", "show_progress": "hidden"}
        slow: dict[str, Any] = {"concurrency_id": "slow", "api_visibility": "private", "show_progress_on": [self.said]}
        opened = {**live, "show_progress": "minimal", "show_progress_on": [self.said]}

        # a light of another picture would be asked for with the numbers that the sliders had for the last
        self.photo.upload(sentences(self.on_photo), [self.photo, *asked[1:]], [*shown, self.depth], **opened)
        self.gallery.select(sentences(self.on_example), asked[1:], [*shown, self.photo, self.depth], **opened)
        self.depth.upload(sentences(self.on_depth), [self.depth, self.nearer, *asked], shown, **opened)
        self.nearer.input(sentences(self.on_depth), [self.depth, self.nearer, *asked], shown, **opened)
        gr.on([self.no_depth.click, self.depth.clear], sentences(self.on_no_depth), asked, [*shown, self.depth], **opened)
        self.estimate.click(sentences(self.on_estimate), asked, [*shown, self.depth], **slow)

        relit = [self.result, self.download, self.said]
        moved: list[Any] = [control.change for control in self.controls]
        # of the requests that a moving hand makes, the newest alone is computed once the present one is done
        gr.on(moved, sentences(self.on_light), asked, relit, trigger_mode="always_last", **live)
        for tab, chosen in ((self.by_hand_tab, False), (self.by_guide_tab, True)):
            way = tab.select(functools.partial(bool, chosen), None, self.by_guide, **live)
            way.then(sentences(self.on_light), asked, relit, **live)
        self.guide.upload(sentences(self.on_guide), asked, [self.guide_seen, self.guide_said, *relit], **opened)
        self.guide.clear(self.on_no_guide, None, [self.guide_seen, self.guide_said], **live)

        self.render.click(sentences(self.on_render), asked, [self.download, self.said], **slow)
        self.orbit.click(sentences(self.on_orbit), asked, [self.turning, self.said], **slow)

        # these run in the browser alone
        self.dial.input(None, self.dial, self.azimuth, js="(value) => Number(value)")
        self.azimuth.change(None, self.azimuth, self.dial, js="(value) => value")
        table = json.dumps(colours())
        paint = f"""(kelvin) => {{
            const near = Math.min(Math.max(Math.round(kelvin / {STEP}) * {STEP}, {WARM}), {COOL});
            const style = document.documentElement.style;
            style.setProperty("--light-colour", {table}[near]);
            style.setProperty("--light-place", 100 * (near - {WARM}) / ({COOL} - {WARM}) + "%");
        }}"""
        self.temperature.change(None, self.temperature, None, js=paint)
        page.load(None, self.temperature, None, js=paint)

    # ---- what the handlers do

    def on_photo(self, path: str, *asked: Any) -> tuple[Any, ...]:
        return (*self._show(self.studio.open(Path(path)), *asked), None)

    def on_example(self, chosen: gr.SelectData, *asked: Any) -> tuple[Any, ...]:
        example = self.examples[int(chosen.index)]
        picture = self.studio.with_depth(Picture(example.photo), example.depth)
        return (*self._show(picture, *asked), None, None)

    def on_depth(self, path: str | None, nearer: bool, picture: Picture | None, *asked: Any) -> Any:
        if path is None:
            return gr.skip()
        return self._show(self.studio.with_depth(_chosen(picture), Path(path), nearer), *asked)

    def on_no_depth(self, picture: Picture | None, *asked: Any) -> tuple[Any, ...]:
        return (*self._show(self.studio.with_depth(_chosen(picture), None), *asked), None)

    def on_estimate(self, picture: Picture | None, *asked: Any) -> tuple[Any, ...]:
        return (*self._show(self.studio.with_estimate(_chosen(picture)), *asked), None)

    def on_light(self, picture: Picture | None, *asked: Any) -> Any:
        wanted = self._wanted(*asked)
        # nothing to light yet, or no picture to take the light from
        if picture is None or wanted is None:
            return gr.skip()
        return self._relit(picture, wanted)

    def on_guide(self, picture: Picture | None, *asked: Any) -> tuple[Any, ...]:
        guide = Path(asked[-1])
        read = self.studio.light_of(guide)
        seen = gr.Image(self.studio.guide_picture(guide), visible=True)
        text = f"Its light comes {said(read)}, as far as can be read from it."
        wanted = self._wanted(*asked)
        relit = (gr.skip(),) * 3 if picture is None or wanted is None else self._relit(picture, wanted)
        return (seen, text, *relit)

    def on_no_guide(self) -> tuple[Any, ...]:
        return gr.Image(None, visible=False), ""

    def on_render(self, picture: Picture | None, *asked: Any) -> tuple[Any, ...]:
        picture, wanted = _chosen(picture), self._wanted(*asked)
        if wanted is None:
            raise InputError("No picture to take the light from is chosen; expected one: choose it, or set the light by hand")
        path = self.studio.full(picture, wanted)
        megabytes = path.stat().st_size / 1e6
        return gr.DownloadButton(f"Download {path.name} ({megabytes:.1f} MB)", value=path, visible=True), "Ready in full size."

    def on_orbit(self, picture: Picture | None, progress: gr.Progress = PROGRESS, *asked: Any) -> tuple[Any, ...]:
        light = light_from(*asked[:4], usual=self.usual)
        path = self.studio.turn(_chosen(picture), light, lambda done: progress((done, FRAMES), desc="Turning the light"))
        return gr.Image(str(path), visible=True), "One turn of the light, in preview size."

    def _wanted(self, *asked: Any) -> Wanted | None:
        *light, strength, by_guide, guide = asked
        if by_guide and guide is None:
            return None
        return Wanted(light_from(*light, usual=self.usual), Path(guide) if by_guide else None, strength / 100)

    def _show(self, picture: Picture, *asked: Any) -> tuple[Any, ...]:
        ready = self.studio.ready(picture)
        present = ready.prepared.present
        if picture.depth is None:
            depth_said = self.flat
        elif picture.estimated:
            depth_said = "**Estimated from the photograph.** Shadows are as good as this guess."
        else:
            depth_said = f"**From a file** ({html.escape(picture.depth.name)})."
        for note in ready.notes:
            gr.Warning(html.escape(note), duration=15)
        depth_seen = gr.Image(ready.depth, visible=ready.depth is not None)
        wanted = self._wanted(*asked) or Wanted(light_from(*asked[:4], usual=self.usual))
        result, download, text = self._relit(picture, wanted, first=True)
        return (
            picture, depth_said, depth_seen, gr.HTML(present=round(present.azimuth) % 360), gr.HTML(visible=False), result,
            gr.Row(visible=True), download, gr.Image(None, visible=False), text,
        )  # fmt: skip

    def _relit(self, picture: Picture, wanted: Wanted, first: bool = False) -> tuple[Any, ...]:
        pair = self.studio.preview(picture, wanted)
        present = self.studio.ready(picture).prepared.present
        lit = "Lit as that picture is" if wanted.guide else f"Lit {said(wanted.light)}"
        flat = " No depth, so only its colour changes." if picture.depth is None else ""
        text = f"**{lit}.** Before: {said(present)}, as far as can be read from it.{flat}"
        return gr.ImageSlider(pair, visible=True) if first else pair, gr.DownloadButton(visible=False), text


def _chosen(picture: Picture | None) -> Picture:
    if picture is None:
        raise InputError("No photograph is chosen yet; expected one: choose a file or an example first")
    return picture

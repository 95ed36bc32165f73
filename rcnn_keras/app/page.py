"""The page: an image, two thresholds, and the detections of one or two detectors side by side.

A detector runs once per image; the thresholds are applied to its candidates, its D detections
before non-maximum suppression, which can be repeated with any IoU. Another tab looks inside a
detector. The page loads nothing from other hosts and sends nothing to them.
"""

import html
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from rcnn_keras import visualize
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.images import ImageError, read_image
from rcnn_keras.explain import explain
from rcnn_keras.models import Detector
from rcnn_keras.ops import nms_loop
from rcnn_keras.proposals import selective_search

MIN_CANDIDATE_SCORE = 0.05
MAX_CANDIDATES = 1000  # per image; each has a mask to draw
MAX_PROPOSALS = 2000  # per image, as in the papers


def return_candidates(model: Detector) -> Detector:
    """Change a detector so that it returns candidates instead of detections, and return it.

    Nothing is suppressed: it returns up to `MAX_CANDIDATES` per image with scores above
    `MIN_CANDIDATE_SCORE`. The model is changed in place; its `get_config()` still has the
    thresholds that it was built with.
    """
    layer = model.detection_layer
    layer.score_threshold = min(layer.score_threshold, MIN_CANDIDATE_SCORE)
    layer.nms_thresh = 1.0  # no IoU is above it
    layer.max_detections = max(layer.max_detections, MAX_CANDIDATES)
    model.predict_function = None  # a traced one has the old thresholds
    return model


@contextmanager
def thresholds_as_built(model: Detector) -> Iterator[None]:
    """Give a detector of `return_candidates` the thresholds of its constructor inside the block.

    What was traced before keeps the thresholds that it had.
    """
    layer, config = model.detection_layer, model.get_config()
    before = layer.score_threshold, layer.nms_thresh, layer.max_detections
    names = ("box_score_thresh", "box_nms_thresh", "box_detections_per_img")
    layer.score_threshold, layer.nms_thresh, layer.max_detections = (config[n] for n in names)
    try:
        yield
    finally:
        layer.score_threshold, layer.nms_thresh, layer.max_detections = before


def detect_candidates(image: str | PathLike[str] | np.ndarray, model: Detector) -> Detections:
    """Return the candidates in one image, best first.

    Args:
        image: a file or an array, as `read_image` takes them.
        model: of `return_candidates`. One that takes proposals is given those of selective search,
            mode fast.

    Raises:
        ImageError: if the image cannot be read.
    """
    search = _selective_search if model.takes_proposals else None
    (candidates,) = model.detect(image, proposals=search)
    return candidates


def filter_candidates(
    candidates: Detections, min_score: float, nms_iou: float, max_detections: int
) -> Detections:
    """Return the candidates that pass both thresholds, as a model built with them detects.

    Args:
        candidates: of one image.
        min_score: candidates of lower scores are left out, 0..1.
        nms_iou: IoU with a kept one of the same class above which a candidate is dropped.
        max_detections: maximum number, those of the highest scores.
    """
    scored = candidates.above(min_score)
    kept = [np.array([], np.intp)]
    for label in np.unique(scored.labels):
        of_class = np.flatnonzero(scored.labels == label)
        kept.append(of_class[nms_loop(scored.boxes[of_class], scored.scores[of_class], nms_iou)])
    return scored.take(
        np.sort(np.concatenate(kept))[:max_detections]
    )  # candidates are sorted by score


def _selective_search(image: np.ndarray) -> np.ndarray:
    return selective_search(image)[:MAX_PROPOSALS]


if TYPE_CHECKING:
    import gradio

LONGEST_SIDE = 1024  # of a picture on the page, in pixels
MIN_SCORE = 0.5  # initial value of the slider
KEEP_FILES = 24 * 60 * 60  # seconds, of uploaded and drawn images
SYSTEM_FONTS = ("system-ui", "sans-serif")
SYSTEM_MONO = ("ui-monospace", "monospace")

# Of the frame that shows another page.
FRAME = "#inside iframe { width: 100%; height: 85vh; border: 0; }"

# Run in the browser: saves a text as a file of the given name.
SAVE = """(text, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}"""


@dataclass(frozen=True)
class Trial:
    """One model's candidates in one picture.

    Attributes:
        file: name of the picture's file.
        image: `(H, W, 3)` uint8.
        candidates: of `detect_candidates`.
        max_detections: maximum number of the model's detections.
    """

    file: str
    image: np.ndarray
    candidates: Detections
    max_detections: int

    def shown(self, min_score: float, nms_iou: float) -> Detections:
        """Return the candidates that pass the thresholds; see `filter_candidates`."""
        return filter_candidates(self.candidates, min_score, nms_iou, self.max_detections)


def try_on(path: str, name: str, models: Mapping[str, Detector]) -> Trial | str:
    """Run the model of a name on an image file.

    Returns:
        The trial; a message instead if the file cannot be read; "" without a file or a name.
    """
    if not path or not name:
        return ""
    file, model = Path(path).name, models[name]
    try:
        image = read_image(path, model.value_range)
    except ImageError as error:
        return f"{file}: {error.reason}"
    max_detections = model.get_config()["box_detections_per_img"]
    return Trial(file, image, detect_candidates(image, model), max_detections)


def explanation_on(path: str, name: str, models: Mapping[str, Detector]) -> str:
    """Look inside the model of a name while it detects in an image file, as it was built.

    Returns:
        A frame with the page of `Explanation.html`; a message instead without a file, and if it
        cannot be read.
    """
    if not path:
        return "<p>Choose a picture first.</p>"
    file, model = Path(path).name, models[name]
    try:
        with thresholds_as_built(model):
            page = explain(model, path).html()
    except ImageError as error:
        return f"<p>{html.escape(f'{file}: {error.reason}')}</p>"
    return f'<iframe title="Inside {html.escape(name)}" srcdoc="{html.escape(page)}"></iframe>'


def picture(image: np.ndarray, detections: Detections) -> Image.Image:
    """Draw detections on an image, shrunk or enlarged by a whole number to fit the page."""
    height, width = image.shape[:2]
    long_side = max(height, width)
    if long_side > LONGEST_SIDE:
        scale = LONGEST_SIDE / long_side
        small = max(1, round(height * scale)), max(1, round(width * scale))
        image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
        factors = np.array([small[1] / width, small[0] / height] * 2, np.float32)
        detections = replace(detections, boxes=detections.boxes * factors, image_size=small)
    zoom = max(1, LONGEST_SIDE // long_side)
    return visualize.draw(image, detections, min_score=0, zoom=zoom)


def coco_file(trial: Trial | str, min_score: float, nms_iou: float) -> tuple[str, str]:
    """Return the detections shown as COCO result rows in JSON, and a file name."""
    if isinstance(trial, str):
        return "[]", "detections.json"
    rows = trial.shown(min_score, nms_iou).coco_rows(1, trial.file)
    return json.dumps(rows, indent=1) + "\n", f"{Path(trial.file).stem}_detections.json"


def build_page(models: Mapping[str, Detector]) -> "gradio.Blocks":
    """Return the page, not yet served.

    Args:
        models: by name; the first one is selected initially. They are changed in place, see
            `return_candidates`.
    """
    gr = _gradio()
    models = {name: return_candidates(model) for name, model in models.items()}
    first = next(iter(models))
    nms_iou = models[first].get_config()["box_nms_thresh"]
    with gr.Blocks(
        title="rcnn_keras",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(KEEP_FILES, KEEP_FILES),
    ) as page:
        with gr.Row():
            file = gr.File(label="Picture", height=150, elem_id="file")
            with gr.Column():
                scores = gr.Slider(
                    *(MIN_CANDIDATE_SCORE, 1, MIN_SCORE),
                    step=0.01,
                    label="Lowest score",
                    info="Weaker detections are left out.",
                    elem_id="score",
                )
                overlaps = gr.Slider(
                    *(0, 1, nms_iou),
                    step=0.01,
                    label="Highest IoU (NMS)",
                    info="Detections that overlap a better one of their class more are left out.",
                    elem_id="nms",
                )
        path = gr.State("")
        file.upload(_upload, file, [path, file], api_visibility="private")
        with gr.Tab("Detect"), gr.Row():
            _add_pane("a", "Model", list(models), first, models, path, (scores, overlaps))
            others = [("none", ""), *models]
            _add_pane("b", "Compare with", others, "", models, path, (scores, overlaps))
        with gr.Tab("Look inside"):
            _add_explanation(list(models), first, models, path)
    return page


def serve(
    models: Mapping[str, Detector],
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    wait: bool = True,
) -> tuple["gradio.Blocks", str]:
    """Serve the page, by default until Ctrl-C.

    Args:
        models: as for `build_page`.
        host: address to listen on.
        port: by default the first free one from 7860.
        wait: whether to return only when the server has stopped.

    Returns:
        The page, whose `close()` stops the server, and its address.

    Raises:
        OSError: if the port is taken.
    """
    page = build_page(models)
    gr = _gradio()
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        css=FRAME,
        theme=gr.themes.Base(font=SYSTEM_FONTS, font_mono=SYSTEM_MONO),
        quiet=True,
        prevent_thread_lock=True,
    )
    if wait:
        print(f"The page is at {url} (Ctrl-C ends it)", flush=True)
        page.block_thread()
    return page, url


def require_gradio() -> None:
    """Raise an ImportError that says how to install Gradio, if it is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the page is made with Gradio: pip install 'rcnn-keras[app]'")


def _gradio() -> Any:
    """Import Gradio without its analytics and version checks, which it reads on import."""
    require_gradio()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    return gradio


def _upload(path: str) -> tuple[str, Any]:
    """Return the path of an uploaded file, and the upload field emptied for the next one."""
    return path, _gradio().File(None, label=f"Picture: {Path(path).name}")


def _add_explanation(names: list[str], chosen: str, models: Any, path: Any) -> None:
    """Add the selection of a model, and a page of all that it computes for the picture."""
    gr = _gradio()
    with gr.Row():
        name = gr.Dropdown(
            names,
            value=chosen,
            label="Model",
            info="With the thresholds that it was built with.",
            elem_id="model_inside",
        )
        button = gr.Button("Look inside", variant="primary", elem_id="explain")
    frame = gr.HTML(elem_id="inside")
    button.click(
        lambda path, name: explanation_on(path, name, models),
        [path, name],
        frame,
        concurrency_id="detector",
        api_visibility="private",
    )


def _add_pane(
    key: str, label: str, names: Any, chosen: Any, models: Any, path: Any, thresholds: Any
) -> None:
    """Add a column of one model: its selection, picture, and detections as text and as a file."""
    gr = _gradio()
    with gr.Column():
        name = gr.Dropdown(names, value=chosen, label=label, elem_id=f"model_{key}")
        with gr.Column(visible=bool(chosen)) as pane:
            drawn = gr.Image(
                show_label=False,
                interactive=False,
                buttons=["fullscreen"],
                elem_id=f"picture_{key}",
            )
            words = gr.Textbox(label="Found", interactive=False, elem_id=f"found_{key}")
            save = gr.Button("Save as COCO JSON", interactive=False, elem_id=f"save_{key}")
    trial = gr.State("")
    text, title = gr.Textbox(visible=False), gr.Textbox(visible=False)

    def run(path: Any, name: str) -> Any:
        return try_on(path, name, models)

    def show(trial: Any, *thresholds: float) -> Any:
        if isinstance(trial, str):
            return None, trial, gr.Button(interactive=False)
        detections = trial.shown(*thresholds)
        image = picture(trial.image, detections)
        return image, detections.summary(), gr.Button(interactive=True)

    inputs, results = [trial, *thresholds], [drawn, words, save]
    immediate: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    name.change(lambda name: gr.Column(visible=bool(name)), name, pane, **immediate)
    gr.on(
        [path.change, name.change],
        run,
        [path, name],
        trial,
        trigger_mode="always_last",
        show_progress_on=words,
        concurrency_id="detector",  # one run at a time: two panes may show the same model
        api_visibility="private",
    ).then(show, inputs, results, **immediate)
    changes = [threshold.change for threshold in thresholds]
    gr.on(changes, show, inputs, results, trigger_mode="always_last", **immediate)
    save.click(coco_file, inputs, [text, title], **immediate).then(
        None, [text, title], js=SAVE, **immediate
    )

"""Train the members of the family that are not there yet, each into a folder of its own.

OUT/<name>/            what its training writes
OUT/<name>/stopwatch.json   how long it took
OUT/<name>/finished.json    the model's file, once there is nothing left to do
"""

from pathlib import Path

from rcnn_keras.comparison.files import read_json, write_json
from rcnn_keras.comparison.recipes import configuration, rcnn_rate, small_rcnn
from rcnn_keras.comparison.settings import Settings
from rcnn_keras.comparison.sources import Sources
from rcnn_keras.comparison.stopwatch import stopwatch
from rcnn_keras.data.written_aside import written_aside
from rcnn_keras.models import Detector, FastRCNN, truncate_svd
from rcnn_keras.models.loading import load_detector
from rcnn_keras.runs.run import train
from rcnn_keras.training.rcnn import train_rcnn

STOPWATCH, FINISHED = "stopwatch.json", "finished.json"


def trained(name: str, out: Path) -> Path | None:
    """Return the file of a member that is trained, None if it is not."""
    finished = read_json(out / name / FINISHED)
    return None if finished is None else out / name / finished["model"]


def train_member(
    name: str, settings: Settings, sources: Sources, out: Path, made_of: Path | None = None
) -> Path:
    """Train a member of the family, or go on with it, and return the model's file.

    Args:
        name: its place in `FAMILY`.
        settings: of the comparison.
        sources: the data.
        out: folder of the comparison; the member's is in it.
        made_of: the model that this one is made from, for those that are not trained.
    """
    folder = out / name
    with stopwatch(folder / STOPWATCH):
        if made_of is not None:
            file = _truncate(made_of, folder)
        elif name == "rcnn":
            file = _train_rcnn(settings, sources, folder)
        else:
            file = _train_run(name, settings, sources, folder)
    write_json(folder / FINISHED, {"model": file})
    return folder / file


def _train_rcnn(settings: Settings, sources: Sources, folder: Path) -> str:
    train_set = sources.train_set(proposals=True)
    model = small_rcnn(train_set.classes, settings.seed)
    rate = rcnn_rate(settings.steps)
    train_rcnn(
        model,
        train_set,
        folder,
        steps=settings.steps,
        learning_rate=rate,
        seed=settings.seed,
    )
    return "rcnn.keras"


def _train_run(name: str, settings: Settings, sources: Sources, folder: Path) -> str:
    run = configuration(name, settings, sources.train, sources.val, sources.classes)
    if not (folder / "report.html").exists():  # the last that a run writes
        train(run, folder)
    return "best.keras"


def _truncate(made_of: Path, folder: Path) -> str:
    model = load_detector(made_of)
    ranks = ranks_of(model)
    assert isinstance(model, FastRCNN)
    assert ranks is not None  # `members` saw to it
    with written_aside(folder / "model.keras") as aside:
        truncate_svd(model, ranks).save(aside)
    return "model.keras"


def ranks_of(model: Detector) -> tuple[int, int] | None:
    """Return how many singular values are kept of fc6 and fc7: a fourth and a sixteenth.

    That is 1024 and 256 of VGG-16's 4096, as in the paper. Narrow layers have less to spare, and
    keep at least 128 and 64. None for a head without whole layers.
    """
    if not isinstance(model, FastRCNN):
        return None
    layers = {layer.name: layer for layer in model.box_head.trunk.layers}
    if not {"fc6", "fc7"} <= set(layers) or "fc6_v" in layers:
        return None
    fc6, fc7 = layers["fc6"].units, layers["fc7"].units
    return min(fc6, max(128, fc6 // 4)), min(fc7, max(64, fc7 // 16))

"""The folder of a run: what is in it, and whether a run goes on in it.

RUN/config.yaml       the configuration, all defaults filled in: trains the same run again
RUN/history.csv       losses and scores of each epoch
RUN/last.keras        the model after the last epoch
RUN/best.keras        the model of the best val_AP, for Mask R-CNN val_mask_AP, or of the last step
RUN/detections.json   what best.keras finds in the validation data, as COCO result rows
RUN/scores.json       its COCO scores
RUN/errors.json       its errors by kind, and its confusion matrix
RUN/report.html       scores, curves, errors and pictures, with plots and pictures/ beside it; ends
                      a run
RUN/tensorboard/      if asked for
RUN/checkpoints/      while the run is unfinished: where it goes on, see `Checkpoint`
RUN/1_rpn/ ..         with `training.alternating` the four steps, see `train_alternating`
RUN/stages/           of R-CNN, which has no history and no last.keras, see `train_rcnn`; the
                      features are removed once all is learnt from them
"""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import yaml

from rcnn_keras.runs.configuration import Configuration, RCNNConfiguration
from rcnn_keras.training.alternating import CHECKPOINTS, STEPS
from rcnn_keras.training.callbacks import HistoryFile
from rcnn_keras.training.checkpoint_state import checkpoints, differences

FILES = (
    "config.yaml",
    "history.csv",
    "last.keras",
    "best.keras",
    "detections.json",
    "scores.json",
    "errors.json",
    "report.html",
    *(
        f"{plot}{page}.png"
        for plot in (
            "losses",
            *("average_precision", "precision_recall"),
            *("mask_average_precision", "mask_precision_recall"),
            *("errors", "confusion"),
        )
        for page in ("", "_dark")
    ),
)

STAGES = "stages"

FOLDERS = (
    *("tensorboard", CHECKPOINTS, STAGES),
    *(step.name for step in STEPS),
)

BEFORE_THE_FIRST_STEP = ("config.yaml", "tensorboard", CHECKPOINTS)

PICTURE = re.compile(r'src="pictures/([^"/]+)"')  # in a report, which names those of its run


def clear(out: Path) -> None:
    """Remove what a run writes, and nothing else."""
    report, folder = out / "report.html", out / "pictures"
    if report.exists():
        for link in PICTURE.findall(report.read_text("utf-8")):
            (folder / unquote(link)).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def remove_torn(out: Path) -> None:
    """Remove what a run that was killed had not written to its end, see `written_aside`."""
    for name in (*FILES, *FOLDERS):
        for folder in out.glob(f".{name}.*"):
            shutil.rmtree(folder)


def resumes(out: Path, configuration: Configuration, *, required: bool = False) -> bool:
    """Return whether `out` holds an unfinished run of this configuration to go on from.

    Raises:
        FileExistsError: it holds something else of a run, or a finished one.
        FileNotFoundError: a run is `required` and none was begun there.
    """
    found = [name for name in (*FILES, *FOLDERS) if (out / name).exists()]
    if required and "config.yaml" not in found:
        raise FileNotFoundError(
            f"{out} holds no run to go on with: name its folder (--out), or leave out --resume to "
            f"start one"
        )
    ways = "name another folder (--out), or overwrite it (--overwrite)"
    if "report.html" in found:
        raise FileExistsError(f"{out} holds a finished run: {ways}")
    if "config.yaml" in found:
        theirs, ours = (out / "config.yaml").read_text("utf-8"), configuration.to_yaml()
        if theirs != ours:
            raise FileExistsError(
                f"{out} holds an unfinished run of another configuration (its config.yaml"
                f"{_how_they_differ(theirs, ours)}): {ways}"
            )
        if _goes_on(out, configuration):
            return True
    if lost := [name for name in found if name not in BEFORE_THE_FIRST_STEP]:
        raise FileExistsError(
            f"{out} holds {', '.join(('config.yaml', *lost) if 'config.yaml' in found else lost)} "
            f"of a run that has no checkpoint to go on from (training.checkpoint makes them): "
            f"{ways}"
        )
    return False


def _how_they_differ(theirs: str, ours: str) -> str:
    """Return which keys of two configurations differ, nothing if one is none."""
    try:
        then, now = yaml.safe_load(theirs), yaml.safe_load(ours)
    except yaml.YAMLError:
        return ""
    return f"; {'; '.join(differences(then, now))}" if isinstance(then, dict) else ""


def _goes_on(out: Path, configuration: Configuration) -> bool:
    """Return whether a run that was stopped in `out` left enough to go on from."""
    training = configuration.training
    if isinstance(configuration, RCNNConfiguration) or training.alternating is not None:
        return True  # after the last finished stage or step
    if training.checkpoint is not None and checkpoints(out / CHECKPOINTS):
        return True
    return training.epochs in HistoryFile(out / "history.csv", resumes=True).rows

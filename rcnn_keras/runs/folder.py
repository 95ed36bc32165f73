"""The folder of a run: its files, and whether a run is resumed in it.

RUN/config.yaml       the configuration with all defaults: trains the same run again
RUN/history.csv       losses and scores of each epoch
RUN/last.keras        the model after the last epoch
RUN/best.keras        the model of the best val_AP, for Mask R-CNN val_mask_AP, for Keypoint R-CNN
                      val_keypoint_AP, or of the last step; without objects to score, that of the
                      last epoch
RUN/detections.json   detections of best.keras in the validation data, as COCO result rows
RUN/scores.json       its COCO scores
RUN/errors.json       its errors by kind, and its confusion matrix
RUN/report.html       scores, curves, errors and pictures, with plots and pictures/ beside it;
                      written at the end of a run
RUN/tensorboard/      with `training.tensorboard`
RUN/checkpoints/      while the run is unfinished, see `Checkpoint`
RUN/1_rpn/ ..         with `training.alternating`: the four steps, see `train_alternating`
RUN/stages/           of R-CNN, which has no history and no last.keras, see `train_rcnn`; the
                      features are removed at the end of the training
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
            *("keypoint_average_precision", "keypoint_precision_recall"),
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

EXISTING_BEFORE_TRAINING = ("config.yaml", "tensorboard", CHECKPOINTS)

PICTURE = re.compile(r'src="pictures/([^"/]+)"')  # in a report, which links those of its run


def clear(out: Path) -> None:
    """Remove the files that a run writes, and nothing else."""
    report, folder = out / "report.html", out / "pictures"
    if report.exists():
        for link in PICTURE.findall(report.read_text("utf-8")):
            (folder / unquote(link, errors="surrogateescape")).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def remove_unfinished(out: Path) -> None:
    """Remove unfinished writes of a killed run, see `atomic_write`."""
    for name in (*FILES, *FOLDERS):
        for folder in out.glob(f".{name}.*"):
            shutil.rmtree(folder)


def resumes(out: Path, configuration: Configuration, *, required: bool = False) -> bool:
    """Return whether `out` holds an unfinished run of this configuration to resume.

    Raises:
        FileExistsError: it holds other files of a run, or a finished run.
        FileNotFoundError: a run is `required` and none was started there.
    """
    existing = [name for name in (*FILES, *FOLDERS) if (out / name).exists()]
    if required and "config.yaml" not in existing:
        raise FileNotFoundError(
            f"{out} holds no run to resume: name its folder (--out), or leave out --resume to "
            f"start one"
        )
    advice = "name another folder (--out), or overwrite it (--overwrite)"
    if "report.html" in existing:
        raise FileExistsError(f"{out} holds a finished run: {advice}")
    if "config.yaml" in existing:
        old, new = (out / "config.yaml").read_text("utf-8"), configuration.to_yaml()
        if old != new:
            raise FileExistsError(
                f"{out} holds an unfinished run of another configuration (its config.yaml"
                f"{_describe_differences(old, new)}): {advice}"
            )
        if _is_resumable(out, configuration):
            return True
    if lost := [name for name in existing if name not in EXISTING_BEFORE_TRAINING]:
        names = ("config.yaml", *lost) if "config.yaml" in existing else lost
        raise FileExistsError(
            f"{out} holds {', '.join(names)} "
            f"of a run that has no checkpoint to resume from (training.checkpoint makes them): "
            f"{advice}"
        )
    return False


def _describe_differences(old: str, new: str) -> str:
    """Return which keys of two configurations differ, "" if the old one is not readable."""
    try:
        old_values, new_values = yaml.safe_load(old), yaml.safe_load(new)
    except yaml.YAMLError:
        return ""
    if not isinstance(old_values, dict):
        return ""
    return f"; {'; '.join(differences(old_values, new_values))}"


def _is_resumable(out: Path, configuration: Configuration) -> bool:
    """Return whether an interrupted run in `out` left files to resume from."""
    training = configuration.training
    if isinstance(configuration, RCNNConfiguration) or training.alternating is not None:
        return True  # after the last finished stage or step
    if training.checkpoint is not None and checkpoints(out / CHECKPOINTS):
        return True
    return training.epochs in HistoryFile(out / "history.csv", resumes=True).rows

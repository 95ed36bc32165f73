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
RUN/backup/           if asked for, while the run is unfinished: what it resumes from
RUN/1_rpn/ ..         with `training.alternating` the four steps, see `train_alternating`
RUN/stages/           of R-CNN, which has no history and no last.keras, see `train_rcnn`; the
                      features are removed once all is learnt from them
"""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

from rcnn_keras.training.alternating import STEPS
from rcnn_keras.training.configuration import Configuration, RCNNConfiguration
from rcnn_keras.training.history import HistoryFile

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
    *("tensorboard", "backup", STAGES),
    *(step.name for step in STEPS),
)
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


def resumes(out: Path, configuration: Configuration) -> bool:
    """Return whether `out` holds an unfinished run of this configuration to go on from."""
    found = [name for name in (*FILES, *FOLDERS) if (out / name).exists()]
    ways = "name another folder (--out), or overwrite it (--overwrite)"
    if "report.html" in found:
        raise FileExistsError(f"{out} holds a finished run: {ways}")
    if "config.yaml" in found:
        if (out / "config.yaml").read_text("utf-8") != configuration.to_yaml():
            raise FileExistsError(
                f"{out} holds an unfinished run of another configuration (its config.yaml): {ways}"
            )
        if _goes_on(out, configuration):
            return True
    if found not in ([], ["config.yaml"]):
        raise FileExistsError(
            f"{out} holds {', '.join(found)} of a run that has no backup to go on from "
            f"(training.backup: true makes one): {ways}"
        )
    return False


def _goes_on(out: Path, configuration: Configuration) -> bool:
    """Return whether a run that was stopped in `out` left enough to go on from."""
    training = configuration.training
    if isinstance(configuration, RCNNConfiguration) or training.alternating is not None:
        return True  # after the last finished stage or step
    trained = training.epochs in HistoryFile(out / "history.csv", resumes=True).rows
    return trained or (training.backup and (out / "backup").exists())


def epochs_done(out: Path, history: HistoryFile) -> int:
    """Return how many epochs to go on from: `fit` then also keeps to the order of the data."""
    metadata = out / "backup" / "training_metadata.json"
    if metadata.exists():
        return json.loads(metadata.read_text("utf-8"))["epoch"]
    return max(history.rows, default=0)

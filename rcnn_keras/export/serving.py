"""A folder from which TensorFlow Serving serves detectors by name, and new versions as they come.

serving/
  models.config    which models there are
  compose.yaml     `docker compose up` serves them: REST on port 8501, gRPC on 8500
  cells/1/         the first version of the model cells, a SavedModel
  cells/2/         once it is written, the server goes over to it
"""

import re
from os import PathLike
from pathlib import Path
from typing import Any

from rcnn_keras.export.saved_model import saved_model
from rcnn_keras.models import Detector
from rcnn_keras.utils.atomic import atomic_write

CONFIG = "models.config"
COMPOSE = """\
services:
  serving:
    image: tensorflow/serving:${TF_SERVING_VERSION:-latest}
    command: --model_config_file=/models/models.config --model_config_file_poll_wait_seconds=60
    ports:
      - "8500:8500"  # gRPC
      - "8501:8501"  # REST
    volumes:
      - .:/models:ro
"""


def serve(model: Detector, root: str | PathLike, name: str, **options: Any) -> Path:
    """Write a detector as the next version of a model that TensorFlow Serving serves.

    Also writes `models.config` with all models of the folder, and `compose.yaml` if there is none.

    Args:
        model: the detector.
        root: folder of all models.
        name: of the model in requests: letters, digits, `_`, `-` and `.`.
        **options: of `saved_model`, but for `overwrite`: versions are never replaced.

    Returns:
        The version's folder, `root/name/number`.

    Raises:
        ValueError: for another name.
        FileExistsError: if `models.config` was changed by hand and does not have this model.
        OSError: if the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(
            f"name must be letters, digits, '_', '-' and '.', as it is part of URLs; "
            f"received {name!r}"
        )
    root = Path(root)
    config = root / CONFIG
    named = config.exists() and f'name: "{name}"' in config.read_text("utf-8")
    if config.exists() and not named and config.read_text("utf-8") != models_config(models(root)):
        raise FileExistsError(
            f"{config} was written by hand: add the model {name} to it first, with base_path "
            f'"/models/{name}"'
        )
    version = saved_model(model, root / name / str(next_version(root / name)), **options)
    if not named:
        _write(config, models_config(models(root)))
    if not (root / "compose.yaml").exists():
        _write(root / "compose.yaml", COMPOSE)
    return version


def next_version(folder: Path) -> int:
    """Return the number after the highest version of a model, 1 for the first."""
    return max(versions(folder), default=0) + 1


def versions(folder: Path) -> list[int]:
    """Return the numbers of a model's versions: folders whose names are numbers."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())


def models(root: Path) -> list[str]:
    """Return the names of the models in a folder that have a version."""
    return sorted(entry.name for entry in root.iterdir() if versions(entry))


def models_config(names: list[str]) -> str:
    """Return the text of a `ModelServerConfig` with these models under `/models`."""
    models = "".join(
        f'  config {{\n    name: "{name}"\n    base_path: "/models/{name}"\n'
        f'    model_platform: "tensorflow"\n  }}\n'
        for name in names
    )
    return f"model_config_list {{\n{models}}}\n"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")

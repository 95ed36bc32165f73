"""Settings and versions of Keras that this package needs, checked before Keras is imported."""

import json
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path

NEEDED = {"backend": "tensorflow", "floatx": "float32", "image_data_format": "channels_last"}
POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
BACKEND_VARIABLE = "KERAS_BACKEND"
TESTED = {"keras": "3.15", "tensorflow": "2.21"}  # the bounds in pyproject.toml


class SettingsError(ImportError, ValueError):
    """A setting of Keras with which this package cannot work; says which, and where it is made."""


def check_settings() -> None:
    """Raise SettingsError unless the settings of Keras are those that this package needs.

    They are Keras' own if it is imported already; otherwise those of the environment variable
    KERAS_BACKEND and of `keras.json`, which Keras reads when it is imported. Models look again when
    they are built.

    Raises:
        SettingsError: in one line, with the value and where it was found.
    """
    config = getattr(sys.modules.get("keras"), "config", None)
    path = settings_file()
    stored = _stored(path)
    variable = os.environ.get(BACKEND_VARIABLE)
    for name, needed in NEEDED.items():
        value, where = stored.get(name, needed), str(path)
        if name == "backend" and variable:
            value, where = variable, f"the environment variable {BACKEND_VARIABLE}"
        if config is not None and getattr(config, name)() != value:
            value, where = getattr(config, name)(), f"a call of keras.config.set_{name}"
        if value != needed:
            raise SettingsError(
                f"rcnn_keras needs {name} {needed!r} of Keras, not {value!r}, which is set by "
                f"{where}"
            )
    policy = "float32" if config is None else config.dtype_policy().name
    if policy not in POLICIES:
        raise SettingsError(
            f"rcnn_keras needs dtype_policy {' or '.join(map(repr, POLICIES))} of Keras, not "
            f"{policy!r}, which is set by a call of keras.config.set_dtype_policy"
        )


def check_versions() -> None:
    """Warn of versions of Keras and TensorFlow that this package was not tested with."""
    for package, tested in TESTED.items():
        version = metadata.version(package)
        if version.split(".")[:2] != tested.split("."):
            warnings.warn(
                f"rcnn_keras was tested with {package} {tested}; {version} is installed",
                stacklevel=3,
            )


def settings_file() -> Path:
    """Return the path of `keras.json`, by the rules of Keras: it need not be there."""
    folder = os.environ.get("KERAS_HOME")
    if folder is None:
        home = os.path.expanduser("~")
        folder = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return Path(os.path.expanduser(folder), "keras.json")


def _stored(path: Path) -> dict:
    """Return what is in `keras.json`; Keras itself passes over a file that is no JSON."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path}, the settings of Keras: {error.strerror}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}, the settings of Keras, must be a JSON object")
    return values

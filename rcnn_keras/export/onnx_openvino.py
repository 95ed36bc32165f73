"""A detector as an ONNX or OpenVINO model: the graph of the LiteRT file for other runtimes."""

import importlib.util
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from rcnn_keras.export.fixed_size import FixedSize, checked_size, fixed_size
from rcnn_keras.export.litert import about_file, checked_path
from rcnn_keras.models import Detector
from rcnn_keras.utils.atomic import atomic_write


def onnx(
    model: Detector,
    path: str | PathLike,
    *,
    size: Sequence[int] | None = None,
    num_proposals: int = 300,
    overwrite: bool = False,
) -> Path:
    """Write a detector as an ONNX file.

    Inputs and outputs are those of the LiteRT file, see `export.litert`. What its archive holds is
    here in the model's metadata: `classes`, a JSON list, and `detector`, a JSON object.

    Args:
        model: the detector, which stays as it is.
        path: of the file, ending in `.onnx`.
        size: as in `export.litert`.
        num_proposals: as in `export.litert`.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        TypeError: if the model is not a detector of this package.
        ValueError: for a size that cannot be.
        FileExistsError: if there is a file and `overwrite` is False.
        ImportError: if a package is missing.
    """
    path = checked_path(path, ".onnx", overwrite)
    graph = _graph(model, size, num_proposals, "onnx", ("onnx", "tf2onnx"))
    import onnx as package

    with atomic_write(path) as temporary:
        graph.export(
            str(temporary), format="onnx", input_signature=[graph.signature], verbose=False
        )
        content = package.load(str(temporary))
        package.helper.set_model_props(content, _metadata(model, graph))
        package.save(content, str(temporary))
    return path


def openvino(
    model: Detector,
    path: str | PathLike,
    *,
    size: Sequence[int] | None = None,
    num_proposals: int = 300,
    overwrite: bool = False,
) -> Path:
    """Write a detector as an OpenVINO model: an `.xml` file, and its weights in `.bin` beside it.

    Inputs and outputs are those of the LiteRT file, see `export.litert`. What its archive holds is
    here in the model's `rt_info`: `classes`, a JSON list, and `detector`, a JSON object.

    Args:
        model: the detector, which stays as it is.
        path: of the file, ending in `.xml`.
        size: as in `export.litert`.
        num_proposals: as in `export.litert`.
        overwrite: replace files that are there.

    Returns:
        The path.

    Raises:
        TypeError: if the model is not a detector of this package.
        ValueError: for a size that cannot be.
        FileExistsError: if there is a file and `overwrite` is False.
        ImportError: if a package is missing.
    """
    path = checked_path(path, ".xml", overwrite)
    weights = checked_path(path.with_suffix(".bin"), ".bin", overwrite)
    graph = _graph(model, size, num_proposals, "openvino", ("openvino",))
    import openvino as package

    with atomic_write(path) as temporary, atomic_write(weights) as temporary_weights:
        first = temporary.with_name("exported.xml")
        graph.export(
            str(first), format="openvino", input_signature=[graph.signature], verbose=False
        )
        content = package.Core().read_model(first)
        for name, text in _metadata(model, graph).items():
            content.set_rt_info(text, name)
        package.save_model(content, temporary, compress_to_fp16=False)
        temporary.with_suffix(".bin").replace(temporary_weights)
        path.unlink(missing_ok=True)  # so that it is never beside the weights of another
    return path


def _graph(
    model: Detector,
    size: Sequence[int] | None,
    num_proposals: int,
    extra: str,
    packages: tuple[str, ...],
) -> FixedSize:
    height_width = checked_size(model, size)
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{extra} export needs {', '.join(missing)}: pip install 'rcnn-keras[{extra}]'"
        )
    return fixed_size(model, height_width, num_proposals)


def _metadata(model: Detector, graph: FixedSize) -> dict[str, str]:
    about = about_file(model, graph.size)
    return {"classes": json.dumps(list(model.classes)), "detector": json.dumps(about)}

"""Build the notebooks in examples/ by running the scripts in examples/notebooks.

    python tools/build_notebooks.py                 # all of them, some minutes
    python tools/build_notebooks.py quick_start serve

`make notebooks` calls it. The scripts are in the percent format of jupytext: `# %%` begins a cell.
Each runs in a kernel of its own, in an empty folder. A notebook is written once all of its cells
have run.
"""

import argparse
import base64
import io
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {path.stem: path for path in sorted((EXAMPLES / "notebooks").glob("*.py"))}
LARGEST = (540, 340)  # width and height of a picture in a notebook, pixels
SMALL = 20_000  # bytes; a picture below, a chart for instance, stays a PNG
LOG = re.compile(r"WARNING: All log messages before absl|INFO: |[IWE]0000 ")
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all notebooks")
    parser.add_argument("--out", type=Path, default=EXAMPLES)
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(SCRIPTS)):
        parser.error(f"no script is named {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or SCRIPTS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(read(name), folder)
        path = args.out / f"{name}.ipynb"
        nbformat.write(notebook, path)
        print(f"{path} {path.stat().st_size / 1000:.0f} kB", flush=True)


def read(name: str, parameters: Mapping[str, Any] | None = None) -> NotebookNode:
    """Return the notebook of a script, without outputs.

    Args:
        name: of the script, without its ending.
        parameters: other values for names that the cell tagged `parameters` sets.

    Raises:
        ValueError: for a name that this cell does not set.
    """
    notebook = jupytext.read(SCRIPTS[name])
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same in every build
        cell.metadata.pop("lines_to_next_cell", None)  # of the script's layout
    [settings] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    before: dict[str, Any] = {}
    exec(settings.source, before)
    for key, value in (parameters or {}).items():
        if key not in before:
            raise ValueError(f"{name}: the cell of parameters sets no {key}")
        settings.source += f"\n{key} = {value!r}"
    return notebook


def run(notebook: NotebookNode, folder: str | os.PathLike[str]) -> NotebookNode:
    """Run a notebook in a folder, and return it with its outputs, pictures made small.

    Raises:
        nbclient.exceptions.CellExecutionError: where a cell raises.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    NotebookClient(
        notebook,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": os.fspath(folder)}},
        record_timing=False,
        timeout=None,
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_small(output) for output in map(_without_log, cell.outputs) if output]
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return notebook


def _without_log(output: NotebookNode) -> NotebookNode | None:
    """Return an output without what TensorFlow's C++ code says of the machine when it starts."""
    if output.output_type == "stream" and output.name == "stderr":
        lines = output.text.splitlines(keepends=True)
        output.text = "".join(line for line in lines if not LOG.match(line))
        return output if output.text.strip() else None
    return output


def _small(output: NotebookNode) -> NotebookNode:
    """Return an output whose picture is a small PNG, or a JPEG that fits into `LARGEST`."""
    content = base64.b64decode(output.get("data", {}).get("image/png", ""))
    if len(content) > SMALL:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.thumbnail(LARGEST, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60, optimize=True)
        del output.data["image/png"]
        output.data["image/jpeg"] = base64.b64encode(file.getvalue()).decode()
    return output


if __name__ == "__main__":
    main()

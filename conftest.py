"""The code in README.md and in docs/ runs as tests: each block in the order of its page.

Blocks of Python share one namespace a page; blocks of sh are commands of this package. Both run in
a folder with drawn images that has the names the pages use. Comments directly above a block say
what is different in the test; CONTRIBUTING.md lists them.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

ROOT = Path(__file__).parent
MARK = re.compile(r"<!-- (with|slow|not run)(?:: (.+))? -->")
RUN = "runs/first/best.keras"  # the trained detector that several pages use
ZOO = "model_final.pkl"  # a file as Detectron2 writes it


@dataclass
class Block:
    """A block of code, and what the comments above it say."""

    language: str
    source: str
    replaced: tuple[tuple[str, str], ...] = ()
    slow: bool = False
    not_run: str | None = None

    def run_source(self) -> str:
        """Return the code that runs in the test."""
        source = self.source
        for text, small in self.replaced:
            if text not in source:
                raise ValueError(f"the block has no {text!r} to replace")
            source = source.replace(text, small)
        return source


def commands(source: str) -> Iterator[list[str]]:
    """Give the words of each command in a block of sh, without comments."""
    for line in source.replace("\\\n", " ").replace("$PWD", os.getcwd()).splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def parse_blocks(document: Document) -> Iterator[Region]:
    """Give the blocks of Python and sh on a page, with the marks above them."""
    for region in FencedCodeBlockLexer("python|sh")(document):
        above = document.text[: region.start].splitlines()
        marks = []
        while above and (mark := MARK.fullmatch(above[-1])):
            marks.append(mark.groups())
            above.pop()
        replaced = [text.partition(" => ") for kind, text in reversed(marks) if kind == "with"]
        region.parsed = Block(
            language=region.lexemes["language"],
            source=region.lexemes["source"],
            replaced=tuple((text, small) for text, _, small in replaced),
            slow=("slow", None) in marks,
            not_run=next((text for kind, text in marks if kind == "not run"), None),
        )
        region.evaluator = run_block
        yield region


def run_block(example: Example) -> None:
    """Run a block in the folder of its page."""
    block = example.parsed
    if block.not_run:
        pytest.skip(block.not_run)
    source = block.run_source()
    if RUN in source and "--out runs/first" not in source:
        save_trained_detector()
    if ZOO in source:
        save_zoo_file()
    if block.language == "python":
        example.namespace["__name__"] = "__main__"
        code = compile(pad(source, example.line), example.path, "exec")
        exec(code, example.namespace)
    else:
        for words in commands(source):
            run_command(words)


def run_command(words: list[str]) -> None:
    """Run `rcnn ..` in this process, or `python FILE ..` in its own."""
    program, *arguments = words
    if program == "rcnn":
        from click.testing import CliRunner

        from rcnn_keras.cli import main

        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"
    elif program == "python" and arguments[0].endswith(".py"):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *arguments], check=True, env=environment)
    else:
        raise ValueError(
            f"{program} is not run here: say why above the block, <!-- not run: .. -->"
        )


def save_trained_detector() -> None:
    """Write the detector that a training would have left, unless it is there."""
    import rcnn_keras as rk

    path = Path(RUN)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rk.models.from_preset("shapes", min_size=96, max_size=96).save(path)


def save_zoo_file() -> None:
    """Write a small Mask R-CNN of random weights as Detectron2 would, unless it is there."""
    import pickle

    import numpy as np

    from rcnn_keras.convert.detectron2.architecture import Architecture
    from rcnn_keras.convert.detectron2.targets import mask_rcnn_targets
    from rcnn_keras.models import MaskRCNN

    if Path(ZOO).exists():
        return
    narrow = {"backbone_width": 0.25, "fpn_channels": 16, "box_units": 16, "norm": "frozen_batch"}
    model = MaskRCNN("resnet18_fpn", num_classes=3, **narrow)
    known = Architecture("mask_rcnn", "fpn", 3, {}, "backbone.bottom_up.")
    rng = np.random.default_rng(0)
    state = {
        name: rng.uniform(0.01, 0.1, target.shape).astype("float32")
        for name, target in mask_rcnn_targets(model, known, True).items()
    }
    content = {"model": state, "__author__": "a test"}
    Path(ZOO).write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and annotations under the names that the pages use."""
    from PIL import Image

    import rcnn_keras as rk

    folder = tmp_path_factory.mktemp("drawn")
    images = folder / "images"
    scenes = rk.data.draw_shapes(8, size=(96, 96), out=images)
    for name, part in {"train": scenes[:4], "val": scenes[4:6], "test": scenes[6:]}.items():
        part.save_coco(images / f"{name}.json")
        (images / f"{name}.json").rename(folder / f"{name}.json")
    (images / "annotations.json").unlink()
    (folder / "photos").mkdir()
    names = ("a.jpg", "b.png", "cat.jpg", "cell.png", "smear.jpg", "photos/1.jpg", "photos/2.png")
    for name, scene in zip(names, scenes, strict=False):
        Image.open(scene.path).save(folder / name)
    write_via(folder, scenes[:4])
    for name in ("configs", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def write_via(folder: Path, scenes: Any) -> None:
    """Write scenes as JSON and as CSV of the VGG Image Annotator, every object a rectangle."""
    entries, rows = {}, ["filename,file_size,region_shape_attributes,region_attributes"]
    for scene in scenes:
        name, regions = Path(scene.path).name, []
        for x1, y1, x2, y2 in scene.boxes.tolist():
            shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
            regions.append({"shape_attributes": shape, "region_attributes": {"kind": "dog"}})
            cells = (json.dumps(part).replace('"', '""') for part in regions[-1].values())
            rows.append(f'{name},1,"{next(cells)}","{next(cells)}"')
        entries[name] = {"filename": name, "size": 1, "regions": regions}
    (folder / "via.json").write_text(json.dumps(entries))
    (folder / "via.csv").write_text("\n".join(rows))


@pytest.fixture(scope="module")
def page_folder(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of a page: a copy of what is drawn."""
    import keras

    folder = tmp_path_factory.mktemp("page") / "work"
    shutil.copytree(drawn, folder, symlinks=True)
    before = Path.cwd()
    os.chdir(folder)
    keras.utils.set_random_seed(0)
    yield folder
    os.chdir(before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the blocks that say so as slow."""
    for item in items:
        block = getattr(getattr(item, "example", None), "parsed", None)
        if isinstance(block, Block) and block.slow:
            item.add_marker(pytest.mark.slow)


PAGES = Sybil(parsers=[parse_blocks], patterns=["*.md"], fixtures=["page_folder"])
pytest_collect_file = PAGES.pytest()

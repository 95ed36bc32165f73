"""The architecture, held: which room may import which, and where raw kernels may be called."""

import ast
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import rcnn_keras

TOP = "rcnn_keras"  # the package itself, `rcnn_keras/__init__.py`

# Each room, and the rooms that it may import beside itself. A new room needs a row here.
MAY_IMPORT = {
    "ops": set(),
    "preset_table": set(),  # which the command line reads without TensorFlow
    "losses": {"ops"},
    "keras_internals": {"ops"},
    "layers": {"ops"},
    "backbones": {"ops", "layers", "keras_internals"},
    # Workers import it, and TensorFlow only where their work needs it. Detection over folders is
    # imported when it is asked for, reads images, and stands above `data`.
    "parallel": {"parallel.folder_detection"},
    "parallel.folder_detection": {"parallel", "data", TOP},  # the top for its version
    "data": {"ops", "parallel"},  # to pack masks, and to pack images side by side
    "models": {"ops", "losses", "layers", "backbones", "data", "keras_internals", "preset_table"},
    "visualize": {"data"},
    "evaluation": {"data", "visualize"},
    "proposals": {"data", "parallel", "visualize", TOP},  # the top for its version
}
BELOW_TRAINING = set(MAY_IMPORT)
MAY_IMPORT |= dict.fromkeys(("training", "export", "convert"), BELOW_TRAINING)
MAY_IMPORT["presets"] = {"convert", "models", "preset_table", TOP}
MAY_IMPORT["training"] = BELOW_TRAINING | {"presets"}  # to start from trained weights
MAY_IMPORT["runs"] = MAY_IMPORT["training"] | {"training"}
MAY_IMPORT["comparison"] = {
    *("data", "models", "parallel", "proposals", "training", "runs", "evaluation", "visualize"),
}
MAY_IMPORT["explain"] = {"data", "layers", "losses", "models", "ops", "proposals", "visualize"}
MAY_IMPORT["compat"] = {"convert", "data", "models", "ops"}
MAY_IMPORT["app"] = {"data", "explain", "models", "ops", "proposals", "visualize"}
MAY_IMPORT[TOP] = set(MAY_IMPORT)  # all but the command line
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["utils"] = set()
for room in set(MAY_IMPORT) - {"utils"}:
    MAY_IMPORT[room] = MAY_IMPORT[room] | {"utils"}

# What else a room may import, beside the standard library; rooms not listed are free.
MAY_IMPORT_FROM_OUTSIDE = {
    "ops": {"keras", "tensorflow", "numpy"},
    "utils": {"numpy", "PIL", "matplotlib"},
}

# Heavy packages, imported in the functions that use them and not with the module.
LAZY = {"matplotlib", "jinja2", "sklearn", "gradio"}
ONLY_CLI = {"click"}

# TensorFlow's raw kernels, and the rooms that may name them.
KERNELS = re.compile(
    r"^(tf|tensorflow)\.(image|raw_ops)\b|non_max_suppression|NonMaxSuppression|crop_and_resize"
)
KERNEL_ROOMS = {"ops", "data"}

ROOT = Path(rcnn_keras.__file__).parent
FILES = {path.relative_to(ROOT.parent).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


def room_of(module):
    """`rcnn_keras.layers.box_head` is in the room `layers`; a module may have a row of its own."""
    parts = module.removesuffix(".__init__").split(".")
    if ".".join(parts[1:]) in MAY_IMPORT:
        return ".".join(parts[1:])
    return parts[1] if len(parts) > 1 else TOP


def imported(node):
    """The dotted names that an import statement binds."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.module == TOP:  # `from rcnn_keras import visualize` names a room, or the top itself
        return [f"{TOP}.{a.name}" if a.name in MAY_IMPORT else TOP for a in node.names]
    return [node.module]


def dotted(node):
    """`tf.image.resize` from the attribute's syntax tree."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def loaded_with_module(tree):
    """Import statements that run when the module is imported."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        type_checking = isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING")
        if not type_checking and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += list(ast.iter_child_nodes(node))


def lines_for_types(tree):
    """Numbers of the lines that only type checkers read."""
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING")
    ]
    return {line for node in blocks for line in range(node.lineno, node.end_lineno + 1)}


def violations(source, module):
    """What a module of the given dotted name does against the tables above."""
    tree, room = ast.parse(source), room_of(module)
    if room not in MAY_IMPORT:
        return [f"{module}: the room {room!r} has no row in MAY_IMPORT"]
    found = []
    for_types = lines_for_types(tree)  # where a package names what it fetches when asked for it
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(f"{module}:{node.lineno} has a relative import")
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in imported(node):
                facade = module.endswith(".__init__") and node.lineno in for_types
                if not facade and (reason := _refused(name, room)):
                    found.append(f"{module}:{node.lineno} imports {name}: {reason}")
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    if KERNELS.search(name) and room not in KERNEL_ROOMS:
                        found.append(f"{module}:{node.lineno} names the raw kernel {name}")
        elif isinstance(node, ast.Attribute):
            name = dotted(node)
            if KERNELS.search(name) and room not in KERNEL_ROOMS:
                found.append(f"{module}:{node.lineno} names the raw kernel {name}")
    for node in loaded_with_module(tree):
        for name in imported(node):
            if name and name.split(".")[0] in LAZY:
                found.append(f"{module}:{node.lineno} imports {name} with the module")
    return found


def _refused(name, room):
    package = name.split(".")[0]
    if package == TOP:
        target = room_of(name)
        if target != room and target not in MAY_IMPORT[room]:
            return f"{room} may import {sorted(MAY_IMPORT[room])}"
    elif package not in sys.stdlib_module_names:
        if package not in MAY_IMPORT_FROM_OUTSIDE.get(room, {package}):
            return f"{room} may import {sorted(MAY_IMPORT_FROM_OUTSIDE[room])} from outside"
        if package in ONLY_CLI and room != "cli":
            return "only the command line needs it"
    return None


def undocumented(source):
    """Names of the public modules, classes, functions and methods without a docstring."""
    tree = ast.parse(source)
    missing = [] if ast.get_docstring(tree) else ["the module"]
    pending = [("", node) for node in tree.body]
    while pending:
        prefix, node = pending.pop()
        is_class = isinstance(node, ast.ClassDef)
        if not (is_class or isinstance(node, ast.FunctionDef)) or node.name.startswith("_"):
            continue
        overload = any(dotted(d).endswith(("overload", ".setter")) for d in node.decorator_list)
        if not overload and not ast.get_docstring(node):
            missing.append(prefix + node.name)
        if is_class:
            pending += [(f"{prefix}{node.name}.", child) for child in node.body]
    return missing


def module_of(file):
    return file.removesuffix(".py").replace("/", ".")


def test_that_the_package_is_walked():
    walked = {room_of(module_of(file)) for file in FILES}
    assert {TOP, "ops", "layers", "backbones", "losses", "models", "data", "cli"} <= walked


@pytest.mark.parametrize("file", FILES)
def test_imports_run_one_way(file):
    assert violations(FILES[file].read_text(), module_of(file)) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("rcnn_keras.ops.boxes", "from rcnn_keras.layers import RoIAlign", "imports rcnn_keras.l"),
        ("rcnn_keras.ops.boxes", "import PIL.Image", "imports PIL.Image"),
        ("rcnn_keras.ops.boxes", "import rcnn_keras", "imports rcnn_keras"),
        ("rcnn_keras.ops.boxes", "def f():\n    import scipy", ":2 imports scipy"),
        ("rcnn_keras.losses", "from rcnn_keras.layers.box_head import BoxHead", "imports rcnn_"),
        ("rcnn_keras.layers.rpn_head", "from rcnn_keras.backbones import resnet", "imports rcnn"),
        ("rcnn_keras.layers.rpn_head", "from rcnn_keras import data", "imports rcnn_keras.data"),
        ("rcnn_keras.backbones.vgg", "from rcnn_keras.models import Detector", "imports rcnn_"),
        ("rcnn_keras.models.detector", "from rcnn_keras.evaluation import coco", "imports rcnn"),
        ("rcnn_keras.models.detector", "from rcnn_keras import __version__", "imports rcnn_ker"),
        (
            "rcnn_keras.models.detector",
            "if TYPE_CHECKING:\n    from rcnn_keras.presets import from_preset",
            ":2 imports rcnn_keras.presets",
        ),
        ("rcnn_keras.data.coco", "import rcnn_keras.models as m", "imports rcnn_keras.models"),
        (
            *("rcnn_keras.data.tfrecord", "import rcnn_keras.parallel.folder_detection"),
            "imports rcnn_keras.parallel.folder_detection",
        ),
        ("rcnn_keras.parallel.ray", "from rcnn_keras.data import coco", "imports rcnn_keras.data"),
        ("rcnn_keras.parallel.shards", "import rcnn_keras.models", "imports rcnn_keras.models"),
        ("rcnn_keras.utils.hashing", "import tensorflow", "imports tensorflow"),
        ("rcnn_keras.evaluation.coco", "from rcnn_keras.training import run", "imports rcnn_k"),
        ("rcnn_keras.visualize", "from rcnn_keras.evaluation import curves", "imports rcnn_ker"),
        ("rcnn_keras.runs.run", "from rcnn_keras.cli import main", "imports rcnn_keras.cli"),
        ("rcnn_keras.__init__", "from rcnn_keras import cli", "imports rcnn_keras.cli"),
        ("rcnn_keras.data.coco", "from .dataset import DetectionDataset", "relative import"),
        ("rcnn_keras.common.things", "import numpy", "no row"),
        ("rcnn_keras.data.coco", "import click", "only the command line"),
        (
            "rcnn_keras.evaluation.report.plots",
            "import matplotlib.pyplot as plt",
            "with the module",
        ),
        (
            "rcnn_keras.evaluation.report.plots",
            "class A:\n    from jinja2 import E",
            ":2 imports jinja2",
        ),
        ("rcnn_keras.layers.nms", "tf.raw_ops.NonMaxSuppressionV4()", "raw kernel tf.raw_ops"),
        ("rcnn_keras.models.detector", "x = tensorflow.image.resize(x)", "raw kernel tensorfl"),
        ("rcnn_keras.layers.nms", "from tensorflow import image", "raw kernel tensorflow.image"),
        ("rcnn_keras.layers.nms", "kernels.crop_and_resize(x)", "raw kernel kernels.crop"),
        ("rcnn_keras.layers.nms", "f().non_max_suppression(x)", "raw kernel .non_max"),
    ],
)
def test_that_the_checker_finds(module, source, complaint):
    found = violations(source, module)
    assert any(complaint in line and module in line for line in found), found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rcnn_keras.ops.nms", "import math, keras\nimport tensorflow as tf\ntf.image.resize"),
        ("rcnn_keras.layers.nms", "from rcnn_keras.layers.box_head import BoxHead"),
        ("rcnn_keras.data.tfrecord", "from rcnn_keras.parallel.shards import run_shards"),
        ("rcnn_keras.ops.nms", "from rcnn_keras.utils.atomic import atomic_write"),
        ("rcnn_keras.layers.nms", "from rcnn_keras.ops import nms\n'tf.image.resize'"),
        ("rcnn_keras.evaluation.report.plots", "def plot():\n    import matplotlib"),
        (
            "rcnn_keras.evaluation.report.plots",
            "if TYPE_CHECKING:\n    from matplotlib import axes",
        ),
        ("rcnn_keras.cli.train", "import click\nfrom rcnn_keras import __version__, models"),
    ],
)
def test_that_the_checker_lets_pass(module, source):
    assert violations(source, module) == []


@pytest.mark.parametrize("file", FILES)
def test_public_names_have_docstrings(file):
    assert undocumented(FILES[file].read_text()) == []


def test_that_the_docstring_checker_finds():
    source = '''
def bare(): ...
def _own(): ...
class A:
    """Doc."""
    def method(self): ...
    def reported(self):
        """Doc."""
        def inner(): ...
'''
    assert sorted(undocumented(source)) == ["A.method", "bare", "the module"]


PACKAGES = [TOP, *(m.name for m in pkgutil.iter_modules([str(ROOT)], f"{TOP}.") if m.ispkg)]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_exist(name):
    package = importlib.import_module(name)
    names = getattr(package, "__all__", [])
    assert [n for n in names if not hasattr(package, n)] == []
    assert len(set(names)) == len(names)
    if name == TOP:
        assert {"data", "models", "evaluation", "visualize", "callbacks"} <= set(names)


def test_completion_finds_the_public_names_that_are_imported_late():
    for package in (rcnn_keras, rcnn_keras.models, rcnn_keras.training, rcnn_keras.parallel):
        assert set(package.__all__) <= set(dir(package))
    assert {"backbones", "layers", "losses", "ops", "runs"} <= set(rcnn_keras.__all__)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").exists()


FRESH = """
import sys
sys.argv[0] = {argv0!r}
import rcnn_keras
print(sorted({{"tensorflow", "click", "jinja2"}} & set(sys.modules)))
"""
COMMAND = """
import sys
sys.argv[1:] = {arguments!r}
import rcnn_command
try:
    rcnn_command.main()
finally:
    print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""


def in_a_new_process(program, folder, **environment):
    path = os.pathsep.join(filter(None, [str(ROOT.parent), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("argv0", ["notebook.py", "rcnn.py", "/usr/bin/rcnn"])
def test_the_package_brings_its_classes_whatever_the_script_is_called(argv0, tmp_path):
    done = in_a_new_process(FRESH.format(argv0=argv0), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['tensorflow']"]


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["detect"], 2), (["train", "none.yaml"], 1)]
)
def test_help_and_usage_errors_of_the_command_need_no_tensorflow(arguments, status, tmp_path):
    done = in_a_new_process(COMMAND.format(arguments=arguments), tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


SETTINGS = {
    "a backend by variable": ({}, {"KERAS_BACKEND": "torch"}, "backend", "torch"),
    "a backend by file": ({"backend": "jax"}, {}, "backend", "jax"),
    "the order of channels": (
        {"image_data_format": "channels_first"},
        {},
        "image_data_format",
        "channels_first",
    ),
    "a type of numbers": ({"floatx": "float64"}, {}, "floatx", "float64"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_keras_that_do_not_fit_are_named_in_one_line(setting, tmp_path):
    stored, variables, name, value = SETTINGS[setting]
    file = tmp_path / "keras.json"
    file.write_text(json.dumps(stored))
    environment = {"KERAS_BACKEND": "", "KERAS_HOME": str(tmp_path)} | variables
    where = file if stored else "the environment variable KERAS_BACKEND"
    imported = in_a_new_process("import rcnn_keras", tmp_path, **environment)
    last = imported.stderr.splitlines()[-1]
    assert last.startswith("rcnn_keras.utils.environment.SettingsError: rcnn_keras needs ")
    assert last.endswith(f"of Keras, not {value!r}, which is set by {where}")
    program = COMMAND.format(arguments=["data", "check", str(file)])
    command = in_a_new_process(program, tmp_path, **environment)
    assert (command.returncode, len(command.stderr.splitlines())) == (2, 1)
    assert f"needs {name} " in command.stderr
    helped = in_a_new_process(COMMAND.format(arguments=["--help"]), tmp_path, **environment)
    assert helped.returncode == 0


def test_the_variable_for_the_backend_comes_before_the_file(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    environment = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "tensorflow"}
    done = in_a_new_process("import rcnn_keras", tmp_path, **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_data_format", "channels_first"),
        ("floatx", "float16"),
        ("dtype_policy", "float64"),
        ("dtype_policy", "float16"),
    ],
)
def test_a_setting_that_is_made_later_is_named_by_the_constructors(name, value):
    before = getattr(keras.config, name)()
    getattr(keras.config, f"set_{name}")(value)
    try:
        with pytest.raises(ImportError, match=f"set by a call of keras.config.set_{name}"):
            rcnn_keras.models.FasterRCNN("resnet18_fpn", ["a"])
        with pytest.raises(ImportError, match=f"not {value!r}"):
            rcnn_keras.models.RCNN("alexnet", ["a"])
    finally:
        getattr(keras.config, f"set_{name}")(before)

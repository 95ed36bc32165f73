"""README and docs/: what they name is there, and blocks that are not run are sound all the same.

The blocks themselves run as tests of their pages, see the conftest.py beside README.md.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from docutils.utils.math.latex2mathml import tex2mathml
from sybil import Document

import rcnn_keras as rk
from rcnn_keras.cli import main
from rcnn_keras.runs import schema
from rcnn_keras.runs.configuration import load_configuration

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "design" / "architecture.md").read_text("utf-8")
COMMAND_LINE = (ROOT / "docs" / "guides" / "command-line.md").read_text("utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if "_build" not in path.parts
}
PAGE = pytest.mark.parametrize("page", PAGES)


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem + "_of_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = _load(ROOT / "conftest.py")
BLOCKS = [
    (page, region.parsed)
    for page in PAGES
    for region in RUNNER.parse_blocks(Document(PAGES[page], page))
]
COMMANDS = [
    (page, words)
    for page, block in BLOCKS
    if block.language == "sh" and "curl" not in block.source
    for words in RUNNER.commands(block.source)
]


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


# the size and the form of the pages


def test_readme_is_two_screens():
    assert len(PAGES["README.md"].splitlines()) <= 150


@PAGE
def test_every_block_has_a_language_that_is_checked(page):
    fences = re.findall(r"^```(.*)$", PAGES[page], re.MULTILINE)
    known = {"python", "sh", "yaml", "{toctree}", "{eval-rst}", "{include} ../CHANGELOG.md"}
    known |= {""} if page.endswith("architecture.md") else set()  # the tree of modules
    assert set(fences[::2]) <= known
    assert set(fences[1::2]) <= {""}


@PAGE
def test_every_mark_stands_above_a_block(page):
    lines = PAGES[page].splitlines()
    for line, following in pairwise([*lines, ""]):
        if line.startswith("<!--"):
            assert RUNNER.MARK.fullmatch(line), line
            assert following.startswith(("<!--", "```python", "```sh")), f"{line}\n{following}"


@PAGE
def test_the_site_can_show_every_equation(page):
    text = re.sub(r"`[^`]*`", "", without_code(PAGES[page]))
    blocks = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
    for equation in blocks:
        tex2mathml(equation.strip(), as_block=True)
    for equation in re.findall(r"\$([^$]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)):
        tex2mathml(equation)


@PAGE
def test_no_placeholder_is_left(page):
    assert not re.search(r"@@|TODO|FIXME|XXX", PAGES[page])


# blocks of code, also those that are not run


@pytest.mark.parametrize(
    ("page", "block"),
    [pytest.param(*item, id=item[0]) for item in BLOCKS if item[1].language == "python"],
)
def test_python_compiles_and_keyword_arguments_exist(page, block):
    tree = ast.parse(block.run_source())
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and (function := _named(ast.unparse(call.func))):
            function = function.__init__ if inspect.isclass(function) else function
            parameters = inspect.signature(function).parameters
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                given = {keyword.arg for keyword in call.keywords if keyword.arg}
                assert given <= set(parameters), f"{page}: {ast.unparse(call)}"


def _named(name):
    """Return the function or class of the package that `rk.x.y` names, or None for other names."""
    first, _, rest = name.partition(".")
    if first != "rk" or not re.fullmatch(r"[\w.]+", rest):
        return None
    owner = rk
    for part in rest.split("."):
        owner = getattr(owner, part)
    return owner


def commands_of(group):
    for command in group.commands.values():
        yield from commands_of(command) if isinstance(command, click.Group) else [command]


@pytest.mark.parametrize(
    ("page", "words"), [(p, w) for p, w in COMMANDS if w[0] == "rcnn"], ids=lambda x: str(x)[:60]
)
def test_commands_of_rcnn_parse(page, words, monkeypatch):
    called = []
    for command in commands_of(main):
        monkeypatch.setattr(command, "callback", lambda **arguments: called.append(arguments))
    monkeypatch.setattr(click.Path, "convert", lambda kind, value, *_: Path(value))  # none is there
    result = CliRunner().invoke(main, words[1:])
    assert result.exit_code == 0, result.output
    assert len(called) == 1


@pytest.mark.parametrize(
    ("page", "words"),
    [(p, w) for p, w in COMMANDS if w[:2] == ["rcnn", "train"] and w[2].startswith("configs/")],
    ids=lambda x: str(x)[:60],
)
def test_train_commands_are_valid_configurations(page, words):
    changes = [b for a, b in pairwise(words) if a == "--set"]
    changes = [change for change in changes if not change.startswith("model.preset=")]
    load_configuration(ROOT / words[2], changes)


def test_other_commands_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    for _, (program, *arguments) in COMMANDS:
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), arguments
        elif program.endswith("python"):
            source = (ROOT / arguments[0]).read_text("utf-8")
            options = [a for a in arguments if a.startswith("--")]
            assert [a for a in options if f'"{a}"' not in source] == []
        elif program == "pip":
            for names in re.findall(r"(?:\.|rcnn-keras)\[([\w,]+)\]", " ".join(arguments)):
                assert set(names.split(",")) <= set(extras)
        else:
            others = ("rcnn", "docker", "export", "unzip", "pre-commit", "jupyter")
            assert program in others, program


def test_extras_named_in_text_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    named = {
        name
        for text in PAGES.values()
        for names in re.findall(r"(?:\.|rcnn-keras)\[([\w,]+)\]'", text)
        for name in names.split(",")
    }
    assert len(named) > 5
    assert named <= set(extras)


def test_messages_ask_for_extras_as_the_pages_do():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    sources = [*(ROOT / "rcnn_keras").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]
    named = [
        match.groups()
        for path in sources
        for match in re.finditer(r"(.)(rcnn.keras)\[([^\]]+)\](.)", path.read_text("utf-8"))
    ]
    assert len(named) > 8
    for before, package, extra, after in named:
        assert (before, package, after) == ("'", "rcnn-keras", "'"), extra
        assert extra in extras or extra == "{extra}"


# the configuration's keys


def keys_of(*sections):
    return {name for section in sections for name in section.model_fields}


def table_of(section):
    text = COMMAND_LINE.split(f"\n### `{section}`\n")[1].split("\n### ")[0].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_tables_of_the_configuration_have_every_key():
    assert table_of("data") == keys_of(schema.CocoBatches, schema.VocBatches, schema.RecordBatches)
    assert table_of("optimizer") == keys_of(schema.SGD, schema.Adaptive)
    assert table_of("schedule") == keys_of(schema.StepSchedule, schema.CosineSchedule)
    assert table_of("training") == keys_of(schema.TrainingSection)
    stages = COMMAND_LINE.split("For R-CNN, `training`")[1].split("\n## ")[0]
    fields = schema.StagesSection.__origin__.model_fields
    assert [name for name in fields if not re.search(f"`{name}[`:]", stages)] == []


def test_keys_in_yaml_and_in_text_exist():
    sections = {
        "model": set(inspect.signature(rk.models.MaskRCNN).parameters) | {"architecture", "preset"},
        "data": keys_of(schema.CocoBatches),
        "optimizer": keys_of(schema.SGD, schema.Adaptive),
        "schedule": keys_of(schema.StepSchedule, schema.CosineSchedule),
        "training": keys_of(schema.TrainingSection, schema.StagesSection.__origin__),
    }
    named = []
    for text in PAGES.values():
        for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            for section, keys in yaml.safe_load(block).items():
                named += [(section, key) for key in keys]
        named += re.findall(r"`(model|data|optimizer|schedule|training)\.(\w+)[`:]", text)
    assert len(named) > 15
    assert sorted({(s, k) for s, k in named if k not in sections[s]}) == []


def test_table_of_configurations_has_every_file():
    named = set(re.findall(r"`(\w+\.yaml)`", COMMAND_LINE))
    assert named == {path.name for path in (ROOT / "configs").glob("*.yaml")}


# the site


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("![a figure](gone.png)", "image file not readable"),
        ("[a page](gone.md)", "cross-reference target not found"),
        ("```{toctree}\n\ngone\n```", "nonexisting document"),
        ("$\\nosuchcommand$", "Unknown LaTeX command"),
        ("sound text, and $\\frac{1}{2}$", None),
    ],
)
def test_a_build_of_the_site_fails_when_something_is_missing(text, warning, tmp_path):
    conf = str(ROOT / "docs" / "conf.py")
    (tmp_path / "conf.py").write_text(
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('whole', {conf!r})\n"
        "whole = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(whole)\n"
        "extensions, html_math_renderer = ['myst_nb'], whole.html_math_renderer\n"
        "myst_enable_extensions = whole.myst_enable_extensions\n"
        "def setup(app):\n"
        "    renderer = (whole.write_mathml, None)\n"
        "    app.add_html_math_renderer('mathml', renderer, renderer)\n"
    )
    (tmp_path / "index.md").write_text(f"# A page\n\n{text}\n")
    line = re.search(r"-m (sphinx .*?) docs ", (ROOT / "Makefile").read_text("utf-8"))[1]
    command = [sys.executable, "-m", *line.split(), str(tmp_path), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == bool(warning), done.stderr
    assert warning is None or warning in done.stderr


# names, files and links


@PAGE
def test_files_it_names_exist(page):
    text = PAGES[page]
    folders = "configs|docs|examples|tests|tools|rcnn_keras|saved_models"
    paths = set(re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]*\w", text))
    paths -= {path for path in paths if path.startswith("docs/_build")}
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def anchors_of(text):
    headings = re.findall(r"^#+ (.*)", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGE
def test_links_and_anchors_exist(page):
    text = without_code(PAGES[page])
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file.read_text("utf-8")), target


def test_every_page_is_in_a_list_of_contents():
    pages = {path for path in PAGES if path.startswith("docs/")}
    listed = {"docs/index.md"}
    for page in pages:
        for names in re.findall(r"```\{toctree\}\n:hidden:\n\n(.*?)```", PAGES[page], re.DOTALL):
            listed |= {f"{Path(page).parent.as_posix()}/{name}.md" for name in names.split()}
    notebooks = {f"docs/notebooks/{path.stem}.md" for path in (ROOT / "examples").glob("*.ipynb")}
    assert pages | notebooks == listed  # docs/conf.py copies the notebooks there


def test_readme_links_to_every_guide():
    guides = [path for path in PAGES if path.startswith("docs/guides/")]
    missing = [path for path in guides if path not in PAGES["README.md"]]
    assert missing == ["docs/guides/index.md"]


@PAGE
def test_names_of_the_package_exist(page):
    names = set(re.findall(r"\b(?:rk|rcnn_keras)((?:\.[A-Za-z_]\w*)+)", PAGES[page]))
    for name in sorted(names):
        *path, last = name.split(".")[1:]
        if last in ("py", "git"):
            continue
        owner = rk
        for part in path:
            owner = getattr(owner, part, None) or importlib.import_module(
                f"{owner.__name__}.{part}"
            )
        module = hasattr(owner, "__path__") and find_spec(f"{owner.__name__}.{last}")
        assert hasattr(owner, last) or module, f"rcnn_keras{name}"


@PAGE
def test_options_in_text_exist(page):
    options = {
        name
        for command in commands_of(main)
        for parameter in command.params
        for name in parameter.opts
    } | {"--help", "--traceback"}
    text = without_code(PAGES[page])
    for span in re.findall(r"`([^`]+)`", text):
        if span.startswith(("rcnn ", "--")):
            named = re.findall(r"(?<!\S)(--[a-z][\w-]*)", span)
            tools = "".join(PAGES[page].split("tools/")[1:])  # an option of a program named before
            assert [n for n in named if n not in options and n not in tools] == [], span


# the API reference


def public_modules():
    return [name for name in rk.__all__ if name != "Detections"]


@pytest.mark.parametrize("name", public_modules())
def test_every_public_module_has_a_page_that_lists_its_names(name):
    text = PAGES[f"docs/api/{name}.md"]
    module = getattr(rk, name)
    assert re.search(rf"automodule:: {re.escape(module.__name__)}\n", text)
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if not inspect.isclass(value) and not inspect.isroutine(value):
            assert re.search(rf":: rcnn_keras\.{name}\.{public}\n", text), public


# the page of the architecture


def test_the_architecture_page_has_every_module_and_no_other():
    tree = re.search(r"```\nrcnn_keras/\n(.*?)```", ARCHITECTURE, re.DOTALL)[1]
    named, room = set(), ""
    for line in tree.splitlines():
        if found := re.match(r"  (\w+/)", line):
            room = found[1]
        elif not line.startswith("   "):
            room = ""
        named |= {f"{room}{name}" for name in re.findall(r"\b([\w/]+\.py)\b", line)}
    package = ROOT / "rcnn_keras"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert named == {name for name in modules if not name.endswith("__init__.py")}


# one version


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    newest = re.search(
        r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert project["version"] == rk.__version__ == citation["version"] == newest[1]
    assert str(citation["date-released"]) == newest[2]

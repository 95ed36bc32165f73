"""How Sphinx builds these pages: `make docs`."""

import os
import re
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import inspect, logging

import rcnn_keras

project = "rcnn_keras"
author = "the authors of rcnn_keras"
copyright = f"2026, {author}. Apache 2.0"
version = release = rcnn_keras.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
]
exclude_patterns = ["_build"]
html_math_renderer = "mathml"  # by the browser itself, so that the site needs no network
html_static_path = ["_static"]
html_css_files = ["math.css"]
html_theme = "pydata_sphinx_theme"
html_title = f"rcnn_keras {version}"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
html_show_sourcelink = False
smartquotes = False  # options begin with two hyphens

# Code on the pages runs in the tests; here nothing is executed.
nb_execution_mode = "off"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]

# Docstrings are Google style, with `code` in single backticks.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autosummary_generate = False


def write_code_spans(app, what, name, obj, options, lines):
    """Turn the `code` of docstrings into reStructuredText, with or without space around it."""
    text = re.sub(r"(?<![:`\w])`([^`]+)`(?![`_])", r"\\ ``\1``\\ ", "\n".join(lines))
    lines[:] = text.split("\n")


def list_public_names(app, what, name, obj, options, lines):
    """Begin the page of a module with a table of its public classes and functions."""
    if what == "module":
        names = [n for n in getattr(obj, "__all__", ()) if callable(getattr(obj, n))]
        table = [".. autosummary::", "   :nosignatures:", "", *(f"   {n}" for n in names)]
        lines += ["", *table, ""] if names else []


def show_arguments(app, what, name, obj, options, signature, annotation):
    """Show a Keras class with the arguments of `__init__`, not those of Keras' own `__new__`."""
    if what == "class" and issubclass(obj, keras.Operation):
        arguments = inspect.signature(obj.__init__, bound_method=True)
        shown = inspect.stringify_signature(
            arguments, show_return_annotation=False, unqualified_typehints=True
        )
        return shown, annotation
    return None


def escape_stars(app, ctx, lines):
    """Leave patterns such as "photos/*.jpg" in the help of commands as they are."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def check_public_names(app, env):
    """Warn, which ends `make docs`, of a public name that no page of the reference has."""
    documented = {entry.split(".")[-1] for entry in env.get_domain("py").objects}
    for module in rcnn_keras.__all__:
        for name in getattr(getattr(rcnn_keras, module), "__all__", [module]):
            if name not in documented:
                logging.getLogger(__name__).warning(f"no page of docs/api has {module}.{name}")


def write_mathml(translator, node):
    """Write an equation as MathML; one that docutils cannot read is a warning."""
    try:
        equation = tex2mathml(node.astext().strip(), as_block=isinstance(node, nodes.math_block))
        translator.body.append(equation.strip())
    except MathError as error:
        logging.getLogger(__name__).warning(f"{error} in {node.astext()!r}", location=node)
    raise nodes.SkipNode


def copy_notebooks(app):
    """Put the notebooks of examples/ where Sphinx looks for pages."""
    folder = Path(app.srcdir) / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in (Path(app.srcdir).parent / "examples").glob("*.ipynb"):
        shutil.copy2(path, folder)


def link_to_notebooks(app, page, source):
    """Let links to the notebooks, which lie in examples/, lead to their pages."""
    source[0] = re.sub(r"\]\((?:\.\./)+examples/(\w+\.ipynb)\)", r"](/notebooks/\1)", source[0])


def setup(app):
    """Connect the functions above."""
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", link_to_notebooks)
    app.connect("autodoc-process-docstring", write_code_spans, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", list_public_names, priority=950)
    app.connect("autodoc-process-signature", show_arguments)
    app.connect("sphinx-click-process-description", escape_stars)
    app.connect("env-check-consistency", check_public_names)

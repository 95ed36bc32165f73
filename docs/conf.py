"""How Sphinx builds these pages: `make docs`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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
html_theme = "pydata_sphinx_theme"
html_title = f"rcnn_keras {version}"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}
html_show_sourcelink = False

# Code on the pages runs in the tests; here nothing is executed.
nb_execution_mode = "off"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]

# Docstrings are Google style, with `code` in single backticks.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autosummary_generate = False

"""Versions of Keras and TensorFlow: the bounds, and the warning outside of them."""

import tomllib
import warnings
from importlib import metadata
from pathlib import Path

import pytest

from rcnn_keras.utils.environment import TESTED, check_versions

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@pytest.mark.parametrize("package", TESTED)
def test_the_bounds_of_the_package_are_the_versions_that_were_tested(package):
    major, minor = TESTED[package].split(".")
    needed = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"]
    assert f"{package}>={major}.{minor},<{major}.{int(minor) + 1}" in needed


def test_the_installed_versions_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_versions()


def test_another_version_is_named_in_a_warning(monkeypatch):
    versions = {"keras": "3.99.0", "tensorflow": "2.21.7"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    with pytest.warns(
        UserWarning, match=r"tested with keras 3\.15; 3\.99\.0 is installed"
    ) as found:
        check_versions()
    assert len(found) == 1

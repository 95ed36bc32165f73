import pytest

import rcnn_keras as rk


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rk.data.draw_shapes(5, size=(64, 64), seed=0, out=folder / "train")
    return folder / "train"


def test_init_writes_a_configuration_that_train_reads(rcnn, data, tmp_path):
    out = tmp_path / "own.yaml"
    result = rcnn("init", data, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"train with: rcnn train {out}" in result.output
    assert "validation_split: 0.2" in out.read_text()


def test_init_does_not_replace_a_file_unless_told_to(rcnn, error_of, data, tmp_path):
    out = tmp_path / "own.yaml"
    out.write_text("mine")
    assert "--overwrite replaces it" in error_of("init", data, "--out", out)
    assert out.read_text() == "mine"
    assert rcnn("init", data, "--out", out, "--overwrite").exit_code == 0
    assert "efficientnet_lite0_fpn" in out.read_text()


def test_init_names_data_that_are_not_there(error_of, tmp_path):
    assert "no such file or folder" in error_of("init", tmp_path / "none", "--out", tmp_path / "c")

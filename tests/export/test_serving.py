"""The folder of a server: versions, and its two files. No model is written here."""

import pytest
import yaml
from google.protobuf import text_format

import rcnn_keras.export.serving as module
from rcnn_keras.export.serving import serve


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Write a mark where a SavedModel would be."""

    def write(model, path, **options):
        if model == "broken":
            raise RuntimeError("cannot be written")
        path.mkdir(parents=True)
        (path / "saved_model.pb").write_text(repr(options))
        return path

    monkeypatch.setattr(module, "saved_model", write)


def config_of(root):
    config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    text = (root / "models.config").read_text()
    return text_format.Parse(text, config_pb2.ModelServerConfig())


def test_versions_follow_each_other(tmp_path):
    assert serve("model", tmp_path, "cells") == tmp_path / "cells" / "1"
    (tmp_path / "cells" / "9").mkdir()
    (tmp_path / "cells" / "notes").mkdir()
    assert serve("model", tmp_path, "cells", winograd=True) == tmp_path / "cells" / "10"
    assert (tmp_path / "cells/10/saved_model.pb").read_text() == "{'winograd': True}"


def test_configuration_names_every_model(tmp_path):
    for name in ("dogs", "cells", "cells"):
        serve("model", tmp_path, name)
    (tmp_path / "no model").mkdir()
    found = [
        (c.name, c.base_path, c.model_platform)
        for c in config_of(tmp_path).model_config_list.config
    ]
    assert found == [
        ("cells", "/models/cells", "tensorflow"),
        ("dogs", "/models/dogs", "tensorflow"),
    ]


def test_compose_file_serves_the_folder(tmp_path):
    serve("model", tmp_path, "cells")
    (service,) = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"].values()
    assert service["image"].startswith("tensorflow/serving:")
    assert service["volumes"] == [".:/models:ro"]
    assert "--model_config_file=/models/models.config" in service["command"].split()
    assert service["ports"] == ["8500:8500", "8501:8501"]


def test_what_was_written_by_hand_stays(tmp_path):
    serve("model", tmp_path, "cells")
    config, compose = tmp_path / "models.config", tmp_path / "compose.yaml"
    config.write_text(config.read_text() + "# two versions are kept\n")
    compose.write_text("services: {}\n")
    serve("model", tmp_path, "cells")
    assert config.read_text().endswith("are kept\n")
    assert compose.read_text() == "services: {}\n"
    with pytest.raises(
        FileExistsError, match=r"models\.config was written by hand: add the model d"
    ):
        serve("model", tmp_path, "dogs")
    assert not (tmp_path / "dogs").exists()


def test_a_failure_leaves_the_files_as_they_were(tmp_path):
    with pytest.raises(RuntimeError, match="cannot be written"):
        serve("broken", tmp_path, "cells")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "../up", "two words", ".hidden", "käse"])
def test_names_that_urls_do_not_take(name, tmp_path):
    with pytest.raises(ValueError, match="name must be letters, digits"):
        serve("model", tmp_path, name)

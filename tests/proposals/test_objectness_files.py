import json

import numpy as np
import pytest

from rcnn_keras.proposals import Objectness, objectness_windows, sample_windows
from rcnn_keras.proposals.objectness import Likelihoods


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)


@pytest.fixture
def objectness():
    rng = np.random.default_rng(1)
    contrast, density = (
        Likelihoods.fit(theta, rng.uniform(0.1, 1, 50), rng.uniform(0, 0.8, 200))
        for theta in (1.5, 2.0)
    )
    return Objectness(0.01, {"color_contrast": contrast, "edge_density": density})


def test_saved_parameters_are_loaded_unchanged(objectness, image, tmp_path):
    path = tmp_path / "objectness.json"
    objectness.save(path)
    objectness.save(path)  # over an older one
    assert [file.name for file in tmp_path.iterdir()] == ["objectness.json"]
    assert path.stat().st_size < 20_000
    loaded = Objectness.load(path)
    boxes = sample_windows(40, 50, 60)
    scores = objectness.score(image, boxes)
    np.testing.assert_array_equal(loaded.score(image, boxes), scores)
    from_path = objectness_windows(image, path, count=5, candidates=100)
    np.testing.assert_array_equal(from_path, objectness.propose(image, 5, candidates=100)[0])


def test_a_failed_save_keeps_the_older_file(objectness, tmp_path, monkeypatch):
    path = tmp_path / "objectness.json"
    objectness.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        objectness.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["objectness.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), "format 'other', not"),
        (lambda c: c.pop("format"), "format None"),
        (lambda c: c.pop("prior"), "prior or cues"),
        (lambda c: c.update(prior=1.5), r"prior must be between 0 and 1, not 1\.5"),
        (lambda c: c.update(prior="high"), "prior or cues.*high"),
        (lambda c: c.update(cues={}), "cues must be some of"),
        (lambda c: c.update(cues=[1]), "prior or cues"),
        (lambda c: c["cues"].update(taste=c["cues"]["edge_density"]), "taste"),
        (lambda c: c["cues"].update(edge_density=4), "cue 'edge_density'"),
        (lambda c: c["cues"]["edge_density"].pop("theta"), "'edge_density'.*theta"),
        (lambda c: c["cues"]["edge_density"].update(theta=-1), "theta must be .* not -1"),
        (lambda c: c["cues"]["edge_density"]["edges"].reverse(), "edges must increase"),
        (lambda c: c["cues"]["edge_density"].update(edges=[[1.0]]), "list of numbers"),
        (lambda c: c["cues"]["edge_density"]["object"].pop(), "object must have one number more"),
        (lambda c: c["cues"]["edge_density"].update(more=1), "'edge_density'.*more"),
        (
            lambda c: c["cues"]["edge_density"]["background"].__setitem__(0, 0.5),
            "background must be .* sum to 1",
        ),
    ],
)
def test_invalid_parameters_are_refused(objectness, tmp_path, change, message):
    path = tmp_path / "objectness.json"
    objectness.save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"objectness.json: .*{message}"):
        Objectness.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xd8\xff", b"[]", b"3"])
def test_files_of_another_kind_are_refused(content, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.jpg: is not a file of objectness"):
        Objectness.load(path)
    with pytest.raises(FileNotFoundError):
        Objectness.load(tmp_path / "none.json")

import numpy as np
import pytest

from rcnn_keras.parallel import Processes
from rcnn_keras.training.rcnn import features
from rcnn_keras.training.rcnn.features import FeatureCache, FeatureExtractor


@pytest.fixture
def cache(scenes, make_rcnn, tmp_path):
    cache = FeatureCache(tmp_path / "features", "a key", scenes[1][:3])
    model = make_rcnn(scenes[1].classes)
    assert cache.fill(model, print) == 3
    return cache, model


def test_the_cache_has_the_detectors_features_of_every_window(cache):
    cache, model = cache
    extract = FeatureExtractor(model)
    norms = {"pool5": [], "fc7": []}
    for index in range(len(cache)):
        fc7, windows = cache[index]
        assert isinstance(fc7, np.memmap)
        first = extract(cache.dataset[index], windows.boxes)
        np.testing.assert_allclose(fc7, first["fc7"][0, :-1], atol=1e-4)
        pool5, _, near = cache.near(index)
        np.testing.assert_array_equal(near, np.flatnonzero(windows.overlaps.max(axis=1) > 0.6))
        assert 0 < len(near) < len(windows)
        np.testing.assert_allclose(pool5, first["pool5"].numpy()[0, near], atol=1e-4)
        for name, found in norms.items():
            found += [np.linalg.norm(x) for x in first[name][0, :-1]]
    for name, found in norms.items():
        assert cache.scale(name) * np.mean(found) == pytest.approx(20, rel=1e-4)


def test_cached_features_are_not_computed_again(cache, monkeypatch):
    cache, model = cache
    path = cache.folder / f"{cache.dataset[1].image_id}_norms.npy"
    path.unlink()  # written last, so without it the image's features may be half there
    monkeypatch.setattr(features, "IMAGES_PER_LOG_LINE", 1)
    lines = []
    assert cache.fill(model, lines.append) == 1
    assert lines == ["features of 1 of 1 images"]
    assert cache.fill(None, print) == 0


def test_features_of_another_key_are_refused(cache):
    cache, _ = cache
    FeatureCache(cache.folder, "a key", cache.dataset)
    with pytest.raises(ValueError, match=r"other features .*: network and windows is"):
        FeatureCache(cache.folder, "another", cache.dataset)


@pytest.mark.slow
def test_workers_compute_the_same_features(cache, tmp_path):
    """Byte for byte among themselves; the sums of this process have another order."""
    here, model = cache
    folders = [tmp_path / "one", tmp_path / "two"]
    for workers, folder in enumerate(folders, start=1):
        there = FeatureCache(folder, "a key", here.dataset)
        assert there.fill(model, print, Processes(workers)) == 3
        assert not (folder / "model.keras").exists()
    for path in folders[0].glob("*.npy"):
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()
        expected = np.load(here.folder / path.name)
        np.testing.assert_allclose(np.load(path), expected, atol=1e-4, rtol=1e-4)

import numpy as np
import pytest

from rcnn_keras.training.rcnn import linear_models
from rcnn_keras.training.rcnn.features import Windows
from rcnn_keras.training.rcnn.linear_models import linear_svm, train_svms

pytest.importorskip("sklearn")

K, F, C = 3, 6, 0.01


def drawn_images(count=30, per_image=40, seed=0):
    """Noise, in which ground truth of class k has more of feature k."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        labels = np.concatenate([rng.integers(0, 2, 2), np.full(per_image, -1)])  # none of class 2
        features = rng.normal(0, 2, (len(labels), F)).astype("f4")
        features[np.arange(2), labels[:2]] += 6
        overlaps = np.zeros((len(labels), K), "f4")
        overlaps[np.arange(2), labels[:2]] = 1
        overlaps[2:, :2] = rng.uniform(0, 0.6, (per_image, 2))
        images.append((features, Windows(np.zeros((len(labels), 4)), labels, overlaps, labels)))
    return images


def all_examples(images, k):
    """Ground truth of a class, and whatever overlaps it by less than 0.3."""
    positives = np.concatenate([x[w.labels == k] for x, w in images])
    negatives = np.concatenate([x[w.overlaps[:, k] < 0.3] for x, w in images])
    return positives, negatives


def objective(positives, negatives, weights, bias):
    loss = 2 * np.maximum(0, 1 - positives @ weights - bias).sum()
    loss += np.maximum(0, 1 + negatives @ weights + bias).sum()
    return (weights @ weights + (bias / 10) ** 2) / 2 + C * loss


def test_the_svm_minimises_its_objective():
    """No step from the solution, small or large, makes the objective less."""
    examples = all_examples(drawn_images(), 0)
    weights, bias = linear_svm(*examples, C)
    least = objective(*examples, weights, bias)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for step in rng.normal(0, size, (50, F + 1)):
            assert objective(*examples, weights + step[:F], bias + 10 * step[F]) > least - 1e-6


@pytest.fixture(scope="module")
def mined():
    """Mining with retrainings every 60 negatives, so that there are many."""
    patch = pytest.MonkeyPatch()
    patch.setattr(linear_models, "NEGATIVES_PER_RETRAINING", 60)
    lines = []
    result = train_svms(drawn_images(), K, c=C, log=lines.append)
    patch.undo()
    return result, lines


def test_mining_ends_when_a_pass_finds_no_new_negatives(mined):
    result, lines = mined
    added = np.array([r["added"] for r in result.rounds])
    assert result.converged
    assert 2 <= len(added) < linear_models.MAX_PASSES
    assert np.all(added[:-1, :2].sum(axis=1) > 0)
    assert not added[-1].any()
    assert [r["images"] for r in result.rounds] == [30 * (i + 1) for i in range(len(added))]
    assert f"30 images seen, {added[0].sum()} hard negatives added" in lines[0]
    assert max(result.rounds[0]["retrainings"]) > 1


def test_the_mined_svms_equal_those_of_all_negatives(mined):
    result, _ = mined
    images = drawn_images()
    for k in (0, 1):
        positives, negatives = all_examples(images, k)
        weights, bias = linear_svm(positives, negatives, C)
        np.testing.assert_allclose(result.kernel[:, k], weights, atol=2e-3)
        np.testing.assert_allclose(result.bias[k], bias, atol=2e-3)
        # and only some of them were needed
        assert result.rounds[-1]["kept"][k] < 0.8 * len(negatives)


def test_a_class_without_ground_truth_is_never_predicted(mined):
    result, _ = mined
    assert not result.kernel[:, 2].any()
    assert result.bias[2] == linear_models.NEVER
    assert all(r["added"][2] == 0 for r in result.rounds)


def test_images_without_windows_are_accepted(mined):
    result, _ = mined
    empty = (
        np.zeros((0, F), "f4"),
        Windows(*(np.zeros((0, n)) for n in (4,)), np.zeros(0), np.zeros((0, K)), np.zeros(0)),
    )
    images = [empty, *drawn_images(), empty]
    found = train_svms(images, K, c=C, log=lambda line: None)
    np.testing.assert_allclose(found.kernel, result.kernel, atol=4e-3)


def test_passes_are_limited():
    found = train_svms(drawn_images(), K, c=C, log=lambda line: None, max_passes=1)
    assert len(found.rounds) == 1
    assert not found.converged


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        train_svms(drawn_images(), K, c=C, log=print)

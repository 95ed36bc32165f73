"""Detectors with seeded weights against torchvision's numbers, written by tools/parity/store.py."""

import json
from pathlib import Path

import cases
import compare
import numpy as np
import pytest
import seeded

HERE = Path(__file__).parent
STORED = cases.stored_cases()
FORWARD = [case for case in STORED if case.objects is None]
TRAINING = [case for case in STORED if case.objects is not None]


def each(cases):
    """Parametrise by model; eight wide convolutions for each detection take their time."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, marks=[slow] if case.model.startswith("keypoint") else [])
            for case in cases
        ],
        ids=lambda case: case.model,
    )


def theirs_of(case):
    suffix = "" if case.objects is None else "_losses"
    with np.load(HERE / f"{case.model}{suffix}.npz") as file:
        return {name: file[name] for name in file.files}


def ours_of(case, theirs):
    shapes = json.loads(str(theirs["shapes"]))
    return compare.build(case, seeded.seeded_state(shapes, case.seed, case.class_gain))


@each(FORWARD)
def test_every_stage_equals_torchvision(case):
    theirs = theirs_of(case)
    rows = compare.forward(case, ours_of(case, theirs), seeded, theirs)
    assert {row.stage: row.error for row in rows if not row.passed} == {}
    stages = {row.stage.split()[0] for row in rows}
    more = {f"{part}s" for part in ("mask", "keypoint") if case.model.startswith(part)}
    assert stages == more | {
        *("images", "features", "RPN", "anchors"),
        *("proposals", "boxes", "scores", "labels"),
    }
    assert len(theirs["boxes0"]) > 10
    assert len(theirs["boxes1"]) > 10


@each(TRAINING)
def test_losses_and_gradients_equal_torchvision(case):
    theirs = theirs_of(case)
    model = ours_of(case, theirs)
    losses, gradients = compare.losses_and_gradients(case, model, seeded)
    expected = {name: float(theirs[f"loss/{name}"]) for name in losses}
    assert len(losses) == sum(name.startswith("loss/") for name in theirs)
    assert losses == pytest.approx(expected, rel=compare.LOSSES)
    norms = {name: np.linalg.norm(gradient) for name, gradient in gradients.items()}
    expected = {name: float(theirs[f"norm/{name}"]) for name in norms}
    assert min(expected.values()) > 0
    assert norms == pytest.approx(expected, rel=compare.allowed_gradient(theirs))


CHANGES = {
    "features1": ("features 1", lambda x: x * 1.001),
    "deltas2": ("RPN deltas", lambda x: x * 1.001),
    "proposals0": ("proposals 0", lambda x: x + 0.1),
    "boxes0": ("boxes 0", lambda x: x[:-1]),
    "scores1": ("scores 1", lambda x: x + 2e-4),
    "labels1": ("labels 1", lambda x: np.where(np.arange(len(x)) == 3, 89, x)),
}


def test_changed_numbers_fail_the_comparison():
    case = FORWARD[0]
    theirs = theirs_of(case)
    changed = {name: change(theirs[name]) for name, (_, change) in CHANGES.items()}
    rows = compare.forward(case, ours_of(case, theirs), seeded, theirs | changed)
    failed = {row.stage for row in rows if not row.passed}
    assert failed >= {stage for stage, _ in CHANGES.values()}
    assert not failed & {"images", "features 0", "features 2", "RPN logits", "anchors"}


def test_only_ties_may_be_reordered():
    boxes = np.arange(16.0).reshape(4, 4)
    expected = {"boxes": boxes, "scores": np.array([0.9, 0.5 + 4e-6, 0.5, 0.4])}
    ours = {"boxes": boxes[[0, 2, 1, 3]]}
    order, note = compare._matched(ours, expected)
    np.testing.assert_array_equal(ours["boxes"][order], boxes)
    assert note == "4, 1 ties turned"
    expected["scores"] = np.array([0.9, 0.6, 0.5, 0.4])
    order, _ = compare._matched(ours, expected)
    np.testing.assert_array_equal(order, np.arange(4))


def test_a_tie_at_the_end_may_be_broken_either_way():
    boxes = np.arange(16.0).reshape(4, 4)
    expected = {"boxes": boxes, "scores": np.array([0.9, 0.6, 0.5 + 4e-6, 0.5])}
    ours = {"boxes": boxes + np.array([[0], [0], [0], [50]])}
    order, note = compare._matched(ours, expected)
    np.testing.assert_array_equal(order, [0, 1, 2])
    assert note == "4, 1 ties cut off"
    ours = {"boxes": boxes + np.array([[0], [50], [0], [0]])}
    order, _ = compare._matched(ours, expected)
    np.testing.assert_array_equal(order, np.arange(4))


def test_weights_depend_on_names_and_seeds():
    shapes = {"a.weight": (4, 3, 2, 2), "b.weight": (4, 3, 2, 2), "b.num_batches_tracked": ()}
    state = seeded.seeded_state(shapes, 1)
    assert not np.allclose(state["a.weight"], state["b.weight"])
    np.testing.assert_array_equal(
        state["b.weight"], seeded.seeded_tensor("b.weight", (4, 3, 2, 2), 1)
    )
    assert not np.allclose(state["a.weight"], seeded.seeded_state(shapes, 2)["a.weight"])
    assert state["b.num_batches_tracked"].dtype == np.int64

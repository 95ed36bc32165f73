import numpy as np
import pytest

from rcnn_keras.ops import grouped_nms, move_apart, nms, nms_loop, suppressors


def random_boxes(rng, *shape, low=-100, spread=100, largest=80):
    corner = low + rng.uniform(0, spread, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(0, largest, (*shape, 2))], -1).astype("f4")


def distinct_scores(rng, images, n):
    return rng.permuted(np.tile(np.arange(n), (images, 1)), axis=1).astype("float32") / n


def overlap(a, b):
    a, b = a.astype(float), b.astype(float)
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow_nms(boxes, scores, groups, threshold, max_output, score_threshold=-np.inf):
    """One image: box by box from the best, against all of its group that were kept."""
    kept = []
    for k in sorted(range(len(boxes)), key=lambda k: -scores[k]):
        rivals = [j for j in kept if groups[j] == groups[k]]
        if scores[k] > score_threshold and all(
            overlap(boxes[k], boxes[j]) <= threshold for j in rivals
        ):
            kept.append(k)
    return kept[:max_output]


def check(result, expected, max_output):
    """Compare indices and counts with a list of kept indices for each image."""
    indices, counts = result
    assert indices.shape == (len(expected), max_output)
    np.testing.assert_array_equal(counts, [len(kept) for kept in expected])
    padded = [kept + [0] * (max_output - len(kept)) for kept in expected]
    np.testing.assert_array_equal(indices, padded)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("max_output", [5, 200])
@pytest.mark.parametrize("seed", range(2))
def test_nms_is_that_of_loops(seed, threshold, max_output):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 2, 60), distinct_scores(rng, 2, 60)
    boxes[:, 10] = boxes[:, 11]  # copies
    boxes[:, 20:30, 3] = boxes[:, 20:30, 1]  # no area
    expected = [
        slow_nms(b, s, [0] * 60, threshold, max_output) for b, s in zip(boxes, scores, strict=True)
    ]
    check(nms(boxes, scores, threshold, max_output), expected, max_output)


AWKWARD = {
    "random": lambda rng, boxes, scores: None,
    "equal scores": lambda rng, boxes, scores: scores.__setitem__(slice(None), 0.5),
    "few scores": lambda rng, boxes, scores: scores.__setitem__(..., rng.integers(0, 3, 90) / 4),
    "no width": lambda rng, boxes, scores: boxes.__setitem__(
        (slice(None, None, 3), 2), boxes[::3, 0]
    ),
    "no area": lambda rng, boxes, scores: boxes.__setitem__((..., slice(2, 4)), boxes[:, :2]),
    "identical": lambda rng, boxes, scores: boxes.__setitem__(slice(30, None), boxes[0]),
    "whole pixels": lambda rng, boxes, scores: boxes.__setitem__(..., np.round(boxes / 20) * 20),
}


@pytest.mark.parametrize("awkward", AWKWARD)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_nms_is_the_readable_loop(awkward, threshold):
    """So is the slow one here, written apart from it; overlaps of exactly a half included."""
    rng = np.random.default_rng(5)
    boxes, scores = random_boxes(rng, 90), rng.permutation(90).astype("float32") / 90
    AWKWARD[awkward](rng, boxes, scores)
    for max_output, least in ((90, -np.inf), (7, 0.25)):
        kept = nms_loop(boxes, scores, threshold, max_output, least).tolist()
        assert kept == slow_nms(boxes, scores, [0] * 90, threshold, max_output, least)
        check(nms(boxes[None], scores[None], threshold, max_output, least), [kept], max_output)
    assert nms_loop(boxes, scores, threshold).tolist() == slow_nms(
        boxes, scores, [0] * 90, threshold, 90
    )


def test_the_readable_loop_by_hand():
    """IoUs of 0 with 1: 60/140 = 3/7; of 1 with 2 the same; 0 and 2 20/180."""
    boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]
    assert nms_loop(boxes, [0.9, 0.8, 0.7], 0.42).tolist() == [0, 2]
    assert nms_loop(boxes, [0.9, 0.8, 0.7], 0.43).tolist() == [0, 1, 2]
    assert nms_loop(boxes, [0.8, 0.9, 0.7], 0.42, score_threshold=0.7).tolist() == [1]
    nothing = nms_loop(np.zeros((0, 4)), np.zeros(0), 0.5)
    assert (nothing.shape, nothing.dtype) == ((0,), np.int32)


@pytest.mark.parametrize("row", range(3))
def test_nms_is_torchvisions(row, torchvision_numbers):
    stored = {k.split("/")[1]: v for k, v in torchvision_numbers.items() if k.startswith("nms/")}
    threshold = float(stored["thresholds"][row])
    inputs = stored["boxes"][None], stored["scores"][None]
    kept = [k for k in stored["kept"][row].tolist() if k >= 0]
    check(nms(*inputs, threshold, 80), [kept], 80)
    grouped = [k for k in stored["grouped"][row].tolist() if k >= 0]
    assert len(kept) < len(grouped) < 80
    check(grouped_nms(*inputs, stored["groups"], threshold, 80), [grouped], 80)


def test_only_an_overlap_above_the_threshold_suppresses():
    boxes = np.float32([[[0, 0, 8, 8], [0, 0, 8, 4], [8, 0, 16, 8], [8, 8, 16, 16]]])
    scores = np.float32([[0.9, 0.8, 0.7, 0.6]])
    check(nms(boxes, scores, 0.5, 4), [[0, 1, 2, 3]], 4)  # 0 and 1: exactly a half
    check(nms(boxes, scores, 0.499, 4), [[0, 2, 3]], 4)
    check(nms(boxes, scores, 0.0, 4), [[0, 2, 3]], 4)  # touching is not overlapping


def test_a_dropped_box_drops_no_other():
    boxes = np.float32([[[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]])
    check(nms(boxes, np.float32([[0.9, 0.8, 0.7]]), 0.3, 3), [[0, 2]], 3)
    check(nms(boxes, np.float32([[0.8, 0.9, 0.7]]), 0.3, 3), [[1]], 3)


def test_scores_up_to_the_threshold_are_left_out():
    boxes = random_boxes(np.random.default_rng(0), 1, 4, low=0, spread=0.1, largest=0.1)
    boxes += 10 * np.arange(4, dtype="float32")[:, None]  # apart
    scores = np.float32([[0.5, 0.25, 0.26, -3]])
    check(nms(boxes, scores, 0.5, 4, score_threshold=0.25), [[0, 2]], 4)
    check(nms(boxes, scores, 0.5, 4, score_threshold=0.9), [[]], 4)
    check(nms(boxes, scores, 0.5, 4), [[0, 2, 1, 3]], 4)
    scores[0, 0] = -np.inf
    check(nms(boxes, scores, 0.5, 4), [[2, 1, 3]], 4)


def test_a_thousand_equal_scores_are_taken_in_order():
    boxes = random_boxes(np.random.default_rng(1), 1, 1000, spread=800)
    scores = np.full((1, 1000), 0.5, "float32")
    expected = slow_nms(boxes[0], scores[0], [0] * 1000, 0.3, 300)
    assert expected == sorted(expected) != list(range(300))
    check(nms(boxes, scores, 0.3, 300), [expected], 300)


@pytest.mark.parametrize("run", [nms, lambda b, s, *rest: grouped_nms(b, s, s, *rest)])
def test_images_with_few_boxes_or_none_are_padded(run):
    for images, n in ((2, 0), (2, 1), (0, 3)):
        boxes, scores = np.ones((images, n, 4), "float32"), np.zeros((images, n), "float32")
        indices, counts = run(boxes, scores, 0.5, 6)
        np.testing.assert_array_equal(indices, np.zeros((images, 6)))
        np.testing.assert_array_equal(counts, [min(n, 1)] * images)


@pytest.mark.parametrize("low", [-500, -150, 0])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_groups_do_not_suppress_each_other(seed, shared, low):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 2, 80, low=low), distinct_scores(rng, 2, 80)
    groups = rng.integers(0, 7, 80) if shared else rng.integers(0, 7, (2, 80))
    by_image = np.broadcast_to(groups, (2, 80))
    for max_output in (10, 80):
        expected = [slow_nms(boxes[b], scores[b], by_image[b], 0.4, max_output) for b in range(2)]
        alone = [slow_nms(boxes[b], scores[b], [0] * 80, 0.4, max_output) for b in range(2)]
        assert expected != alone
        check(grouped_nms(boxes, scores, groups, 0.4, max_output), expected, max_output)


def test_equal_boxes_of_two_groups_both_stay():
    boxes = np.full((1, 4, 4), [-3, -3, 5, 5], "float32")
    scores = np.float32([[0.6, 0.9, 0.7, 0.8]])
    check(grouped_nms(boxes, scores, np.int32([0, 1, 1, 0]), 0.5, 4), [[1, 3]], 4)
    check(grouped_nms(boxes, scores, np.int32([0, 0, 0, 0]), 0.5, 4), [[1]], 4)
    above = grouped_nms(boxes, scores, np.int32([0, 1, 1, 0]), 0.5, 4, score_threshold=0.85)
    check(above, [[1]], 4)


def test_an_image_keeps_the_same_boxes_whatever_is_in_its_batch():
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(rng, 1, 50), distinct_scores(rng, 1, 50)
    groups = rng.integers(0, 20, 50)
    alone = grouped_nms(boxes, scores, groups, 0.3, 50)
    far = np.concatenate([boxes, boxes * 1e6])  # shifts as wide as these would round `boxes` away
    batch = grouped_nms(far, np.tile(scores, (2, 1)), groups, 0.3, 50)
    np.testing.assert_array_equal(batch[0][0], alone[0][0])
    assert batch[1][0] == alone[1][0]


@pytest.mark.parametrize("max_output", [7, 50])
def test_compiled_nms_is_the_eager_one(compiled, max_output):
    def run(boxes, scores, groups):
        kept = nms(boxes, scores, 0.5, max_output, 0.2)
        return *kept, *grouped_nms(boxes, scores, groups, 0.5, max_output)

    traced = compiled(
        run,
        ((None, None, 4), "float32"),
        ((None, None), "float32"),
        ((None, None), "int32"),
    )
    rng = np.random.default_rng(4)
    for images, n in ((2, 30), (1, 0)):
        boxes = random_boxes(rng, images, n)
        boxes[:, :9:2] = boxes[:, 1:10:2]  # copies
        boxes[:, 12:20, 2] = boxes[:, 12:20, 0]  # no area
        inputs = (
            boxes,
            distinct_scores(rng, images, n),
            rng.integers(0, 3, (images, n), dtype="int32"),
        )
        for got, expected in zip(traced(*inputs), run(*inputs), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("most", [5, 200])
def test_suppressors_are_the_first_of_those_kept_that_overlap_too_much(most):
    rng = np.random.default_rng(4)
    boxes, scores = random_boxes(rng, 1, 80), distinct_scores(rng, 1, 80)
    groups = rng.integers(0, 2, 80).astype("i4")
    index, count = grouped_nms(boxes, scores, groups, 0.4, most)
    kept = np.asarray(index)[0, : int(count[0])]
    apart = np.asarray(move_apart(boxes, groups))[0]
    by, overlaps = suppressors(apart, scores[0], kept, 0.4)
    np.testing.assert_array_equal(by[kept], kept)
    np.testing.assert_array_equal(overlaps[kept], 1)
    for i in set(range(80)) - set(kept.tolist()):
        rivals = [
            k
            for k in kept
            if scores[0, k] > scores[0, i]
            and groups[k] == groups[i]
            and overlap(boxes[0, k], boxes[0, i]) > 0.4
        ]
        assert by[i] == (rivals[0] if rivals else -1)
        if rivals:
            np.testing.assert_allclose(
                overlaps[i], overlap(boxes[0, by[i]], boxes[0, i]), atol=1e-4
            )
    assert (by == -1).any() == (most == 5)


def test_of_equal_scores_the_first_box_removes_the_others():
    boxes = np.array([[0, 0, 10, 10]] * 3, "f4")
    by, _ = suppressors(boxes, np.ones(3, "f4"), np.array([0]), 0.5)
    np.testing.assert_array_equal(by, [0, 0, 0])
    assert suppressors(boxes[:0], np.zeros(0, "f4"), np.zeros(0, "i4"), 0.5)[0].shape == (0,)

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import match, sample, stateless_uniform

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match_table(overlaps, *settings, **named):
    """`match` on a `(B, N, A)` table of overlaps."""
    overlaps = tf.convert_to_tensor(overlaps)
    return match(lambda n: tf.gather(overlaps, n, axis=1), *settings, **named)


def random_overlaps(rng, *shape):
    """Overlaps with the zeros and the ties of real ones."""
    overlaps = rng.uniform(-0.6, 1, shape).clip(0, 1)
    return np.round(overlaps, 1).astype("float32")


def slow_match(overlaps, valid, positive, negative, allow_low_quality_matches):
    """One image: candidate by candidate, box by box."""
    boxes, candidates = overlaps.shape
    matches, match_labels = np.zeros(candidates, int), np.full(candidates, NEGATIVE)
    for a in range(candidates):
        best = -1.0
        for n in range(boxes):
            if valid[n] and overlaps[n, a] > best:
                best, matches[a] = overlaps[n, a], n
        if best >= positive:
            match_labels[a] = POSITIVE
        elif best >= negative:
            match_labels[a] = IGNORED
    if allow_low_quality_matches:
        for n in range(boxes):
            top = max(overlaps[n])
            for a in range(candidates):
                if valid[n] and top > 0 and overlaps[n, a] == top:
                    match_labels[a] = POSITIVE
    return matches, match_labels


def slow_sample(match_labels, priorities, count, fraction):
    """One image: the best positives, the best negatives, padding."""
    order = sorted(range(len(match_labels)), key=lambda a: -priorities[a])
    positives = [a for a in order if match_labels[a] == POSITIVE][: int(count * fraction)]
    negatives = [a for a in order if match_labels[a] == NEGATIVE][: count - len(positives)]
    missing = count - len(positives) - len(negatives)
    sampled = [POSITIVE] * len(positives) + [NEGATIVE] * len(negatives) + [IGNORED] * missing
    return positives + negatives + [0] * missing, sampled


@pytest.mark.parametrize("allow_low_quality_matches", [False, True])
@pytest.mark.parametrize("thresholds", [(0.7, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("seed", range(3))
def test_match_is_that_of_loops(seed, thresholds, allow_low_quality_matches):
    rng = np.random.default_rng(seed)
    overlaps = random_overlaps(rng, 3, 5, 40)
    overlaps[0, 2] *= 0.4  # a box with no good candidate, one with none at all
    overlaps[1, 3] = 0
    valid = rng.uniform(size=(3, 5)) < 0.7
    valid[0, 2] = valid[1, 3] = True
    valid[2] = False
    matches, match_labels = match_table(overlaps, valid, *thresholds, allow_low_quality_matches)
    for b in range(3):
        slow_matches, slow_labels = slow_match(
            overlaps[b], valid[b], *thresholds, allow_low_quality_matches
        )
        np.testing.assert_array_equal(match_labels[b], slow_labels)
        if valid[b].any():
            np.testing.assert_array_equal(matches[b], slow_matches)


@pytest.mark.parametrize(
    ("name", "settings"), [("rpn", (0.7, 0.3, True)), ("head", (0.5, 0.5, False))]
)
def test_match_is_torchvisions(name, settings, torchvision_numbers):
    overlaps = torchvision_numbers["matcher/iou"]
    expected = torchvision_numbers[f"matcher/{name}"]
    matches, match_labels = match_table(
        overlaps[None], np.ones((1, len(overlaps)), bool), *settings
    )
    np.testing.assert_array_equal(
        match_labels[0], np.select([expected >= 0, expected == -1], [1, 0], -1)
    )
    matched = expected >= 0
    assert matched.sum() > 20
    np.testing.assert_array_equal(np.asarray(matches)[0, matched], expected[matched])


def test_thresholds_include_the_upper_and_exclude_the_lower():
    overlaps = np.float32([[[0.75, 0.7499, 0.25, 0.2499, 0]]])
    _, match_labels = match_table(overlaps, np.array([[True]]), 0.75, 0.25)
    np.testing.assert_array_equal(match_labels, [[POSITIVE, IGNORED, IGNORED, NEGATIVE, NEGATIVE]])


@pytest.mark.parametrize("allow_low_quality_matches", [False, True])
def test_without_valid_ground_truth_every_candidate_is_negative(allow_low_quality_matches):
    overlaps = np.ones((2, 3, 6), "float32")
    valid = np.array([[False, False, False], [False, True, False]])
    matches, match_labels = match_table(overlaps, valid, 0.7, 0.3, allow_low_quality_matches)
    np.testing.assert_array_equal(match_labels[0], [NEGATIVE] * 6)
    np.testing.assert_array_equal(match_labels[1], [POSITIVE] * 6)
    np.testing.assert_array_equal(matches[1], [1] * 6)
    assert (np.asarray(matches[0]) < 3).all()


def test_every_candidate_that_shares_the_best_overlap_is_forced():
    overlaps = np.float32([[[0.4, 0.4, 0.1, 0.39]]])
    _, match_labels = match_table(
        overlaps, np.array([[True]]), 0.7, 0.3, allow_low_quality_matches=True
    )
    np.testing.assert_array_equal(match_labels, [[POSITIVE, POSITIVE, NEGATIVE, IGNORED]])


def test_a_forced_candidate_keeps_the_box_that_it_overlaps_most():
    overlaps = np.float32([[[0.6, 0.9], [0.2, 0.0]]])  # box 1 has candidate 0 or none
    matches, match_labels = match_table(
        overlaps, np.array([[True, True]]), 0.7, 0.3, allow_low_quality_matches=True
    )
    np.testing.assert_array_equal(match_labels, [[POSITIVE, POSITIVE]])
    np.testing.assert_array_equal(matches, [[0, 0]])


def test_nothing_is_forced_on_a_box_that_nothing_overlaps():
    overlaps = np.zeros((1, 2, 4), "float32")
    _, match_labels = match_table(
        overlaps, np.array([[True, True]]), 0.7, 0.3, allow_low_quality_matches=True
    )
    np.testing.assert_array_equal(match_labels, [[NEGATIVE] * 4])


@pytest.mark.parametrize("count", [1, 8, 30, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("shares", [(0.1, 0.6), (0.8, 0.1), (0.0, 0.5), (0.5, 0.0), (0.0, 0.0)])
def test_sample_is_that_of_loops(count, fraction, shares):
    rng = np.random.default_rng(count)
    match_labels = rng.choice([1, 0, -1], (4, 40), p=[*shares, 1 - sum(shares)]).astype("int32")
    priorities = rng.permuted(np.tile(np.arange(40), (4, 1)), axis=1).astype("float32") / 40
    indices, sampled = sample(match_labels, priorities, count, fraction)
    assert indices.shape == sampled.shape == (4, count)
    for b in range(4):
        slow_indices, slow_labels = slow_sample(match_labels[b], priorities[b], count, fraction)
        np.testing.assert_array_equal(indices[b], slow_indices)
        np.testing.assert_array_equal(sampled[b], slow_labels)


def test_equal_priorities_take_the_first_and_a_priority_of_zero_counts():
    match_labels = np.int32([[-1, 0, 1, 0, 1, 0]])
    indices, sampled = sample(match_labels, np.zeros((1, 6), "float32"), 4, 0.25)
    np.testing.assert_array_equal(indices, [[2, 1, 3, 5]])
    np.testing.assert_array_equal(sampled, [[1, 0, 0, 0]])


@pytest.mark.parametrize("match_labels", [np.full((2, 7), IGNORED), np.zeros((2, 0))])
def test_nothing_to_sample_gives_padding(match_labels):
    match_labels = match_labels.astype("int32")
    indices, sampled = sample(match_labels, np.ones(match_labels.shape, "float32"), 5, 0.5)
    np.testing.assert_array_equal(indices, np.zeros((2, 5)))
    np.testing.assert_array_equal(sampled, np.full((2, 5), IGNORED))


def test_an_image_gets_the_same_sample_alone_or_in_a_batch():
    match_labels = np.random.default_rng(0).choice([1, 0, -1], (3, 200)).astype("int32")
    ids = np.int64([31, 5, 2**34])
    batch, _ = sample(match_labels, stateless_uniform(0, ids, 7, 200), 32, 0.5)
    for row in range(3):
        priorities = stateless_uniform(0, ids[row : row + 1], 7, 200)
        alone, _ = sample(match_labels[row : row + 1], priorities, 32, 0.5)
        np.testing.assert_array_equal(alone[0], batch[row])
    other_step, _ = sample(match_labels, stateless_uniform(0, ids, 8, 200), 32, 0.5)
    other_seed, _ = sample(match_labels, stateless_uniform(1, ids, 7, 200), 32, 0.5)
    assert len({np.asarray(draw).tobytes() for draw in (batch, other_step, other_seed)}) == 3


@pytest.mark.parametrize("by", ["image id", "step"])
def test_every_candidate_is_as_likely_as_the_others(by):
    match_labels = np.int32([1] * 12 + [-1] * 3 + [0] * 25)
    if by == "image id":
        priorities = stateless_uniform(0, np.arange(4000), 3, 40)
    else:
        rows = [stateless_uniform(0, np.int64([17]), step, 40) for step in range(500)]
        priorities = np.concatenate(rows)
    draws = len(priorities)
    indices, sampled = sample(np.tile(match_labels, (draws, 1)), priorities, 16, 0.25)
    indices, sampled = np.asarray(indices), np.asarray(sampled)
    np.testing.assert_array_equal(match_labels[indices], sampled)
    assert all(len(set(row)) == 16 for row in indices)
    counts = np.bincount(indices.ravel(), minlength=40)
    for kind, taken in ((POSITIVE, 4), (NEGATIVE, 12)):
        observed = counts[match_labels == kind]
        n = len(observed)
        share = taken / n
        # Draws without replacement: the counts' covariance has n - 1 equal eigenvalues.
        chi_square = ((observed - draws * share) ** 2).sum() / (draws * share * (1 - share))
        assert abs(chi_square * (n - 1) / n - (n - 1)) < 5 * np.sqrt(2 * (n - 1))
    assert counts[match_labels == IGNORED].sum() == 0


def test_compiled_matching_is_the_eager_one(compiled):
    def matching(overlaps, valid, priorities):
        matches, match_labels = match_table(
            overlaps, valid, 0.7, 0.3, allow_low_quality_matches=True
        )
        return matches, *sample(match_labels, priorities, 10, 0.5)

    rng = np.random.default_rng(2)
    traced = compiled(
        matching,
        ((None, None, None), "float32"),
        ((None, None), "bool"),
        ((None, None), "float32"),
    )
    for images, boxes, candidates in ((2, 4, 30), (1, 1, 1)):
        inputs = (
            random_overlaps(rng, images, boxes, candidates),
            np.ones((images, boxes), bool),
            rng.uniform(size=(images, candidates)).astype("float32"),
        )
        for got, expected in zip(traced(*inputs), matching(*inputs), strict=True):
            np.testing.assert_array_equal(got, expected)

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import top_k
from rcnn_keras.ops.nms import BLOCK

AWKWARD = {
    "random": lambda scores: scores,
    "all equal": lambda scores: scores * 0,
    "few values": lambda scores: np.round(scores * 3) / 3,
    "ascending": lambda scores: np.sort(scores),
    "descending": lambda scores: -np.sort(-scores),
    "mostly minus infinity": lambda scores: np.where(scores > 0.99, scores, -np.inf),
    "all in one block": lambda scores: scores + 10 * (np.arange(scores.shape[1]) // BLOCK == 3),
}


@pytest.mark.parametrize("awkward", AWKWARD)
@pytest.mark.parametrize(("n", "k"), [(1000, 7), (1003, 60), (333, 1), (64, 0)])
def test_blocks_find_what_sorting_all_finds(awkward, n, k):
    rng = np.random.default_rng(n)
    scores = AWKWARD[awkward](rng.uniform(size=(2, n))).astype("float32")
    for ours, theirs in zip(top_k(scores, k, "portable"), tf.math.top_k(scores, k), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("n", [0, 1, 9, 500])
def test_sizes_that_are_known_only_at_run_time(n):
    @tf.function(input_signature=[tf.TensorSpec((None, None))], autograph=False)
    def best(scores):
        return top_k(scores, tf.minimum(20, tf.shape(scores)[1]), "portable")

    scores = np.round(np.random.default_rng(0).normal(size=(3, n)), 1).astype("float32")
    for ours, theirs in zip(best(scores), tf.math.top_k(scores, min(n, 20)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_sort_of_portable_kernels_sees_all_scores():
    """At full size: 90,000 class scores, and the anchors of the finest level."""
    for n, k in ((90_000, 2048), (182_400, 1000)):
        run = tf.function(lambda x, k=k: top_k(x, k, "portable"), autograph=False)
        graph = run.get_concrete_function(tf.TensorSpec((1, n))).graph
        sorted_ = [op.inputs[0].shape[1] for op in graph.get_operations() if op.type == "TopKV2"]
        assert len(sorted_) == 3
        assert max(sorted_) < n / 5

import numpy as np
import pytest

from rcnn_keras.layers import FeaturePyramid

SHAPES = ((24, 16, 3), (12, 8, 4), (6, 4, 5), (3, 2, 6))  # of C2..C5 for an image of 96 x 64


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, *shape)).astype(np.float32) for shape in SHAPES]


def test_against_the_paper_step_by_step(features, reference):
    layer = FeaturePyramid(7)
    layer.build([f.shape for f in features])
    rng = np.random.default_rng(1)
    for conv in (*layer.lateral, *layer.output_convs):
        conv.kernel.assign(rng.normal(size=conv.kernel.shape))
        conv.bias.assign(rng.normal(size=conv.bias.shape))
    maps = layer(features)

    merged = None
    for level in (3, 2, 1, 0):
        lateral = layer.lateral[level]
        x = reference.conv(features[level], lateral.kernel, lateral.bias)
        if merged is not None:  # each position of the coarser map becomes a block of 2 x 2
            x += np.kron(merged, np.ones((1, 2, 2, 1)))
        merged = x
        output = layer.output_convs[level]
        expected = reference.conv(merged, output.kernel, output.bias)
        np.testing.assert_allclose(maps[level].numpy(), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(maps[4].numpy(), maps[3].numpy()[:, ::2, ::2])
    assert maps[4].shape == (2, 2, 1, 7)


def test_convolutions_have_the_names_that_their_levels_have_in_the_paper(features):
    layer = FeaturePyramid(7)
    layer.build([f.shape for f in features])
    assert [c.name for c in layer.lateral] == [f"lateral{k}" for k in (2, 3, 4, 5)]
    assert [c.name for c in layer.output_convs] == [f"output{k}" for k in (2, 3, 4, 5)]
    assert [c.kernel.shape for c in layer.lateral] == [(1, 1, c, 7) for c in (3, 4, 5, 6)]
    assert len(layer.trainable_variables) == 16


def test_computes_in_bfloat16(features, mixed_bfloat16):
    assert [x.dtype.name for x in FeaturePyramid(7)(features)] == ["bfloat16"] * 5

from rcnn_keras.comparison.published import FIGURES, SELECTIVE_SEARCH
from rcnn_keras.comparison.words import PAPER, QUOTED


def test_the_figures_that_everybody_quotes():
    assert QUOTED == {"R-CNN": 49.0, "Fast R-CNN": 2.3, "Faster R-CNN": 0.2}
    assert PAPER == {"R-CNN": 47.0, "Fast R-CNN": 0.32, "Fast R-CNN, truncated SVD": 0.22}
    assert [round(PAPER["R-CNN"] / s) for s in (0.32, 0.22)] == [147, 214]
    scores = {f.what: f.voc07 for f in FIGURES if f.voc07}
    assert scores == {
        "R-CNN": 66.0,
        "Fast R-CNN": 66.9,
        "Fast R-CNN, truncated SVD": 66.6,
        "Faster R-CNN": 69.9,
    }


def test_parts_add_up_to_the_whole():
    split = [f for f in FIGURES if f.features is not None]
    assert len(split) == 2
    for figure in split:
        parts = figure.proposals + figure.features + figure.regions
        assert abs(parts - figure.total) < 1e-9


def test_selective_search():
    rows = [(s.mode, s.recall, s.boxes, s.seconds) for s in SELECTIVE_SEARCH]
    assert rows == [("fast", 0.980, 2134, 3.79), ("quality", 0.991, 10097, 17.15)]

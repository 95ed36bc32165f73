from rcnn_keras.comparison.page import FAST, FIGURES, QUOTED, SELECTIVE_SEARCH


def test_the_figures_that_everybody_quotes():
    quoted = {f.what: f.total for f in FIGURES if f.source == QUOTED}
    assert quoted == {"R-CNN": 49.0, "Fast R-CNN": 2.3, "Faster R-CNN": 0.2}
    paper = {f.what: f.total for f in FIGURES if f.source == FAST}
    assert paper == {"R-CNN": 47.0, "Fast R-CNN": 0.32, "Fast R-CNN, truncated SVD": 0.22}
    assert [round(paper["R-CNN"] / s) for s in (0.32, 0.22)] == [147, 214]
    scores = {f.what: f.voc07 for f in FIGURES if f.voc07}
    assert scores == {
        "R-CNN": 66.0,
        "Fast R-CNN": 66.9,
        "Fast R-CNN, truncated SVD": 66.6,
        "Faster R-CNN": 69.9,
    }


def test_parts_add_up_to_the_total():
    split = [f for f in FIGURES if f.features is not None]
    assert len(split) == 2
    for figure in split:
        parts = figure.proposals + figure.features + figure.regions
        assert abs(parts - figure.total) < 1e-9


def test_selective_search():
    fast, quality = (tuple(figures.values()) for figures in SELECTIVE_SEARCH.values())
    assert fast == (0.980, 2134, 3.79)
    assert quality == (0.991, 10097, 17.15)

"""`detect` for long: how often it traces, what it keeps, and what is left of it."""

import gc
import itertools
import os
import threading

import keras
import numpy as np
import pytest
from tensorflow.python.framework import func_graph

DESCRIPTORS = "/proc/self/fd"


@pytest.fixture
def traced(monkeypatch):
    """The names of the graphs that TensorFlow makes of Python functions from now on."""
    names, make = [], func_graph.func_graph_from_py_func

    def noted(name, *args, **kwargs):
        names.append(name)
        return make(name, *args, **kwargs)

    monkeypatch.setattr(func_graph, "func_graph_from_py_func", noted)
    return names


@pytest.mark.skipif(not os.path.isdir(DESCRIPTORS), reason="counts open files as Linux lists them")
def test_images_of_all_sizes_run_through_one_graph(make_detector, scenes, traced):
    model = make_detector(scenes.classes, box_score_thresh=0.0)
    draw = np.random.default_rng(0)
    sizes = itertools.product((40, 64, 97), (33, 64, 130))
    images = [draw.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    found = model.detect(images[0])
    assert model.predict_function.experimental_get_tracing_count() == 1
    traced.clear()
    gc.collect()
    threads, files = threading.active_count(), len(os.listdir(DESCRIPTORS))
    for image in images:
        found += model.detect(image)
    found += model.detect(images, batch_size=2)
    found += model.detect([record.path for record in scenes], batch_size=3)
    assert traced == []
    assert len(found) == 1 + 9 + 9 + len(scenes)
    assert threading.active_count() == threads
    assert len(os.listdir(DESCRIPTORS)) == files


def test_detect_each_yields_what_detect_returns(detector, scenes):
    together = detector.detect(scenes, batch_size=2)
    stream = detector.detect_each(scenes, batch_size=2)
    assert iter(stream) is stream
    for one, expected in zip(stream, together, strict=True):
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(one, name), getattr(expected, name))


def test_images_are_read_lazily(detector, scenes, monkeypatch):
    calls = []
    plain = keras.Model.predict_on_batch
    monkeypatch.setattr(
        keras.Model, "predict_on_batch", lambda model, x: calls.append(1) or plain(model, x)
    )
    stream = detector.detect_each(scenes)
    assert calls == []
    next(stream)
    assert calls == [1]
    stream.close()

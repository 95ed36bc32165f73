"""What stays of a model that is no longer used."""

import gc
import weakref

import keras
import pytest
from tensorflow.python.framework.func_graph import FuncGraph

ARCHITECTURES = {
    "pyramid": {"recompute_stages": 1},
    "one map": {"backbone": "resnet18", "anchor_sizes": ((16, 32),)},
}


@pytest.mark.slow  # several trainings
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_trained_model_is_freed(make_detector, scenes, name):
    arguments = ARCHITECTURES[name]

    def graphs_after_a_model():
        model = make_detector(scenes.classes, **arguments)
        model.compile(keras.optimizers.SGD(0.001))
        model.fit(scenes.batches(2), steps_per_epoch=1, verbose=0)
        model.detect([record.image for record in scenes[:1]])
        reference = weakref.ref(model)
        del model
        keras.backend.clear_session()
        gc.collect()
        assert reference() is None
        return sum(isinstance(o, FuncGraph) for o in gc.get_objects())

    first = graphs_after_a_model()  # with what TensorFlow keeps once for the whole process
    assert graphs_after_a_model() <= first

"""A model trains and scores on record files as on the image files."""

import keras
import numpy as np
import pytest

from rcnn_keras.data.augmentation import RandomFlip
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.data.tfrecord import load_tfrecord, save_tfrecord
from rcnn_keras.models import MaskRCNN
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import check_images, read_data
from rcnn_keras.training.callbacks import CocoEvaluation


@pytest.fixture(scope="module")
def sets(tmp_path_factory, in_process):
    folder = tmp_path_factory.mktemp("sets")
    files = draw_shapes(4, size=(64, 64), out=folder / "images")
    return (
        folder,
        files,
        save_tfrecord(files, folder / "records", shard_size=2, engine=in_process()),
    )


def test_a_run_trains_on_the_configured_record_files(sets, small_arguments, tmp_path, capsys):
    folder, files, _ = sets
    config = tmp_path / "config.yaml"
    model = {**small_arguments, "architecture": "faster_rcnn"}
    config.write_text(
        f"model: {model}\n"
        f"data: {{format: records, train: {{root: {folder}/records}}, "
        f"val: [{{root: {folder}/records}}], classes: [star, circle]}}\n"
        "optimizer: {name: sgd, learning_rate: 0.01}\n"
        "training: {epochs: 1}\n"
    )
    train, val = read_data(load_configuration(config).data)
    expected = files.with_classes(["star", "circle"])
    assert train.to_coco()["annotations"] == expected.to_coco()["annotations"]
    assert train.classes == val.classes == ("star", "circle")
    check_images(train, val)
    assert "checking 8 images" in capsys.readouterr().out


@pytest.mark.slow
def test_fit_and_scores_equal_those_of_the_image_files(sets, small_arguments):
    _, files, records = sets
    histories = []
    for dataset in (files, records):
        keras.utils.set_random_seed(0)
        model = MaskRCNN(classes=dataset.classes, **small_arguments)
        model.compile(keras.optimizers.SGD(0.01))
        history = model.fit(
            dataset.batches(2, shuffle=True, augment=RandomFlip()),
            epochs=2,
            validation_data=dataset.batches(2),
            callbacks=[CocoEvaluation(dataset)],
            verbose=0,
        )
        histories.append(history.history)
    assert histories[0].keys() == histories[1].keys() >= {"mask_loss", "val_mask_AP"}
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)


def test_loaded_record_files_equal_the_dataset(sets):
    folder, _, records = sets
    assert load_tfrecord(folder / "records").to_coco() == records.to_coco()

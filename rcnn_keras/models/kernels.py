"""One detector on the kernels of TensorFlow, or on those that every runtime has."""

from rcnn_keras.models.detector import Detector


def with_kernels(model: Detector, kernels: str) -> Detector:
    """Return a copy of a detector that computes the same with other kernels.

    | | `"native"` | `"portable"` |
    | --- | --- | --- |
    | RoIAlign, R-CNN's crops | `crop_and_resize`, level by level | gathers from one table |
    | RoIPool | tables of maxima, as many as the RoIs need | all tables beforehand |
    | mask branch, R-CNN's network | on what is no padding | on padding too |
    | NMS | `NonMaxSuppressionV4` | the same, on boxes sorted before |
    | runs on | TensorFlow: training, CPU, SavedModel | also XLA, LiteRT, ONNX, OpenVINO |

    Args:
        model: the detector, which stays as it is.
        kernels: `"native"` or `"portable"`.

    Returns:
        A detector of the same class with the same weights.

    Raises:
        ValueError: for other kernels.
    """
    copy = type(model).from_config(model.get_config() | {"kernels": kernels})
    copy.set_weights(model.get_weights())
    return copy

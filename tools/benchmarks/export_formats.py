"""Compare the forms in which a trained detector can be delivered.

    python tools/benchmarks/export_formats.py runs/demo/best.keras \\
        --data runs/demo/data/val/annotations.json --calibrate runs/demo/data/train
    python tools/benchmarks/export_formats.py blood_cells --data test.json --calibrate train/ \\
        --forms saved_model float32 int8 onnx

Every form sees the same images, resized as `Detector.detect` resizes them and padded to the size of
the files, one at a time on `--threads` threads, in a process of its own that imports no more than
the form needs; a SavedModel sees the files' own pixels, which it resizes itself and does not round
to whole numbers then, as the input of the others is. Seconds are the median over the images, of the
call alone, after two calls more; memory is the peak of the process.
Boxes are compared with those of LiteRT in float32: each of its detections above 0.5 with the
nearest of the same class, if one overlaps it by half. AP is that of COCO, in pixels of the files.

Of the SavedModel the time of a batch of 8 images is printed too, and the largest difference in
what the batch and 8 calls give. Images of one size are batched; the rest of a size is left out.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LITERT = {"float32": None, "float16": "float16", "dynamic": "dynamic", "int8": "int8"}
FILES = {"keras": "model.keras", "saved_model": "saved_model"}
FILES |= {"onnx": "model.onnx", "openvino": "model.xml"} | {k: f"{k}.tflite" for k in LITERT}
NAMES = {"keras": "Keras", "saved_model": "SavedModel", "onnx": "ONNX", "openvino": "OpenVINO"}
FORMS = ("keras", "saved_model", *LITERT, "onnx", "openvino")
BATCH = 8


def main() -> None:
    """Read the command line; write the files, run each, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .keras file, or a name that `rcnn presets` lists")
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON to score on")
    parser.add_argument("--images", type=Path, help="folder of its images")
    parser.add_argument("--calibrate", type=Path, help="folder of images for int8")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS[: 2 + len(LITERT)])
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="of the files")
    parser.add_argument("--limit", type=int, help="score on the first so many images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/export"))
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        return STEPS.get(args.step, measure)(args)
    if "int8" in args.forms and not args.calibrate:
        parser.error("int8 needs --calibrate")
    args.out.mkdir(parents=True, exist_ok=True)
    for step in ("prepare", *args.forms, "table"):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--step", step], check=True)


def prepare(args: argparse.Namespace) -> None:
    """Write the files, and the images as they take them."""
    from rcnn_keras.export.fixed_size import checked_size, letterboxed
    from rcnn_keras.export.litert import litert
    from rcnn_keras.export.onnx_openvino import onnx, openvino
    from rcnn_keras.models import from_preset

    model = from_preset(args.model)
    if "keras" in args.forms:
        model.save(args.out / FILES["keras"])
    if "saved_model" in args.forms:
        model.export(args.out / FILES["saved_model"], overwrite=True)
    size = checked_size(model, args.size)
    write = {"size": size, "overwrite": True}
    for form in args.forms:
        path = args.out / FILES.get(form, "")
        if form in LITERT:
            calibrate = args.calibrate if form == "int8" else None
            litert(model, path, quantize=LITERT[form], calibrate=calibrate, **write)
        elif form in ("onnx", "openvino"):
            {"onnx": onnx, "openvino": openvino}[form](model, path, **write)
    records = list(dataset_of(args))[: args.limit]
    images = [letterboxed(record.path, model, size) for record in records]
    np.save(args.out / "images.npy", np.concatenate([image for image, _ in images]))
    np.save(args.out / "scales.npy", np.array([scale for _, scale in images]))


def dataset_of(args: argparse.Namespace):
    """Load the images to score on."""
    from rcnn_keras.data import load_coco

    return load_coco(args.data, args.images)


def measure(args: argparse.Namespace) -> None:
    """Run one form on all images."""
    images = images_of(args)
    detect = RUNNERS.get(args.step, litert_runner)(args)
    for _ in range(2):
        detect(images[0][None])
    seconds, found = [], []
    for image in images:
        taken, outputs = timed(detect, image[None])
        seconds.append(taken)
        found.append({name: value[0] for name, value in outputs.items()})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    more = measure_batches(detect, images, found) if args.step == "saved_model" else {}
    stacked = {name: np.stack([one[name] for one in found]) for name in found[0]}
    if args.step == "saved_model":  # from pixels of the files to those of the other forms' input
        stacked["boxes"] /= np.tile(np.load(args.out / "scales.npy"), 2)[:, None]
    np.savez(
        args.out / f"{args.step}.npz",
        seconds=statistics.median(seconds),
        memory=memory,
        **stacked,
        **more,
    )


def images_of(args: argparse.Namespace):
    """Return the images that a form takes, `(H, W, 3)` uint8 each."""
    if args.step != "saved_model":
        return np.load(args.out / "images.npy", mmap_mode="r")
    from rcnn_keras.data import read_image

    return [read_image(record.path) for record in list(dataset_of(args))[: args.limit]]


def timed(detect, images):
    """Return the seconds of a call, and what it found as arrays."""
    images = np.array(images)
    start = time.perf_counter()
    outputs = detect(images)
    seconds = time.perf_counter() - start
    return seconds, {name: np.array(value) for name, value in outputs.items()}


def measure_batches(detect, images, found) -> dict[str, float]:
    """Return the seconds of a batch, and how far its boxes and scores are from single calls'."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for k, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(k)
    batches = [of[k : k + BATCH] for of in sizes.values() for k in range(0, len(of), BATCH)]
    batches = [batch for batch in batches if len(batch) == BATCH]
    if not batches:
        return {}
    detect(np.stack([images[k] for k in batches[0]]))
    seconds, apart = [], {"boxes": 0.0, "scores": 0.0}
    for batch in batches:
        taken, outputs = timed(detect, np.stack([images[k] for k in batch]))
        seconds.append(taken)
        for place, k in enumerate(batch):
            count = found[k]["num_detections"]
            assert outputs["num_detections"][place] == count
            for name, most in apart.items():
                difference = np.abs(outputs[name][place, :count] - found[k][name][:count])
                apart[name] = difference.max(initial=most)
    return {
        "batch_seconds": statistics.median(seconds),
        "batch_pixels": apart["boxes"],
        "batch_scores": apart["scores"],
    }


def keras_runner(args: argparse.Namespace):
    """The model itself, its batch norms folded, in a graph."""
    import keras
    import tensorflow as tf

    from rcnn_keras.models import fold_batchnorm

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = fold_batchnorm(keras.models.load_model(args.out / FILES["keras"], compile=False))
    return tf.function(lambda images: model(images, training=False), autograph=False)


def saved_model_runner(args: argparse.Namespace):
    """The signature `serving_default` of a folder."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(str(args.out / FILES["saved_model"]))

    def detect(images):
        return loaded.signatures["serving_default"](images=tf.constant(images))

    return detect


def litert_runner(args: argparse.Namespace):
    """A LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(args.out / FILES[args.step]), num_threads=args.threads)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    return lambda images: runner(images=images)


def onnx_runner(args: argparse.Namespace):
    """An ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(str(args.out / FILES["onnx"]), options)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def openvino_runner(args: argparse.Namespace):
    """An OpenVINO model in float32; by default it computes in bfloat16 where the CPU can."""
    import openvino

    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": args.threads}
    model = openvino.Core().compile_model(args.out / FILES["openvino"], "CPU", how)
    names = [output.get_any_name() for output in model.outputs]

    def detect(images):
        outputs = model({"images": images})
        return {name: outputs[name] for name in names}

    return detect


def table(args: argparse.Namespace) -> None:
    """Score what every form found, and print."""
    from rcnn_keras.data.detections import Detections
    from rcnn_keras.evaluation.coco import CocoScores

    dataset = dataset_of(args)
    dataset = dataset[: args.limit] if args.limit else dataset
    scales = np.load(args.out / "scales.npy")
    results = {form: dict(np.load(args.out / f"{form}.npz")) for form in args.forms}
    reference = results.get("float32", results[args.forms[0]])
    kinds = ("bbox", "segm") if "masks" in reference else ("bbox",)
    header = ["form", "MB", "ms", "of float32", "peak MB", "largest difference, px", "matched"]
    rows = [header + [{"bbox": "AP", "segm": "mask AP"}[kind] for kind in kinds]]
    for form, found in results.items():
        detections = {}
        for k, record in enumerate(dataset):
            count = int(found["num_detections"][k])
            detections[record.image_id] = Detections(
                boxes=found["boxes"][k, :count] * np.tile(scales[k], 2).astype("float32"),
                scores=found["scores"][k, :count],
                labels=found["labels"][k, :count],
                classes=dataset.classes,
                image_size=(record.height, record.width),
                masks=found["masks"][k, :count] if "masks" in found else None,
            )
        farthest, matched = differences(reference, found)
        aps = [CocoScores(dataset, detections, kind=kind).summary()["AP"] for kind in kinds]
        row = [NAMES.get(form, f"LiteRT {form}"), f"{size_of(args, form) / 1e6:.1f}"]
        row += [f"{found['seconds'] * 1e3:.0f}"]
        row += [f"{found['seconds'] / reference['seconds']:.2f}", f"{found['memory'] / 1e6:.0f}"]
        row += [f"{farthest:.2g}", f"{matched:.1%}", *(f"{100 * ap:.2f}" for ap in aps)]
        rows.append(row)
    rows.insert(1, ["---"] * len(rows[0]))
    print(f"{len(dataset)} images, {args.threads} threads, {platform.machine()}\n")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    served = results.get("saved_model", {})
    if "batch_seconds" in served:
        print(
            f"\nSavedModel, {BATCH} images a call: {served['batch_seconds'] * 1e3:.0f} ms, one by "
            f"one {served['seconds'] * BATCH * 1e3:.0f} ms; largest difference "
            f"{served['batch_pixels']:.2g} px, {served['batch_scores']:.2g} in score"
        )
    (args.out / "table.json").write_text(json.dumps(rows, indent=1))


def size_of(args: argparse.Namespace, form: str) -> int:
    """Return the bytes of a form's files."""
    path = args.out / FILES[form]
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if form == "openvino" else 0)


def differences(reference: dict, found: dict, score: float = 0.5) -> tuple[float, float]:
    """Return how far boxes lie from the reference's, in pixels, and the share that was found."""
    farthest, matched, total = 0.0, 0, 0
    for k in range(len(reference["num_detections"])):
        count = found["num_detections"][k]
        boxes, labels = found["boxes"][k, :count], found["labels"][k, :count]
        for n in range(reference["num_detections"][k]):
            if reference["scores"][k, n] < score:
                continue
            box = reference["boxes"][k, n]
            total += 1
            rivals = boxes[labels == reference["labels"][k, n]]
            overlaps = overlap(box, rivals)
            if len(rivals) and overlaps.max() >= 0.5:
                matched += 1
                farthest = max(farthest, float(np.abs(rivals[overlaps.argmax()] - box).max()))
    return farthest, matched / max(total, 1)


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of a box `(4,)` with others `(n, 4)`."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.maximum(high - low, 0).prod(axis=1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1)
    return both / np.maximum(areas - both, 1e-9)


STEPS = {"prepare": prepare, "table": table}
RUNNERS = {
    "keras": keras_runner,
    "saved_model": saved_model_runner,
    "onnx": onnx_runner,
    "openvino": openvino_runner,
}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()

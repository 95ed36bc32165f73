"""Detect objects with a LiteRT file: needs numpy, Pillow and ai-edge-litert alone.

python examples/detect_litert.py model.tflite photo.jpg found.png
"""

import argparse
import json
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw, ImageOps


def main(model: str, photo: str, picture: str, min_score: float = 0.5) -> None:
    """Draw what is found in a photo."""
    with zipfile.ZipFile(model) as archive:  # the file is a model and an archive at once
        classes = archive.read("labels.txt").decode().splitlines()
        about = json.loads(archive.read("detector.json"))
    image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    (height, width), padding = about["size"], tuple(about["padding"])
    scale = min(height / image.height, width / image.width)
    if about["min_size"]:
        sides = image.size
        scale = min(scale, about["min_size"] / min(sides), about["max_size"] / max(sides))
    small = image.resize(
        [max(1, int(side * scale)) for side in image.size], Image.Resampling.BILINEAR
    )
    canvas = Image.new("RGB", (width, height), padding)
    canvas.paste(small)

    interpreter = Interpreter(model)
    interpreter.allocate_tensors()
    found = interpreter.get_signature_runner()(images=np.asarray(canvas)[None])

    draw = ImageDraw.Draw(image)
    back = np.tile(np.divide(image.size, small.size), 2)
    for k in range(found["num_detections"][0]):
        name, score = classes[found["labels"][0, k]], found["scores"][0, k]
        if score >= min_score:
            box = (found["boxes"][0, k] * back).tolist()
            draw.rectangle(box, outline="red", width=2)
            draw.text(box[:2], f"{name} {score:.2f}", fill="red")
            print(name, f"{score:.3f}", *(f"{value:.1f}" for value in box))
    image.save(picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "photo", "picture"):
        parser.add_argument(name)
    main(**vars(parser.parse_args()))

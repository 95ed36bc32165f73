"""The names behind the 91 class outputs of models trained on COCO by torchvision.

COCO numbers its 80 categories from 1 to 90 and leaves ten numbers out; models that predict the
numbers themselves have outputs for those as well.
"""

from rcnn_keras.data.coco import VACANT

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, , stop sign, parking meter, bench, bird, cat, dog, horse, sheep,
cow, elephant, bear, zebra, giraffe, , backpack, umbrella, , ,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
skateboard, surfboard, tennis racket, bottle, , wine glass, cup, fork, knife, spoon,
bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, , dining table, , , toilet,
, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
sink, refrigerator, , book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""

COCO_CLASSES = tuple(
    name.strip() or f"{VACANT} {number}" for number, name in enumerate(_NAMES.split(","), start=1)
)

"""What each paper's detector is made of, a line for each part."""

NAMES = ("R-CNN", "Fast R-CNN", "Faster R-CNN", "Mask R-CNN")

# In the order of NAMES: Girshick et al. 2014, Girshick 2015, Ren et al. 2015, He et al. 2017.
ARCHITECTURES = {
    "proposals": (
        "selective search, up to 2,000",
        "selective search, up to 2,000",
        "region proposal network on the same features, 300",
        "region proposal network on a feature pyramid, 1,000",
    ),
    "features": (
        "a whole network for every proposal",
        "convolutions once an image",
        "convolutions once an image, shared with the proposals",
        "convolutions and pyramid once an image, shared with the proposals",
    ),
    "pooling": (
        "none: the proposal is cut out of the image with 16 pixels of context and warped",
        "RoIPool, 7x7",
        "RoIPool, 7x7",
        "RoIAlign, 7x7, and 14x14 for masks",
    ),
    "classifier": (
        "one linear SVM a class on fc7",
        "softmax over classes and background",
        "softmax over classes and background",
        "softmax over classes and background",
    ),
    "box regression": (
        "ridge regression on pool5, one a class",
        "a layer beside the softmax, smooth L1",
        "twice: anchors in the proposal network, proposals in the head",
        "as Faster R-CNN",
    ),
    "masks": (
        "none",
        "none",
        "none",
        "four convolutions on each detection, 28x28 a class, a sigmoid a pixel",
    ),
    "stages of training": (
        "three: fine-tuning, SVMs on features that are kept on disk, box regression",
        "one, with one loss of two terms; proposals are found beforehand",
        "one (four losses at once), or the paper's four alternating steps",
        "one, with five losses",
    ),
}

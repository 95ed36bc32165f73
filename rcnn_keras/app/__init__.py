"""A page in the browser to try detectors."""

from rcnn_keras.app.page import (
    build_page,
    detect_candidates,
    filter_candidates,
    require_gradio,
    return_candidates,
    serve,
)

__all__ = [
    "build_page",
    "detect_candidates",
    "filter_candidates",
    "require_gradio",
    "return_candidates",
    "serve",
]

"""A page in the browser to try detectors."""

from rcnn_keras.app.candidates import detect_candidates, filter_candidates, return_candidates
from rcnn_keras.app.page import build_page, require_gradio, serve

__all__ = [
    "build_page",
    "detect_candidates",
    "filter_candidates",
    "require_gradio",
    "return_candidates",
    "serve",
]

"""A page in the browser to try detectors on."""

from rcnn_keras.app.candidates import found_in, give_candidates, shown
from rcnn_keras.app.page import build_page, require_gradio, serve

__all__ = ["build_page", "found_in", "give_candidates", "require_gradio", "serve", "shown"]

"""Helpers for every room. They know nothing of detection, and need no TensorFlow."""

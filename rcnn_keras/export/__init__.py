"""Trained detectors as files for programs that know nothing of this package."""

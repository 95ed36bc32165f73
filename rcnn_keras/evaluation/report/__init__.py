"""Reports on trained detectors: one HTML page beside its plots and pictures."""

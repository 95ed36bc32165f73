"""Programs that were written for other projects, on this package's models."""

"""From a YAML file to a run folder: configuration, training, scoring, and workers."""

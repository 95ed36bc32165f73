"""From a YAML file to a run folder: configuration, training, scores and report."""

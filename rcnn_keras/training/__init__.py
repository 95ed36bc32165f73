"""Training from a configuration: optimizers, schedules, callbacks and the run itself."""

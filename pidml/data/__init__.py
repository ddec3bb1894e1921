"""Track tables in, training, validation and test samples out."""

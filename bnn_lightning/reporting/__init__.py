"""What a run shows: tables, files, figures, TensorBoard."""

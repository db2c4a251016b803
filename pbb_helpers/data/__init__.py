"""What a model is shown and asked: documents, conditions, stages, and the check that nothing leaks. Needs no torch."""

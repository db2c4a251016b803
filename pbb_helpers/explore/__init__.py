"""The panels of the notebook explore."""

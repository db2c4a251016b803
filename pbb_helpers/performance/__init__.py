"""What notebook 90 measures, side by side in one run."""

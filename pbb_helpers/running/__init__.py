"""Notebooks executed by papermill, one or a sweep, here or on Slurm, with a record that tells the truth after a kill."""

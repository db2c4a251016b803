"""What the notebooks run: conditions x seeds to one table, in profiles from seconds to hours."""

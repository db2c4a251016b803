"""Reports, their index, what is recorded in figures/ and README, and what is published or mailed."""

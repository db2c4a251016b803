"""Figures with n, interval, floor and ceiling, in one theme, each saved with its data and provenance."""

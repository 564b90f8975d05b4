"""Optimizers and learning-rate schedules, and their configs."""

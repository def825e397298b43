"""Floor 2: how weights move. Optimizers, their parameter groups, and learning-rate schedules."""

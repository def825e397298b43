"""Floor 3: what a model is worth, and what it says."""

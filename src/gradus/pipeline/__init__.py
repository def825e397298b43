"""Floor 4: from a recipe to finished stages."""

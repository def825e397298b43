"""Floor 0: the words everyone uses. Imports nothing of the house."""

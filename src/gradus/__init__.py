"""Gradus trains language models step by step: from raw text to a task model, in one recipe."""

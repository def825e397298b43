"""Worked examples for the documentation, printed by the code itself."""

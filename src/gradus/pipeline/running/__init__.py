"""Stages as they run: from starting weights to a finished folder, whatever happens in between."""

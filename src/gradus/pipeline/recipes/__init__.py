"""What a user may write, how it is read, and what of it cannot be."""

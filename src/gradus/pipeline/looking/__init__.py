"""A look at a user's files, and the recipe that is written for them."""

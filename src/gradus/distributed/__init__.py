"""Floor 1: how many processes there are and what they compute on."""

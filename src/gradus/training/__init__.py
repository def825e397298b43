"""Floor 3: one loop for every stage, what it saves and how weights move between stages."""

"""Floor 2: reading the user's files, writing them as token ids, and saying which rows belong to which
step."""

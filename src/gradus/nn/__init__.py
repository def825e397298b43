"""Floor 1: the transformer and its kernels. No task, file or rank is known here."""

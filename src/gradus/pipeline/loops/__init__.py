"""What repeats stages until they are good enough: search and iterate."""

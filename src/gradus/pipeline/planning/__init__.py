"""What there is to do, and all that is known of it before a single weight is drawn."""

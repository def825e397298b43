"""Model folders put to use: opened, asked, judged, converted."""

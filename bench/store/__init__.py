"""What is on disk: turns, run.json, answer files, trees, step profiles. Needs no torch."""

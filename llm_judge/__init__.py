"""MT-Bench's own conventions: answer scripts, judging, results."""

"""What a run prints, draws and writes for people: progress, curves, cards, pictures, and its result."""

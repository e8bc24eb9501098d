"""What a run saves and what is loaded again: checkpoints, weights, and the folders that hold them."""

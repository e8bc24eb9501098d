"""A run in several processes, on one machine or more: how many, how they meet, agree and notice a loss."""

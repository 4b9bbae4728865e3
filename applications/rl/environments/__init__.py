"""Environments that tasks take place in: families of them, batches that advance together, checks of a user's own."""

"""Removing a network's least important channels for real, and training what is left."""

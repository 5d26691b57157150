"""The same work done by us and by our peers, side by side; also the training script."""

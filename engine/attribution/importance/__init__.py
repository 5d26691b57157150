"""How important each channel of each convolution is: what removing it would do to the loss."""

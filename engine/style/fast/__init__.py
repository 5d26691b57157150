"""Fast style: a network that is trained once, and then gives any image its style in one pass."""

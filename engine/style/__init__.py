"""Style: what layers' Gram matrices carry over from one image to another."""

"""What channels tell of an image that no others tell."""

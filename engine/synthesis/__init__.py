"""Images made by gradient ascent, many at once."""

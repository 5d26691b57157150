"""Pictures to keep: sheets with captions, and image files as a network sees them."""

"""What a run holds and what is asked of it: extraction, patches, neighbours, projections."""

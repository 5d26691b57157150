"""The one error of this package."""


class IndexingError(ValueError):
    """A request that cannot be served; one line that names the bad value and the cure."""

"""Numbers as people read them: on the command line and in the report alike."""


def number(value: float) -> str:
    """Return a number to three digits for people: `12.3`, `0.0123`, `1,234`."""
    if value == 0 or not abs(value) < float("inf"):
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def sides(*lengths: int) -> str:
    """Return lengths with multiplication signs between them: `7 \u00d7 7`."""
    return " \u00d7 ".join(str(length) for length in lengths)


def share(value: float) -> str:
    """Return a share in [0, 1] as a percentage: `87 %`."""
    return f"{value * 100:.1f} %" if 0 < value < 0.1 else f"{value * 100:.0f} %"


def plural(count: int, thing: str) -> str:
    """Return `1 image`, `2,000 images`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def bytes_text(count: float) -> str:
    """Return a number of bytes in powers of 1,000: `1.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def seconds_text(seconds: float) -> str:
    """Return a duration for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""What all sections of the page have in common: a place, a heading, a body or a reason."""

from dataclasses import dataclass

from fc7.engine.report.markup import EMPTY, Markup, element


@dataclass(frozen=True)
class Detail:
    """How much of everything the page shows; `smaller` gives less of it.

    Attributes:
        channels: maximal patches of this many channels a layer.
        queries: rows whose neighbours are shown.
        examples: images whose activation maps are shown; of occlusion maps and of masks, so many
            of each kind.
        tile: side in pixels of a patch or of a neighbour.
    """

    channels: int
    queries: int
    examples: int = 4
    tile: int = 96

    def smaller(self) -> "Detail":
        """Return about half of everything; repeated, nothing."""
        return Detail(
            self.channels // 2, self.queries // 2, self.examples // 2, max(32, self.tile * 3 // 4)
        )

    @property
    def is_nothing(self) -> bool:
        """Whether no picture is left to leave out."""
        return not (self.channels or self.queries or self.examples)


@dataclass(frozen=True)
class Section:
    """One section: its anchor, its heading, a sentence to read it by, and its content.

    Where it has nothing to show, `body` is None and `lede` says why; the page lists those together.
    """

    anchor: str
    title: str
    lede: str | Markup
    body: Markup | None

    def html(self) -> Markup:
        """Return the section as HTML."""
        return element(
            "section",
            element("h2", self.title),
            element("p", self.lede, class_="lede"),
            self.body if self.body is not None else EMPTY,
            id=self.anchor,
        )


def missing(anchor: str, title: str, why: str) -> Section:
    """Return a section that only says why it has nothing to show."""
    return Section(anchor, title, why.removesuffix("."), None)


def too_small(anchor: str, title: str) -> Section:
    """Return a section that the size of the page left no room for."""
    return missing(anchor, title, "the file's size limit leaves no room for it")

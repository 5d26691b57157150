"""Style transfer as functions: what `fc7 style` does and `import fc7` offers.

run = style("photos/", ["paintings/"], "vgg19", "run/", StyleJobOptions(side=512))
run["style"]                    (N,), each a PNG file; row = content * styles + style
"""

from collections.abc import Sequence
from pathlib import Path

from fc7.engine.data import Source
from fc7.engine.data.pairs import PairsSource, pairs_of
from fc7.engine.models import Network, load_model
from fc7.engine.store import Run, Summary
from fc7.engine.store.technique import carry_out
from fc7.engine.style.transfer_job import Style
from fc7.engine.style.transfer_options import StyleJobOptions


def style(
    contents: str | Path | Source,
    styles: Sequence[str | Path | Source],
    model: str | Network,
    out: str | Path,
    options: StyleJobOptions | None = None,
) -> Run:
    """Paint every content in every style, in a run; with a mix, in all styles at once.

    A run that was begun is continued. Pictures that are asked for differently join it under a name
    of their own: `style-2` beside `style`.

        run["style"]                (N,), PNG files, each of its content's size
        run["style.last"]           (N, T), the loss of each term; see `Style`

    Args:
        contents: a source, or what names one: a folder, tars, an image file, `shapes:N:SEED`.
        styles: likewise; the images of all of them are the styles.
        model: a network, or the name of one, with its default weights.
        out: the run's folder.
        options: how.

    Raises:
        FingerprintError: the run in `out` has other pairs or another network, or these pictures
            were begun with another size of a batch or on another device.
        LayerError: there is no such layer.
        OptionError: an option is out of range, weights are not as many as styles, or an image is
            too small for a layer.
        QuestionError: nothing flows back to the pixels.
        SourceError: images cannot be opened.
    """
    options = options or StyleJobOptions()
    source = pairs_of(contents, styles, bool(options.mix))
    network = model if isinstance(model, Network) else load_model(model)
    return style_with_summary(source, network, out, options)[0]


def style_with_summary(
    source: PairsSource, network: Network, out: str | Path, options: StyleJobOptions
) -> tuple[Run, Summary]:
    """Paint pairs in a run, and say what was done; see `style`."""
    return carry_out(Style(network, source, options), source, network, out, options)

"""Which layers style and content are read from, and how much each counts.

Of the VGG networks, after Gatys, Ecker and Bethge (2016), section 3: style from relu1_1, relu2_1,
relu3_1, relu4_1 and relu5_1, a fifth each, content from relu4_2. Of networks whose layers go by
AlexNet's names, style from relu1 to relu5 and content from relu4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fc7.engine.errors import OptionError
from fc7.engine.models import Network

_USUAL = (
    (tuple(f"relu{block}_1" for block in range(1, 6)), ("relu4_2",)),
    (tuple(f"relu{block}" for block in range(1, 6)), ("relu4",)),
)


@dataclass(frozen=True)
class StyleLayers:
    """Layers by canonical name or module path, each with its share; shares add up to 1.

    Attributes:
        style: whose Gram matrices are compared.
        content: whose features are compared.
    """

    style: dict[str, float]
    content: dict[str, float]


def style_layers(
    network: Network,
    style: Sequence[str] = (),
    content: Sequence[str] = (),
    has_content: bool = True,
) -> StyleLayers:
    """Return the layers that were named; the usual ones of the network where none was.

    Args:
        network: the network.
        style: names, or "NAME=WEIGHT", such as "relu1_1=2"; a name alone weighs 1.
        content: likewise.
        has_content: whether content is asked for at all; no layers of it if not.

    Raises:
        LayerError: there is no such layer.
        OptionError: the network has no usual layers, a layer has no places or comes twice, or a
            weight is no number above 0.
    """
    usual = next((two for two in _USUAL if {*two[0], *two[1]} <= set(network.layers)), None)
    if usual is None and not (style and (content or not has_content)):
        raise OptionError(
            f"{network.name} has none of the layers that style is usually read from; name them: "
            "--style-layers and --content-layers, of those that fc7 layers lists"
        )
    of_style, of_content = usual or ((), ())
    named = (content or of_content) if has_content else ()
    return StyleLayers(_shares(network, style or of_style), _shares(network, named))


def _shares(network: Network, words: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        layer = network.layer(name)
        if len(layer.shape) != 3:
            raise OptionError(f"{layer.name} has no places; name a convolutional layer")
        if layer.name in weights:
            raise OptionError(f"{layer.name} is named twice; once will do")
        weights[layer.name] = _weight(word, number)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _weight(word: str, number: str) -> float:
    if not number and "=" not in word:
        return 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise OptionError(f"{word!r} has no weight above 0; write NAME=WEIGHT, such as relu1_1=2")
    return weight


_TEXTURE = (
    ("relu1_1", *(f"pool{block}" for block in range(1, 5))),
    ("relu1", "pool1", "pool2", "relu3", "relu4"),
)


def texture_layers(network: Network, named: Sequence[str] = ()) -> dict[str, float]:
    """Return the layers that a texture is read from, each with its share.

    Of the VGG networks, after Gatys, Ecker and Bethge (2015), figure 3: relu1_1 (which the authors'
    own network, whose ReLUs write over what they read, calls conv1_1) and pool1 to pool4. Of
    networks whose layers go by AlexNet's names, relu1, pool1, pool2, relu3 and relu4.

    Args:
        network: the network.
        named: as of `style_layers`; the usual ones of the network if empty.

    Raises:
        LayerError: there is no such layer.
        OptionError: as of `style_layers`.
    """
    usual = next((names for names in _TEXTURE if set(names) <= set(network.layers)), ())
    if not (named or usual):
        raise OptionError(
            f"{network.name} has none of the layers that textures are usually read from; name "
            "some: --layers, of those that fc7 layers lists"
        )
    return _shares(network, named or usual)

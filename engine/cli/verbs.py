"""The verbs by name: what each does, in a line, and the file that it is imported from when asked.

`fc7 --help` prints the lines and imports none of the files; `fc7 VERB` imports one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

MARKUP: Literal["markdown"] = "markdown"


@dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes:
        file: of `fc7.engine.cli`; its `register` adds the verb.
        line: the first of its help.
    """

    file: str
    line: str


VERBS: Mapping[str, Verb] = {
    "run": Verb(
        "main_job",
        "Do the main job: extract, find neighbours and maximal patches, project, report.",
    ),
    "extract": Verb("main_job", "Extract activations and maximal patches, and nothing else."),
    "plan": Verb("main_job", "Predict bytes, memory and time before anything runs."),
    "demo": Verb(
        "main_job",
        "Run the main job on the built-in pictures with the built-in network.",
    ),
    "index": Verb(
        "techniques",
        "Build the search index of a layer, and the graph of every row's neighbours.",
    ),
    "neighbors": Verb("techniques", "Show the nearest rows of images, or of rows."),
    "patches": Verb("techniques", "Show the patches that excite each channel most."),
    "project": Verb("techniques", "Project every row to a point, by PCA, UMAP or t-SNE."),
    "report": Verb("techniques", "Write the run's report: one HTML file that needs nothing else."),
    "occlude": Verb(
        "attribution",
        "Show which parts of each image the network's answer depends on, by covering them.",
    ),
    "saliency": Verb(
        "gradients",
        "Show how each pixel would change the network's answer: the gradient of a class's logit.",
    ),
    "guided": Verb(
        "gradients",
        "Show which pixels speak for a class, or for a unit of any layer: guided backpropagation.",
    ),
    "segment": Verb(
        "segmentation",
        "Cut out the object that the network's answer depends on: a mask for each image.",
    ),
    "importance": Verb(
        "pruning",
        "Show how important each channel of each convolution is: what the loss owes to it.",
    ),
    "prune": Verb(
        "pruning",
        "Remove the least important channels, and write the smaller network as one file.",
    ),
    "classes": Verb(
        "classes",
        "Paint what a class, a channel or a neuron wants to see, by gradient ascent from noise.",
    ),
    "fool": Verb(
        "fool",
        "Change images so little that only the network is fooled: adversarial examples.",
    ),
    "dream": Verb("dream", "Let a network paint into images what it sees in them: DeepDream."),
    "invert": Verb(
        "invert",
        "Show what a layer keeps of each image: another image to which it answers alike.",
    ),
    "facets": Verb(
        "facets",
        "Paint each of the kinds of image that excite a class or a channel: it may have several.",
    ),
    "style": Verb("style", "Paint images in the style of others: Gatys, Ecker and Bethge (2016)."),
    "texture": Verb("texture", "Let a texture go on from a patch, to any size: texture synthesis."),
    "stylize": Verb(
        "stylize",
        "Train a network that gives any image a painting's style in one pass, and use it.",
    ),
    "layers": Verb(
        "inspect",
        "List a network's layers: names, shapes, receptive fields, bytes a row.",
    ),
    "verify": Verb("inspect", "Read every byte of a run and compare it with what was committed."),
}


class Verbs(TyperGroup):
    """The group of all verbs, each of which is imported when it is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, verb in VERBS.items():
            self.commands[name] = TyperCommand(name, help=verb.line, rich_markup_mode=MARKUP)
        self._is_listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb; while the group's own help is printed, a line of it."""
        if self._is_listing or cmd_name not in VERBS:
            return super().get_command(ctx, cmd_name)
        return load(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print what verbs there are."""
        self._is_listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._is_listing = False


def load(name: str) -> Any:
    """Import a verb and return it as a command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
    app.callback()(_nothing)  # with one verb alone Typer would make no group
    import_module(f"fc7.engine.cli.{VERBS[name].file}").register(app)
    group: Any = typer.main.get_command(app)
    return group.commands[name]


def _nothing() -> None:
    pass

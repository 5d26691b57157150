"""Which channels a network needs, and the network without the others: `importance`, `prune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import (
    MAX_PIXELS,
    conclude,
    open_data_and_network,
    outcome_of,
    thread_count,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fc7.engine.attribution.importance.criteria import ChannelImportance
    from fc7.engine.attribution.pruning.workflow import Figures, PrunedNetwork

_PART_ROWS = 256
_SHOWN = 4


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command()(importance)
    app.command()(prune)


def importance(
    data: o.Data,
    out: o.Out,
    model: o.Model = "alexnet",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; as many as suit the network.")
    ] = None,
    inversion: Annotated[
        bool,
        typer.Option(
            "--inversion",
            help="Also by how much worse images are found again without each channel: ten passes "
            "for every channel and image, so for some dozen images.",
        ),
    ] = False,
    part_rows: o.PartRows = _PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Show how important each channel of each convolution is: what the loss owes to it.

    Example: `fc7 importance photos/ --model alexnet --out runs/photos`

    To first order, over all images (Molchanov et al., 2017). Where labels are not the network's
    classes, its own predictions take their place. Then fc7 prune removes what matters least.
    """
    from fc7.engine.attribution.importance.criteria import read_importance
    from fc7.engine.attribution.importance.job import ImportanceOptions
    from fc7.engine.attribution.importance.workflow import importance_with_summary
    from fc7.engine.cli.console import emit_table, progress, say
    from fc7.engine.words import plural, share

    source, network = open_data_and_network(
        data, max_pixels, model, weights, seed, device, precision, mean, std, resize, crop
    )
    with progress() as report:
        options = ImportanceOptions(
            batch_rows=batch,
            part_rows=part_rows,
            threads=thread_count(threads),
            parts=parts,
            report=report,
        )
        made, summary = importance_with_summary(source, network, out, options)
        summaries = [summary]
        if inversion:
            from fc7.engine.information.job import (
                InversionImportanceOptions,
                inversion_importance_with_summary,
            )

            silent = InversionImportanceOptions(
                part_rows=part_rows, threads=thread_count(threads), parts=parts, report=report
            )
            summaries.append(inversion_importance_with_summary(source, network, out, silent)[1])
    outcome = outcome_of(made, summaries)
    if summary.is_complete:
        found = read_importance(made, network, seed)
        outcome |= _as_json(found)
        if not json:
            headings = ("layer", "channels", "most important", "least important")
            title = "Share of the layer's first-order change of loss"
            emit_table(headings, _rows(found, found.stored.taylor), title)
            if inversion and found.stored.inversion is not None:
                rises = [layer.clip(0) for layer in found.stored.inversion]
                title = "Share of the layer's rise of inversion error"
                emit_table(headings, _rows(found, rises), title)
            if found.stored.accuracy is not None:
                labelled = plural(found.stored.labelled, "label")
                say(f"right about {share(found.stored.accuracy)} of {labelled}")
    conclude(outcome, summaries, strict, json)


def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of fc7 importance.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The network, .safetensors.")
    ],
    fraction: Annotated[
        float | None, typer.Option(help="Of all channels of convolutions, how many may go.")
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="Instead: the share of multiply-adds that may stay.")
    ] = None,
    criterion: Annotated[
        str, typer.Option(help="Ranks channels: taylor, activation, l1, inversion or random.")
    ] = "taylor",
    keep_layers: Annotated[
        str | None, typer.Option(help="Comma-separated convolutions that lose nothing.")
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled rows to test on; the run's own by default."),
    ] = None,
    finetune: Annotated[
        float | None, typer.Option(metavar="EPOCHS", help="Then train for so many epochs.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled rows to train on; the run's own by default."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Of training, at the start.")] = 0.001,
    batch: Annotated[int, typer.Option(min=1, help="Images in a step of training.")] = 128,
    augment: Annotated[bool, typer.Option(help="Train on images flipped and shifted.")] = True,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
) -> None:
    """Remove the least important channels, and write the smaller network as one file.

    Example: `fc7 prune runs/photos --fraction 0.2 --test held-out/ --out pruned.safetensors`

    Example: `fc7 prune runs/photos --flops 0.7 --finetune 1 --out pruned.safetensors`

    The file is a network: fc7 run photos/ --model pruned.safetensors. Training that was stopped
    continues with the same command.
    """
    from fc7.engine.attribution.pruning.training import FineTuneOptions
    from fc7.engine.attribution.pruning.workflow import PruneOptions
    from fc7.engine.attribution.pruning.workflow import prune as prune_run
    from fc7.engine.cli.console import emit_json, emit_table, progress, say
    from fc7.engine.store import open_store

    if data is not None and finetune is None:
        raise typer.BadParameter("it is for training: add --finetune", param_hint="--data")
    workers = thread_count(threads)
    with progress() as report:
        options = PruneOptions(
            fraction=fraction,
            flops=flops,
            criterion=criterion,
            seed=seed,
            keep_layers=o.split_layers(keep_layers) if keep_layers else (),
            device=device,
            threads=workers,
            report=report,
        )
        training = None
        if finetune is not None:
            training = FineTuneOptions(
                epochs=finetune,
                batch_rows=batch,
                learning_rate=learning_rate,
                augment=augment,
                seed=seed,
                threads=workers,
            )
        found = prune_run(open_store(run), out, options, test, training, data)
    if json:
        emit_json(_pruned_as_json(found))
        return
    layers = [
        (name, before, after, found.kept.get(name, ""))
        for name, (before, after) in found.layers.items()
    ]
    columns = 4 if found.kept else 3
    headings = ("layer", "channels", "left", "why all stay")[:columns]
    emit_table(headings, [row[:columns] for row in layers])
    known = found.after.accuracy is not None
    about = f"accuracy on {found.tested_on}" if known else f"no accuracy: {found.tested_on}"
    emit_table(*_comparison(found), title=about)
    say(f"{found.file} is the smaller network; fc7 run DATA --model {found.file}")


def _rows(
    found: "ChannelImportance", of_layers: "Sequence[NDArray[np.float64]]"
) -> list[tuple[str, int, str, str]]:
    """Return a row a layer: its strongest and its weakest channels."""
    rows = []
    for layer, scores in zip(found.layers, of_layers, strict=True):
        total = float(scores.sum()) or 1.0
        order = scores.argsort(kind="stable")
        shown = min(_SHOWN, max(1, len(order) // 2))
        most, least = (
            ", ".join(f"{channel} ({scores[channel] / total:.2%})" for channel in chosen)
            for chosen in (order[::-1][:shown].tolist(), order[:shown].tolist())
        )
        rows.append((layer.name, layer.channels, most, least))
    return rows


def _as_json(found: "ChannelImportance") -> dict[str, Any]:
    stored = found.stored
    return {
        "target": stored.target,
        "accuracy": stored.accuracy,
        "loss": stored.loss,
        "layers": [
            {
                "name": layer.name,
                "path": layer.path,
                "channels": layer.channels,
                "mean_taylor": stored.taylor[place].tolist(),
                "mean_activation": stored.activation[place].tolist(),
                **(
                    {"mean_inversion": stored.inversion[place].tolist()} if stored.inversion else {}
                ),
                "scores": {name: each[place].tolist() for name, each in found.scores.items()},
            }
            for place, layer in enumerate(found.layers)
        ],
    }


def _pruned_as_json(found: "PrunedNetwork") -> dict[str, Any]:
    import dataclasses

    return {
        "file": str(found.file),
        "tested_on": found.tested_on,
        **{
            name: None if figures is None else dataclasses.asdict(figures)
            for name, figures in (
                ("before", found.before),
                ("after", found.after),
                ("tuned", found.tuned),
            )
        },
        "layers": {
            name: {"before": before, "after": after}
            for name, (before, after) in found.layers.items()
        },
        "kept": dict(found.kept),
    }


def _comparison(found: "PrunedNetwork") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and rows: each figure before, after, and how they compare."""
    from fc7.engine.words import number, share

    shown = [found.before, found.after] + ([found.tuned] if found.tuned else [])
    headings = ("", "before", "after", "fine-tuned")[: len(shown) + 1]

    def accuracy(figures: "Figures") -> str:
        return share(figures.accuracy.share) if figures.accuracy else "-"

    def counted(name: str) -> tuple[str, ...]:
        first = getattr(found.before, name)
        values = [getattr(figures, name) for figures in shown]
        return number(first), *(f"{number(v)} ({v / first:.2f} x)" for v in values[1:])

    return headings, [
        ("accuracy", *map(accuracy, shown)),
        ("channels", *counted("channels")),
        ("parameters", *counted("parameters")),
        ("multiply-adds", *counted("multiply_adds")),
        ("images a second", *counted("images_per_second")),
    ]

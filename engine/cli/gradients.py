"""What one backward pass tells: `saliency` and `guided`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fc7.engine.cli import options as o
from fc7.engine.cli.computing import (
    MAX_PIXELS,
    PART_ROWS,
    conclude,
    draws_one,
    open_data_and_network,
    open_network,
    outcome_of,
    thread_count,
    with_progress,
)

if TYPE_CHECKING:
    from fc7.engine.attribution.gradient_figure import MappedImage

_BATCH = 16

_Data = Annotated[str, typer.Argument(metavar="DATA", help="As for fc7 run; or one image file.")]
_Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="RUN", help="The run's folder; of one image, a .png."),
]
_Dtype = Annotated[str, typer.Option(help="Of stored maps: float32 or float16.")]
_Rule = Annotated[str, typer.Option(help="guided, deconv or plain (the derivative).")]
_Batch = Annotated[int, typer.Option(min=1, help="Images in one pass.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    app.command()(saliency)
    app.command()(guided)


def saliency(
    data: _Data,
    out: _Out,
    model: o.Model = "alexnet",
    method: Annotated[
        str,
        typer.Option(
            help="saliency, gradient (signed, three numbers a pixel), gradient-x-input, "
            "smoothgrad, integrated-gradients, or cam (class activation maps, of networks that "
            "average their last maps)."
        ),
    ] = "saliency",
    target: o.Target = "predicted",
    samples: Annotated[int, typer.Option(min=1, help="Noisy copies of smoothgrad.")] = 25,
    noise: Annotated[
        float, typer.Option(help="Their standard deviation: a share of the image's range.")
    ] = 0.15,
    steps: Annotated[int, typer.Option(min=1, help="Of integrated-gradients.")] = 32,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What integrated-gradients and gradient-x-input measure from: a number or r,g,b "
            "in [0, 1], or #rrggbb. By default the network's mean colour."
        ),
    ] = None,
    dtype: _Dtype = "float32",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: _Batch = _BATCH,
    part_rows: o.PartRows = PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Show how each pixel would change the network's answer: the gradient of a class's logit.

    Example: `fc7 saliency photos/ --model alexnet --out runs/photos`

    Example: `fc7 saliency cat.jpg --model alexnet --method smoothgrad --out map.png`

    Give the same command again after a stop, and it continues; other options make other maps in
    the same run. fc7 report shows them.
    """
    from fc7.engine.attribution.gradient_jobs import SaliencyOptions
    from fc7.engine.attribution.workflow import saliency_with_summary

    options = SaliencyOptions(
        dtype=dtype,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
        method=method,
        target=target,
        samples=samples,
        noise=noise,
        seed=seed,
        steps=steps,
        baseline=o.split_colour(baseline, "--baseline"),
    )
    network_options = model, weights, seed, device, precision, mean, std, resize, crop
    if draws_one(data, out):
        from fc7.engine.attribution.gradient_figure import saliency_of_image

        network = open_network(*network_options)
        _draw(saliency_of_image(data, network, options, max_pixels), data, out, json)
        return
    source, network = open_data_and_network(data, max_pixels, *network_options)
    made, summary = with_progress(saliency_with_summary, source, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def guided(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA|RUN", help="As for fc7 run; one image file; or a run."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="RUN",
            help="The run's folder; of one image, a .png; of a run, the .png to draw into.",
        ),
    ] = None,
    model: o.Model = "alexnet",
    rule: _Rule = "guided",
    target: o.Target = "predicted",
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="Go back from this layer, not the logits.")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(help="Of it: a channel, at its strongest place; or channel,row,column."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Of a run: patches of each channel.")] = 9,
    channels: Annotated[
        str | None,
        typer.Option(help="Of a run: comma-separated channels, or all; the first 16 by default."),
    ] = None,
    dtype: _Dtype = "float32",
    weights: o.Weights = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    mean: o.Mean = None,
    std: o.Std = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    batch: _Batch = _BATCH,
    part_rows: o.PartRows = PART_ROWS,
    threads: o.Threads = None,
    parts: o.Parts = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    strict: o.Strict = False,
    json: o.Json = False,
) -> None:
    """Show which pixels speak for a class, or for a unit of any layer: guided backpropagation.

    Example: `fc7 guided runs/photos --layer conv5 --top 9` (patches beside their gradients)

    Example: `fc7 guided photos/ --model alexnet --out runs/photos`

    Example: `fc7 guided cat.jpg --model alexnet --layer conv5 --unit 17 --out map.png`

    Of a run it draws, for each channel of a layer, its maximal patches beside their guided
    gradients. Of data it makes a gradient for each image, in a run that fc7 report shows.
    """
    from fc7.engine.attribution.gradient_jobs import GuidedOptions
    from fc7.engine.attribution.workflow import guided_with_summary
    from fc7.engine.errors import OptionError

    if (Path(data) / "run.json").exists():
        _patches(Path(data), out, layer, channels, top, rule, device, json)
        return
    if out is None:
        raise OptionError(
            f"{data} is no run; say where to: --out RUN, or --out map.png of one image"
        )
    options = GuidedOptions(
        dtype=dtype,
        batch_rows=batch,
        part_rows=part_rows,
        threads=thread_count(threads),
        parts=parts,
        rule=rule,  # type: ignore[arg-type]  # it is checked where it is used
        target=target,
        layer=layer,
        unit=o.split_unit(unit),
    )
    network_options = model, weights, seed, device, precision, mean, std, resize, crop
    if draws_one(data, out):
        from fc7.engine.attribution.gradient_figure import guided_of_image

        network = open_network(*network_options)
        _draw(guided_of_image(data, network, options, max_pixels), data, out, json)
        return
    source, network = open_data_and_network(data, max_pixels, *network_options)
    made, summary = with_progress(guided_with_summary, source, network, out, options)
    conclude(outcome_of(made, [summary]), [summary], strict, json)


def _draw(found: "MappedImage", file: str, out: Path, json: bool) -> None:
    """Draw the map of one image."""
    from fc7.engine.attribution.gradient_figure import figure, unit_name
    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.drawing.sheet import save_sheet
    from fc7.engine.words import number, share

    save_sheet(figure(found), out)
    if json:
        outcome: dict[str, Any] = {"image": file, "picture": str(out), "asked": found.asked}
        if found.target is not None:
            outcome |= {"class": found.target, "predicted": found.predicted}
        outcome |= {"numbers": found.columns, "largest": float(abs(found.maps).max())}
        emit_json(outcome)
    elif found.target is not None:
        say(f"{out}: {found.target} {share(found.columns['probability'])}")
    else:
        say(f"{out}: {unit_name(found.asked)} answers {number(found.columns['value'])}")


def _patches(
    folder: Path,
    out: Path | None,
    layer: str | None,
    channels: str | None,
    top: int,
    rule: str,
    device: str,
    json: bool,
) -> None:
    """Draw the maximal patches of a run beside their guided gradients."""
    from fc7.engine.attribution.guided_patches import GuidedPatches
    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.data import open_source
    from fc7.engine.drawing.sheet import check_picture
    from fc7.engine.errors import OptionError
    from fc7.engine.report.guided_sheet import draw_guided_patches
    from fc7.engine.store import open_store, run_stage
    from fc7.engine.store.network import network_of
    from fc7.engine.store.patches import read_patches

    run = open_store(folder)
    if layer is None:
        raise OptionError("the patches of which layer? name one, such as --layer conv5")
    count = len(read_patches(run, layer).rows)
    chosen = list(range(count)) if channels == "all" else o.split_channels(channels, count)
    picture = out or folder / f"guided-{layer}.png"
    check_picture(picture)
    source = open_source(run.meta["source"]["spec"])
    run.check_source(source)
    network = network_of(run, device)
    with progress() as report:
        stage = GuidedPatches(
            run,
            source,
            network,
            layer,
            chosen,
            top,
            rule,  # type: ignore[arg-type]  # it is checked where it is used
            report=report,
        )
        run_stage(run, stage)
    made = draw_guided_patches(run, source, network, layer, picture)
    if json:
        emit_json(
            {
                "run": str(folder),
                "layer": layer,
                "channels": chosen,
                "pictures": list(map(str, made)),
            }
        )
        return
    for path in made:
        say(f"{path}")
    say(f"  {len(chosen)} channels of {layer}, {top} patches each and what they answer to in them")

"""What one asks of a run: `index`, `neighbors`, `patches`, `project`, `report`."""

from pathlib import Path
from typing import Annotated

import typer

from fc7.engine.cli import options as o


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to the command line."""
    for verb in (index, neighbors, patches, project, report):
        app.command()(verb)


def index(
    run: o.RunFolder,
    layer: o.Layer = None,
    kind: Annotated[str, typer.Option(help="auto, flat, ivf or pca.")] = "auto",
    k: Annotated[
        int, typer.Option("-k", min=1, help="Neighbours kept in the graph of all rows.")
    ] = 90,
    metric: Annotated[str, typer.Option(help="l2 or cosine.")] = "l2",
    memory: Annotated[float, typer.Option(help="GB that the index may take.")] = 8.0,
    json: o.Json = False,
) -> None:
    """Build the search index of a layer, and the graph of every row's neighbours.

    Example: `fc7 index runs/photos --layer fc7 --kind ivf`

    What will be built, why, and how large it will be is said before the work starts.
    """
    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.features.search import BuildIndex
    from fc7.engine.features.workflow import index as build_graph
    from fc7.engine.store import open_store, run_stage
    from fc7.engine.store.vectors import default_vectors
    from fc7.engine.words import bytes_text

    opened = open_store(run)
    name = layer or default_vectors(opened)
    stage = BuildIndex(opened, name, kind, metric, int(memory * 1e9))
    say(f"{name}: {stage.plan.kind}, {bytes_text(stage.plan.bytes)}: {stage.plan.reason}")
    built = run_stage(opened, stage)
    with progress() as report:
        graph = build_graph(opened, name, k, metric, report)
    record, graph_record = built.result_record(), graph.result_record()
    outcome = {
        "run": str(run),
        "layer": name,
        "index": (record or {}).get("info"),
        "graph": (graph_record or {}).get("info"),
    }
    if json:
        emit_json(outcome)
    else:
        say(f"{built.folder} and {graph.folder} are ready")


def neighbors(
    run: o.RunFolder,
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY...", help="Image files, or row numbers.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of each query.")] = 10,
    layer: o.Layer = None,
    metric: Annotated[str, typer.Option(help="l2 or cosine.")] = "l2",
    device: o.Device = "auto",
    json: o.Json = False,
) -> None:
    """Show the nearest rows of images, or of rows.

    Example: `fc7 neighbors runs/photos cat.jpg 17 -k 5`
    """
    from fc7.engine.cli.console import emit_json, emit_table
    from fc7.engine.features.search import find_neighbors
    from fc7.engine.store import open_store
    from fc7.engine.store.vectors import default_vectors

    opened = open_store(run)
    name = layer or default_vectors(opened)
    found = find_neighbors(opened, queries, k, name, metric, device)
    if json:
        emit_json({"run": str(run), "layer": name, "metric": metric, "queries": found})
        return
    for answer in found:
        rows = [
            [rank, hit["row"], hit["key"], hit["label"] or "", hit["distance"]]
            for rank, hit in enumerate(answer["neighbors"], 1)
        ]
        title = f"{answer['query']} {answer['label'] or ''}".strip()
        emit_table(("", "row", "key", "label", "distance"), rows, f"{title}, nearest in {name}")


def patches(
    run: o.RunFolder,
    layer: Annotated[str, typer.Option("--layer", "-l", help="A layer of the run.")],
    channels: Annotated[
        str | None, typer.Option(help="Comma-separated channels; the first 16 by default.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Patches of each channel.")] = 9,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Draw them into a PNG.")] = None,
    json: o.Json = False,
) -> None:
    """Show the patches that excite each channel most.

    Example: `fc7 patches runs/photos --layer conv5 --channels 3,17 --out conv5.png`
    """
    from fc7.engine.cli.console import emit_json, emit_table, progress, say
    from fc7.engine.features.patches import TopPatches
    from fc7.engine.features.sheet import draw_patches
    from fc7.engine.store import open_store, run_fold
    from fc7.engine.store.patches import read_patches

    opened = open_store(run)
    outputs = {
        name: output for job in opened.outputs().values() for name, output in job.outputs.items()
    }
    with progress() as report:
        run_fold(opened, TopPatches.of(outputs, layer, k), report)
    top = read_patches(opened, layer)
    chosen = o.split_channels(channels, len(top.rows))
    table = opened.rows
    listed = [
        {
            "channel": channel,
            "rank": rank + 1,
            "row": int(top.rows[channel, rank]),
            "key": table.column("key")[int(top.rows[channel, rank])].as_py(),
            "position": int(top.positions[channel, rank]),
            "value": float(top.values[channel, rank]),
        }
        for channel in chosen
        for rank in range(top.k)
        if top.rows[channel, rank] >= 0
    ]
    if out is not None:
        draw_patches(opened, layer, chosen, out)
        say(f"{out}: {len(chosen)} channels, a row of patches each")
    if json:
        emit_json({"run": str(run), "layer": layer, "patches": listed})
    elif out is None:
        headings = ("channel", "rank", "row", "key", "position", "value")
        emit_table(headings, [list(entry.values()) for entry in listed], f"{layer}, top {k}")


def project(
    run: o.RunFolder,
    layer: o.Layer = None,
    methods: Annotated[
        str, typer.Option("--method", help="Comma-separated: pca, umap, tsne.")
    ] = "pca,umap,tsne",
    dimensions: Annotated[int, typer.Option(help="2 or 3.")] = 2,
    sample: o.Sample = None,
    seed: o.Seed = 0,
    json: o.Json = False,
) -> None:
    """Project every row to a point, by PCA, UMAP or t-SNE.

    Example: `fc7 project runs/photos --layer fc7 --method umap --dimensions 3`
    """
    from fc7.engine.cli.console import emit_json, progress, say
    from fc7.engine.features.project import check_projection
    from fc7.engine.features.workflow import index as build_graph
    from fc7.engine.features.workflow import project as project_layer
    from fc7.engine.store import open_store
    from fc7.engine.store.vectors import default_vectors

    opened = open_store(run)
    name = layer or default_vectors(opened)
    chosen = [text.strip() for text in methods.split(",")]
    for method in chosen:  # before hours are spent on the graph
        check_projection(method, dimensions)
    outcome = {}
    for method in chosen:
        with progress() as report:
            if method != "pca" and sample is None:
                build_graph(opened, name, report=report)
            job = project_layer(opened, name, method, dimensions, sample, seed, report)
        outcome[method] = {"folder": str(job.folder), **(job.result_record() or {})["info"]}
        if not json:
            say(f"{job.folder / 'result' / 'coordinates.npy'}: {outcome[method]['rows']} points")
    if json:
        emit_json({"run": str(run), "layer": name, "projections": outcome})


def report(
    run: o.RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; RUN/report.html by default.")
    ] = None,
    seed: o.Seed = 0,
    json: o.Json = False,
) -> None:
    """Write the run's report: one HTML file that needs nothing else.

    Example: `fc7 report runs/photos`
    """
    from fc7.engine.cli.console import emit_json, say
    from fc7.engine.report import write_report
    from fc7.engine.store import open_store
    from fc7.engine.words import bytes_text

    path = write_report(open_store(run), out, seed=seed)
    size = path.stat().st_size
    if json:
        emit_json({"run": str(run), "report": str(path), "bytes": size})
    else:
        say(f"{path} ({bytes_text(size)})")

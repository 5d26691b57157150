"""Where every number on the page comes from, and how to get it again."""

import json
import platform
import shlex
from collections.abc import Mapping
from typing import Any

from fc7.engine.attribution.backprop import IMAGES_TOGETHER
from fc7.engine.attribution.gradient_jobs import GUIDED, SALIENCY
from fc7.engine.attribution.guided_patches import guided_patches_job
from fc7.engine.attribution.importance.stored import DEFAULT_PART_ROWS as IMPORTANCE_PART_ROWS
from fc7.engine.attribution.importance.stored import INVERSION
from fc7.engine.attribution.importance.stored import JOB as IMPORTANCE
from fc7.engine.attribution.occlusion.stored import DEFAULT_PART_ROWS, StoredOcclusion, occlusions
from fc7.engine.attribution.saliency import NOISE, SAMPLES, STEPS
from fc7.engine.attribution.segmentation import stored as masks
from fc7.engine.attribution.segmentation.seeds import Recipe
from fc7.engine.models.targets import PREDICTED
from fc7.engine.report.commands import network_options, synthesis_commands
from fc7.engine.report.markup import Markup, element, join
from fc7.engine.report.section import Section
from fc7.engine.report.speed import table
from fc7.engine.report.subject import Subject
from fc7.engine.store import Job, Run
from fc7.engine.store.fingerprint import software
from fc7.engine.store.stored import StoredMaps, stored_maps

_ANCHOR, _TITLE = "provenance", "Provenance"
_LETTERS = 400


def provenance(subject: Subject) -> Section:
    """Show fingerprints, versions and commands."""
    run, jobs = subject.run, subject.run.jobs()
    facts: dict[str, str] = {
        "source": f"{run.meta['source']['spec']} ({run.meta['source']['kind']})",
        "source digest": run.meta["source"]["digest"],
        "run made": run.meta["created"],
        "rows a part": f"{run.part_rows:,}",
    }
    for job in jobs.values():
        for name, value in _leaves(job.fingerprint.get("network", {})):
            facts.setdefault(f"network {name}", value)
    for job in jobs.values():
        made_with = job.fingerprint.get("software")
        if job.kind == "map" and made_with:
            facts[f"{job.name} made with"] = _versions(made_with)
    facts["report made with"] = _versions({**software(), "python": platform.python_version()})
    known = [
        element(
            "tr", element("th", name, scope="row"), element("td", value[:_LETTERS], class_="code")
        )
        for name, value in facts.items()
    ]
    prints = [
        element(
            "tr",
            element("th", job.name, scope="row"),
            element("td", job.kind),
            element("td", job.digest, class_="code"),
        )
        for job in jobs.values()
    ]
    body = join(
        [
            element("h3", "Commands"),
            element("pre", "\n".join(commands(subject)), class_="commands", tabindex="0"),
            element(
                "p",
                "Where a resize, a crop, a mean or a standard deviation was chosen by hand, add "
                "it: they are listed with the network.",
                class_="note",
            ),
            element("h3", "What was analysed"),
            table(("", ""), known),
            element("h3", "Fingerprints"),
            table(("job", "kind", "fingerprint"), prints),
        ]
    )
    lede = (
        "The same commands over the same images and weights make the same run: a job is continued "
        "only where its fingerprint agrees."
    )
    return Section(_ANCHOR, _TITLE, lede, body)


def commands(subject: Subject) -> list[str]:
    """Return the command lines that make the run and this page again."""
    run = subject.run
    maps = {
        name: job
        for name, job in run.jobs().items()
        if job.kind == "map" and "network" in job.fingerprint
    }
    asked = {one.job.name: one for one in occlusions(run)}
    mapped = [one for kind in (SALIENCY, GUIDED) for one in stored_maps(run, kind)]
    cut = masks.segmentations(run)
    synthesised = synthesis_commands(run)
    others = {
        *asked,
        IMPORTANCE,
        INVERSION,
        *(one.job.name for one in [*mapped, *cut]),
        *synthesised,
    }
    extractions = [job for name, job in maps.items() if name not in others]
    lines = [_extraction(run, job, len(extractions) == 1) for job in extractions]
    lines += [_occlusion(run, one) for one in asked.values()]
    lines += [_gradients(run, one) for one in mapped]
    lines += [_guided_patches(run, job) for job in run.jobs().values() if _is_guided(job)]
    lines += [_segmentation(run, one) for one in cut]
    lines += list(synthesised.values())
    lines += [_importance(run, maps[IMPORTANCE])] if IMPORTANCE in maps else []
    return [*lines, shlex.join(["fc7", "report", str(run.folder)])]


def _extraction(run: Run, job: Job, is_only: bool) -> str:
    layers = dict.fromkeys(
        str(output.attributes["layer"])
        for output in job.outputs.values()
        if "layer" in output.attributes
    )
    listed = ",".join(name for name in layers if not is_only or name != "pixels")
    words = [
        "fc7",
        "run" if is_only else "extract",
        run.meta["source"]["spec"],
        *network_options(job),
    ]
    words += ["--layers", listed]
    words += ["--part-rows", str(run.part_rows)] if run.part_rows != 1024 else []
    return shlex.join([*words, "--out", str(run.folder)])


def _occlusion(run: Run, asked: StoredOcclusion) -> str:
    options = asked.job.fingerprint["options"]
    words = ["fc7", "occlude", run.meta["source"]["spec"], *network_options(asked.job)]
    words += ["--window", str(asked.window), "--stride", str(asked.stride)]
    if list(asked.fill) != asked.job.fingerprint["network"]["mean"]:
        words += ["--fill", ",".join(f"{part:g}" for part in asked.fill)]
    words += ["--score", asked.score] if asked.score != "probability" else []
    words += ["--target", str(asked.target)] if asked.target != PREDICTED else []
    approximation = asked.approximation or {}
    words += ["--refine"] if approximation.get("name") == "refine" else []
    words += ["--growth", str(approximation["growth"])] if "growth" in approximation else []
    batch = options["batch_rows"]
    words += ["--batch", str(batch)] if isinstance(batch, int) else []
    if run.part_rows != DEFAULT_PART_ROWS:
        words += ["--part-rows", str(run.part_rows)]
    return shlex.join([*words, "--out", str(run.folder)])


def _gradients(run: Run, stored: StoredMaps) -> str:
    asked, technique = stored.about, str(stored.about["technique"])
    words = ["fc7", technique, run.meta["source"]["spec"], *network_options(stored.job, "float32")]
    defaults = {"target": PREDICTED, "method": "saliency", "rule": "guided", "samples": SAMPLES}
    defaults |= {"noise": NOISE, "steps": STEPS, "layer": None, "unit": None}
    defaults |= {"baseline": stored.job.fingerprint["network"]["mean"]}
    for option, default in defaults.items():
        value = asked.get(option, default)
        if value != default:
            text = (
                ",".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value)
            )
            words += [f"--{option}", text]
    batch = stored.job.fingerprint["options"]["batch_rows"]
    words += ["--batch", str(batch)] if batch != IMAGES_TOGETHER else []
    words += ["--part-rows", str(run.part_rows)] if run.part_rows != 1024 else []
    return shlex.join([*words, "--out", str(run.folder)])


def _is_guided(job: Job) -> bool:
    return job.name == guided_patches_job(str(job.fingerprint.get("layer"))) and job.is_complete


def _guided_patches(run: Run, job: Job) -> str:
    made = job.fingerprint
    channels = ",".join(map(str, made["channels"]))
    words = ["fc7", "guided", str(run.folder), "--layer", made["layer"], "--channels", channels]
    words += ["--top", str(made["top"])]
    words += ["--rule", made["rule"]] if made["rule"] != "guided" else []
    return shlex.join(words)


def _segmentation(run: Run, asked: masks.StoredSegmentation) -> str:
    words = ["fc7", "segment", run.meta["source"]["spec"], *network_options(asked.job)]
    recipe, usual = asked.recipe, Recipe()
    for name in ("foreground", "background", "iterations", "blur", "side"):
        if getattr(recipe, name) != getattr(usual, name):
            words += [f"--{name}", str(getattr(recipe, name))]
    # What is probable follows what is sure, unless it is said.
    words += ["--probable", str(recipe.probable)] if recipe.probable != recipe.foreground else []
    words += ["--guided"] if asked.rule == "guided" else []
    words += ["--target", str(asked.target)] if asked.target != PREDICTED else []
    batch = asked.job.fingerprint["options"]["batch_rows"]
    words += ["--batch", str(batch)] if batch != masks.DEFAULT_BATCH_ROWS else []
    words += ["--part-rows", str(run.part_rows)] if run.part_rows != masks.DEFAULT_PART_ROWS else []
    return shlex.join([*words, "--out", str(run.folder)])


def _importance(run: Run, job: Job) -> str:
    words = ["fc7", "importance", run.meta["source"]["spec"], *network_options(job)]
    batch = job.fingerprint["options"]["batch_rows"]
    words += ["--batch", str(batch)] if isinstance(batch, int) else []
    words += ["--inversion"] if INVERSION in run.jobs() else []
    if run.part_rows != IMPORTANCE_PART_ROWS:
        words += ["--part-rows", str(run.part_rows)]
    return shlex.join([*words, "--out", str(run.folder)])


def _leaves(network: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in network.items()
        if value is not None
    ]


def _versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def network_facts(subject: Subject) -> Markup | None:
    """Return the network's name and weights in a phrase, or None for a run without one."""
    for job in subject.run.jobs().values():
        network = job.fingerprint.get("network")
        if network is not None:
            weights = network["weights"]
            says = "its own weights" if weights in ("default", "own") else f"weights {weights}"
            if weights == "random":
                says = f"random weights (seed {network['seed']})"
            return join([element("b", network["name"]), ", ", says])
    return None

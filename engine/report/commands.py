"""The commands that made the images of a run, and the options that any command has."""

import dataclasses
import shlex

from fc7.engine.data.pairs import names_in
from fc7.engine.data.targets import open_targets, spell_units
from fc7.engine.store import Job, Run
from fc7.engine.store.stored import StoredMaps, stored_maps
from fc7.engine.style import texture_job, transfer_job
from fc7.engine.style.fast.job import TECHNIQUE as STYLIZE
from fc7.engine.style.fast.options import StylizeOptions, TrainStylizerOptions
from fc7.engine.style.fast.training import TECHNIQUE as STYLIZER
from fc7.engine.style.texture_options import TextureJobOptions
from fc7.engine.style.transfer_options import StyleJobOptions
from fc7.engine.synthesis import dream_job, invert_job
from fc7.engine.synthesis.attack_options import AttackOptions
from fc7.engine.synthesis.classes import ClassesOptions
from fc7.engine.synthesis.dream_options import DreamJobOptions
from fc7.engine.synthesis.fool_job import FoolOptions
from fc7.engine.synthesis.invert_job import InvertJobOptions
from fc7.engine.synthesis.stored import StoredClasses, stored_classes
from fc7.engine.synthesis.stored_fool import StoredFool, stored_fools


def synthesis_commands(run: Run) -> dict[str, str]:
    """Return the command behind each job of synthesis, by the job's name."""
    return {
        **{one.job.name: _classes(run, one) for one in stored_classes(run)},
        **{one.job.name: _fool(run, one) for one in stored_fools(run)},
        **{one.job.name: _stylize(run, one) for one in stored_maps(run, STYLIZE)},
        **{name: _train(run, job) for name, job in run.jobs().items() if _is_trained(job)},
        **{one.job.name: _dream(run, one) for one in stored_maps(run, dream_job.TECHNIQUE)},
        **{one.job.name: _invert(run, one) for one in stored_maps(run, invert_job.TECHNIQUE)},
        **{one.job.name: _texture(run, one) for one in stored_maps(run, texture_job.TECHNIQUE)},
        **{one.job.name: _style(run, one) for one in stored_maps(run, transfer_job.TECHNIQUE)},
    }


def network_options(job: Job, dtype: str = "float16") -> list[str]:
    """Return the options of a job's network that are not the defaults, and how it is stored."""
    network, options = job.fingerprint["network"], job.fingerprint.get("options", {})
    words = ["--model", str(network["name"])]
    weights = job.meta.get("notes", {}).get("weights_file") or network["weights"]
    if weights not in ("default", "own"):
        words += ["--weights", str(weights)]
    if network.get("seed"):
        words += ["--seed", str(network["seed"])]
    if network.get("precision", "fp32") != "fp32":
        words += ["--precision", str(network["precision"])]
    if options.get("dtype", dtype) != dtype:
        words += ["--dtype", str(options["dtype"])]
    if options.get("maps"):
        words.append("--maps")
    return words


def _classes(run: Run, stored: StoredClasses) -> str:
    asked, usual = stored.about, ClassesOptions()
    targets = open_targets(run.meta["source"]["spec"])
    words = ["fc7", "classes", *network_options(stored.job)]
    if targets.layer is None:
        words += ["--classes", spell_units(targets.units)]
    else:
        words += ["--layer", targets.layer, "--units", spell_units(targets.units)]
    words += ["--neurons"] if asked["neurons"] else []
    words += ["--starts", str(targets.starts)] if targets.starts > 1 else []
    words += ["--preset", str(asked["preset"])] if asked["preset"] != usual.preset else []
    words += ["--steps", str(asked["recipe"]["steps"])]
    network = stored.job.fingerprint["network"]["transform"]
    if asked["size"] != [network["crop"], network["crop"]]:
        words += ["--size", "x".join(map(str, asked["size"]))]
    seeded = "--seed" in words
    words += ["--seed", str(asked["seed"])] if asked["seed"] != usual.seed and not seeded else []
    words += ["--part-rows", str(run.part_rows)] if run.part_rows != usual.part_rows else []
    return shlex.join([*words, "--out", str(run.folder)])


def _fool(run: Run, stored: StoredFool) -> str:
    words, asked = (
        ["fc7", "fool", run.meta["source"]["spec"], *network_options(stored.job)],
        stored.about,
    )
    usual = AttackOptions(method=str(asked["method"]), epsilon=float(asked.get("epsilon", 8 / 255)))
    defaults = {"method": AttackOptions.method, "target": FoolOptions.target, **usual.asked()}
    defaults |= {"method": AttackOptions.method, "epsilon": AttackOptions.epsilon}
    for name in ("method", "target", "steps", "step", "probability", "epsilon", "seed"):
        if name in asked and asked[name] != defaults[name] and f"--{name}" not in words:
            words += [f"--{name}", str(asked[name])]
    batch = stored.job.fingerprint["options"]["batch_rows"]
    words += ["--batch", str(batch)] if batch != FoolOptions.batch_rows else []
    words += ["--part-rows", str(run.part_rows)] if run.part_rows != FoolOptions.part_rows else []
    return shlex.join([*words, "--out", str(run.folder)])


def _invert(run: Run, stored: StoredMaps) -> str:
    asked, usual = stored.about, InvertJobOptions()
    words = ["fc7", "invert", run.meta["source"]["spec"], *network_options(stored.job)]
    words += ["--layers", str(asked["layer"])]
    for name in ("evaluations", "starts", "variation", "colours", "optimiser", "seed"):
        if asked[name] != getattr(usual, name) and not (name == "seed" and "--seed" in words):
            words += [f"--{name}", str(asked[name])]
    together = stored.job.fingerprint["options"]["together"]
    words += ["--batch", str(together)] if together > usual.batch_rows else []
    words += ["--part-rows", str(run.part_rows)] if run.part_rows != usual.part_rows else []
    return shlex.join([*words, "--out", str(run.folder)])


def _dream(run: Run, stored: StoredMaps) -> str:
    asked, options = stored.about, stored.job.fingerprint["options"]
    words = ["fc7", "dream", run.meta["source"]["spec"], *network_options(stored.job)]
    words += ["--layer", str(asked["layer"])]
    usual = {field.name: field.default for field in dataclasses.fields(DreamJobOptions)}
    said = {name: asked.get(name, default) for name, default in usual.items()}
    # By its layers' sizes where nobody said otherwise; of the guide its file's name.
    said |= {"guide": asked["guide_name"], "batch_rows": options["batch_rows"]}
    said |= {"part_rows": run.part_rows, "tile": asked["tile_asked"]}
    for name in ("channel", "guide", "octaves", "ratio", "steps", "step_size", "jitter", "tile",
                 "side", "form", "seed", "batch_rows", "part_rows"):  # fmt: skip
        if said[name] != usual[name] and not (name == "seed" and "--seed" in words):
            words += [_option(name), str(said[name])]
    return shlex.join([*words, "--out", str(run.folder)])


def _texture(run: Run, stored: StoredMaps) -> str:
    asked, options = stored.about, stored.job.fingerprint["options"]
    words = ["fc7", "texture", run.meta["source"]["spec"], *network_options(stored.job)]
    words += ["--size", "x".join(map(str, asked["size"]))] if asked["size"] else []
    words += ["--layers", ",".join(asked["layers_asked"])] if asked["layers_asked"] else []
    words += ["--tileable"] if asked["tileable"] else []
    usual = {field.name: field.default for field in dataclasses.fields(TextureJobOptions)}
    said = {**asked, "batch_rows": options["batch_rows"], "part_rows": run.part_rows}
    for name in ("octaves", "evaluations", "histogram", "pooling", "samples", "side", "seed",
                 "batch_rows", "part_rows"):  # fmt: skip
        if said[name] != usual[name] and not (name == "seed" and "--seed" in words):
            option = "batch" if name == "batch_rows" else name.replace("_", "-")
            words += [f"--{option}", str(said[name])]
    return shlex.join([*words, "--out", str(run.folder)])


def _style(run: Run, stored: StoredMaps) -> str:
    asked, options = stored.about, stored.job.fingerprint["options"]
    contents, styles, _ = names_in(run.meta["source"]["spec"])
    words = ["fc7", "style", contents, *(word for one in styles for word in ("--style", one))]
    for name, written in asked["words"].items():
        words += [_option(name), ",".join(map(str, written))] if written else []
    words += network_options(stored.job)
    usual = {field.name: field.default for field in dataclasses.fields(StyleJobOptions)}
    said = {**usual, **asked, "batch_rows": options["batch_rows"], "part_rows": run.part_rows}
    for name in ("style_weight", "content_weight", "style_scale", "scales", "ratio", "start",
                 "pooling", "tile", "evaluations", "variation", "optimiser", "side", "form", "seed",
                 "batch_rows", "part_rows"):  # fmt: skip
        if said[name] != usual[name] and not (name == "seed" and "--seed" in words):
            words += [_option(name), str(said[name])]
    words += ["--keep-colours"] if said["keep_colours"] else []
    return shlex.join([*words, "--out", str(run.folder)])


def _option(name: str) -> str:
    return "--" + {"form": "format", "batch_rows": "batch"}.get(name, name.replace("_", "-"))


def _is_trained(job: Job) -> bool:
    is_stylizer = job.kind == "stage" and job.name.partition("-")[0] == STYLIZER
    return is_stylizer and job.result_record() is not None


def _train(run: Run, job: Job) -> str:
    options, judge = job.fingerprint["options"], job.fingerprint["judge"]
    record = job.result_record()
    assert record is not None
    words = ["fc7", "stylize", "train", run.meta["source"]["spec"], "--model", str(judge["name"])]
    words += [] if judge["weights"] in ("default", "own") else ["--weights", str(judge["weights"])]
    words += [word for file in record["info"]["files"] for word in ("--style", str(file))]
    for kind in ("style", "content"):
        layers = ",".join(f"{name}={weight!r}" for name, weight in options["layers"][kind])
        words += [f"--{kind}-layers", layers]
    options_of_all = TrainStylizerOptions(crop=options["crop"])
    usual = {**options_of_all.asked, "part_rows": options_of_all.part_rows}
    usual["crop"] = TrainStylizerOptions.crop
    said = {**usual, **options, "part_rows": run.part_rows}
    for name in usual:
        if said[name] != usual[name]:
            option = {"batch_rows": "batch"}.get(name, name.replace("_", "-"))
            words += [f"--{option}", str(said[name])]
    return shlex.join([*words, "--out", str(run.folder)])


def _stylize(run: Run, stored: StoredMaps) -> str:
    usual, asked, notes = StylizeOptions(), stored.about, stored.job.meta["notes"]
    words = ["fc7", "stylize", "apply", run.meta["source"]["spec"]]
    words += ["--network", str(notes["network_file"] or "FILE")]
    batch = stored.job.fingerprint["options"]["batch_rows"]
    said = {"style": notes["style"], "side": asked["side"], "format": asked["form"]}
    said |= {"batch": batch, "part-rows": run.part_rows}
    defaults = {"style": usual.style, "side": usual.side, "format": usual.form}
    defaults |= {"batch": usual.batch_rows, "part-rows": usual.part_rows}
    for name, value in said.items():
        words += [f"--{name}", str(value)] if value != defaults[name] else []
    return shlex.join([*words, "--out", str(run.folder)])

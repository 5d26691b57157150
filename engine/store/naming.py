"""Names of jobs that a run may hold several of, each asked differently: saliency, saliency-2."""

import itertools
import re
from collections.abc import Mapping
from typing import Any

from fc7.engine.store.run import Run


def name_in(run: Run, base: str, asked: Mapping[str, Any]) -> str:
    """Return the job of a run that was asked the same, or the name of a new one.

    Args:
        run: the run.
        base: the first job's name; the others are `base-2` and so on.
        asked: what distinguishes the jobs, ready for JSON: options of their fingerprints.
    """
    pattern = re.compile(rf"{re.escape(base)}(-\d+)?")
    held = {name: job for name, job in run.jobs().items() if pattern.fullmatch(name)}
    for name, job in held.items():
        options = job.fingerprint["options"]
        if {key: options.get(key) for key in asked} == asked:
            return name
    numbered = (f"{base}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([base], numbered) if name not in held)

"""Runs on the disk: parts, atomic commits, resumption, verification.

Opening a run imports numpy alone; pyarrow joins when the rows table is read, torch never.
"""

from fc7.engine.store.array import PartedArray
from fc7.engine.store.checkpoints import Checkpoints
from fc7.engine.store.job import (
    BYTES,
    Arrays,
    Fold,
    Map,
    Output,
    ResumableStage,
    Stage,
    Yielded,
)
from fc7.engine.store.job_folder import Job
from fc7.engine.store.part import DEFAULT_PART_ROWS, Part, plan_parts
from fc7.engine.store.parted_bytes import PartedBytes
from fc7.engine.store.run import Run, open_store
from fc7.engine.store.runner import (
    Progress,
    Report,
    Summary,
    run_fold,
    run_map,
    run_stage,
    summarize,
)
from fc7.engine.store.verify import Damage, verify

__all__ = [
    "BYTES",
    "DEFAULT_PART_ROWS",
    "Arrays",
    "Checkpoints",
    "Damage",
    "Fold",
    "Job",
    "Map",
    "Output",
    "Part",
    "PartedArray",
    "PartedBytes",
    "Progress",
    "Report",
    "ResumableStage",
    "Run",
    "Stage",
    "Summary",
    "Yielded",
    "open_store",
    "plan_parts",
    "run_fold",
    "run_map",
    "run_stage",
    "summarize",
    "verify",
]

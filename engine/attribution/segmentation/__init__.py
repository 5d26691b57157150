"""Segmentation over data sets: seeds, GrabCut, the job, what a run holds, pictures."""

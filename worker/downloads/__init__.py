"""Getting a task's model versions and artefacts: fetch, resume, verify, apply deltas."""

"""Driver of a Ray job. The Python that has Ray runs it, so it imports nothing of Lamella.

    python ray_job.py JOB.json

The document has the `address` of a running Ray, a `runtime_env`, and the `program` of the job's one task.
"""

from __future__ import annotations

import json
import logging
import sys

import ray


def run(program: str) -> None:
    """Run Python. This is the task: it works in the job's runtime environment."""
    exec(program, {})


def main() -> None:
    """Submit the job, and wait for its task."""
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    try:
        ray.init(job["address"], runtime_env=job["runtime_env"], log_to_driver=False, logging_level=logging.ERROR)
        ray.get(ray.remote(run).remote(job["program"]))
    except ray.exceptions.RayError as error:
        # Messages of Ray end with the reason, such as the last line of pip.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.exit(f"error: {lines[-1] if lines else type(error).__name__}")


if __name__ == "__main__":
    main()

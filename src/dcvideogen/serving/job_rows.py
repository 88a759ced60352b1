"""Rows of the table `jobs` -> `Job`."""

from __future__ import annotations

import sqlite3

from dcvideogen.serving.jobs import Job, JobFailure, JobRequest, Progress, Stage, Status


def job_of(row: sqlite3.Row) -> Job:
    """A row with all columns, as a value."""
    stage, code = row["stage"], row["error_code"]
    return Job(
        id=row["id"],
        number=row["number"],
        key_id=row["key_id"],
        request=JobRequest.model_validate_json(row["request"]),
        status=Status(row["status"]),
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        seconds=row["seconds"],
        progress=None if stage is None else Progress(Stage(stage), row["done"], row["total"]),
        preview=row["preview"],
        deaths=row["deaths"],
        cancel_requested=bool(row["cancel"]),
        failure=None if code is None else JobFailure(code, row["error_message"], row["error_hint"]),
        num_bytes=row["num_bytes"],
        device=row["device"],
    )

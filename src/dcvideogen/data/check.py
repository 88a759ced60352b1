"""The check of a dataset: scans what is new or changed, and writes what can be used and what cannot, and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from dcvideogen.data.index import INDEX, REJECTED, Record, parse_record, write_records
from dcvideogen.data.items import Item
from dcvideogen.data.judge import judge
from dcvideogen.data.scan import measurement, scan
from dcvideogen.data.settings import CheckSettings
from dcvideogen.data.sources import list_items, source_root
from dcvideogen.data.workers import scan_all
from dcvideogen.errors import UserError

# What an interrupted check had found; the next one goes on from it.
PARTIAL = ".scan.partial.jsonl"
SECONDS_PER_ITEM = 600.0


@dataclass(frozen=True)
class Report:
    """What a check found: usable and rejected records in the order of the source, and how many were decoded for it."""

    usable: list[Record]
    rejected: list[Record]
    scanned: int

    def reasons(self) -> Counter[str]:
        return Counter(record.reason for record in self.rejected)


def check_source(
    source: Path,
    output: Path,
    settings: CheckSettings,
    *,
    jobs: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Writes output/index.jsonl and output/rejected.jsonl and returns what is in them.

    jobs: processes. progress: called with files done and files to do. Files that an earlier check in `output` decoded
    with the same settings, and whose size and date are the same, are only judged again. Raises UserError when the
    source offers nothing; that nothing usable is left is for the caller to judge.
    """
    items, root = list_items(source), source_root(source)
    if not items:
        raise UserError(f"{source}: holds no files; give a folder, manifest or shard with videos or images")
    output.mkdir(parents=True, exist_ok=True)
    measured = measurement(settings)
    known = _known(output)
    records = {
        item.name: scan(item, root, settings) if item.problem else _reuse(item, known.get(item.name), measured)
        for item in items
    }
    todo = [item for item in items if records[item.name] is None]
    progress(0, len(todo))
    found = scan_all(todo, root, settings, jobs=jobs, seconds_per_item=SECONDS_PER_ITEM)
    with (output / PARTIAL).open("a", encoding="utf-8") as partial, closing(found):
        for count, record in enumerate(found, start=1):
            records[record.name] = record
            partial.write(record.line() + "\n")
            partial.flush()
            progress(count, len(todo))
    judged = [judge(record, settings) for record in records.values()]
    report = Report([r for r in judged if r.reason is None], [r for r in judged if r.reason is not None], len(todo))
    # The index last: it is what training looks for.
    write_records(output / REJECTED, report.rejected)
    write_records(output / INDEX, report.usable)
    (output / PARTIAL).unlink()
    return report


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nothing_left(source: Path, report: Report, output: Path) -> UserError:
    """The error for a source of which nothing can be used."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons().most_common())
    return UserError(f"{source}: nothing usable is left ({reasons}); {output / REJECTED} says why, file by file")


def _known(output: Path) -> dict[str, Record]:
    """What earlier checks found, by name; a line that cannot be read (the last one of a killed check) is none."""
    known = {}
    for file in (INDEX, REJECTED, PARTIAL):
        if not (output / file).is_file():
            continue
        for text in (output / file).read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = parse_record(text)
            except (ValueError, TypeError):
                continue
            known[record.name] = record
    return known


def _reuse(item: Item, record: Record | None, measured: str) -> Record | None:
    same = (
        record is not None
        and record.measured == measured
        and (record.bytes, record.mtime_ns, record.offset) == (item.size, item.mtime_ns, item.offset)
        and (record.start, record.end) == (item.start, item.end)
        # Of what had been no media file or missing, nothing was measured.
        and record.reason not in ("other", "missing", "duplicate")
    )
    return replace(record, caption=item.caption) if same else None

"""The numbers of the study of adaptation, read off the runs that are done, and what they say of each claim."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptation_study_arms import ARMS, NEAR

Entry = dict[str, Any]  # what was measured at a step
SAME = 0.02  # of the semantic score: "within" the base's
ALIGN_RATIO, TIME_RATIO, STEP_SHARE = 50.0, 3.5, 0.2


@dataclass(frozen=True)
class Results:
    """runs[arm][seed]: results.json. base: base.json, or None. settings: study.json. rates: rates.json, or None."""

    runs: dict[str, dict[int, dict[str, Any]]]
    base: dict[str, Any] | None
    settings: dict[str, Any]
    rates: dict[str, Any] | None

    @property
    def arms(self) -> list[str]:
        return [name for name in ARMS if name in self.runs]

    @property
    def steps(self) -> list[int]:
        return self.settings["checkpoints"]

    def values(self, arm: str, step: int, value: Callable[[Entry], float]) -> list[float]:
        """One per seed."""
        return [value(run["scores"][str(step)]) for run in self.runs.get(arm, {}).values()]

    def semantic(self, arm: str, step: int) -> list[float]:
        return self.values(arm, step, lambda entry: entry["score"]["semantic"])

    def final(self, arm: str, name: str) -> list[float]:
        return self.values(arm, self.steps[-1], lambda entry: entry["final"][name])

    def starts(self, arm: str) -> list[dict[str, Any]]:
        return [run["start"] for run in self.runs.get(arm, {}).values()]


def read_results(folder: Path) -> Results:
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(folder.glob("runs/*-seed*/results.json")):
        name, seed = path.parent.name.rsplit("-seed", 1)
        runs.setdefault(name, {})[int(seed)] = json.loads(path.read_text())

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text()) if (folder / name).exists() else None

    return Results(runs, read("base.json"), read("study.json"), read("rates.json"))


def number(values: list[float], digits: int = 3) -> str:
    """The mean, and the range where there are several."""
    if not values:
        return "not run"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def verdict(better: list[float], worse: list[float]) -> str:
    """Of "better is higher than worse": by the ranges over the seeds alone."""
    if not better or not worse:
        return "not run"
    known = "" if min(len(better), len(worse)) > 1 else ", as far as one seed can say"
    if min(better) > max(worse):
        return f"held{known}"
    if max(better) < min(worse):
        return f"did not hold: it is the other way round{known}"
    return "undecided: the seeds overlap" if not known else "undecided"


def claims(results: Results) -> list[tuple[str, str]]:
    """(claim, what was measured and whether it held); only of what is done."""
    final, first, last = results.final, results.steps[0], results.steps[-1]
    rows = []

    def compare(claim: str, better: str, worse: str, at: int | None = None) -> None:
        own, other = (
            (results.semantic(arm, at) if at is not None else final(arm, "semantic")) for arm in (better, worse)
        )
        when = f"at step {at}" if at is not None else f"after {last} steps"
        told = f"semantic {when}: ({ARMS[better].letter}) {number(own)}, ({ARMS[worse].letter}) {number(other)}"
        rows.append((claim, f"{verdict(own, other)}. {told}"))

    compare("Paper: aligned ends say something before any training of the blocks, random ones do not", "paper",
            "direct", first)  # fmt: skip
    compare("Paper: without alignment the same training ends lower", "paper", "direct")
    peak = collapse(results)
    if peak:
        rows.append(("Paper: without alignment the score rises, then falls into noise", peak))
    compare("Paper: from scratch ends far lower after the same steps", "paper", "scratch")
    compare("Paper: LoRA ends higher than full fine-tuning", "ours", "ours-full")
    compare("Reviewers: alignment does more than training random ends on the frozen model", "paper", "frozen")
    rows.append(("Paper: the adapted model reaches the base", reached(results, "paper")))
    compare("Ours: closed form starts higher than SGD", "ours", "paper", first)
    compare("Ours: closed form ends higher than SGD", "ours", "paper")
    compare("base_grid positions start lower than integer ones", "ours", "ours-grid", first)
    compare("base_grid positions end lower than integer ones", "ours", "ours-grid")
    compare("The 3-frame offset left in starts lower", "ours", "ours-offset", first)
    compare("The 3-frame offset left in ends lower", "ours", "ours-offset")
    return rows


def collapse(results: Results) -> str:
    """Whether direct fine-tuning fell from its best score by more than the noise of a few dozen videos."""
    if "direct" not in results.runs:
        return ""
    means = {step: statistics.fmean(results.semantic("direct", step)) for step in results.steps}
    best = max(means, key=means.get)
    end = means[results.steps[-1]]
    held = "held" if best != results.steps[-1] and means[best] - end > 0.1 else "did not hold within these steps"
    return f"{held}. (b) is best at step {best} with {means[best]:.3f} and has {end:.3f} at step {results.steps[-1]}"


def reached(results: Results, arm: str) -> str:
    if not results.base or arm not in results.runs:
        return "not run"
    base, own = results.base["final"]["semantic"], results.final(arm, "semantic")
    held = "held" if statistics.fmean(own) >= base - SAME else "did not hold"
    return f"{held}. semantic after {results.steps[-1]} steps {number(own)}, base {base:.3f}"


def cost_of_aligning(results: Results) -> list[tuple[str, str]]:
    """The solver's seconds beside SGD's until its held-out loss was within 1 % of the solver's, of the same seeds."""
    ours, paper = ({seed: run["start"] for seed, run in results.runs.get(arm, {}).items()} for arm in ("ours", "paper"))
    seeds = sorted(ours.keys() & paper.keys())
    if not seeds:
        return []
    rows, solver_total, sgd_total = [], 0.0, 0.0
    for stage, name in (("align", "embedder"), ("head", "head")):
        told, ratios = [], []
        for seed in seeds:
            seconds, loss = ours[seed][f"{stage}_seconds"], ours[seed][f"{stage}_loss"]
            sgd, steps, found = sgd_until(paper[seed], stage, NEAR * loss)
            ratios.append(sgd / seconds)
            solver_total += seconds
            sgd_total += sgd
            when = f"{steps:.0f} steps, {sgd:.4g} s" if found else f"not within {steps} steps, {sgd:.4g} s"
            told.append(f"seed {seed}: {seconds:.3g} s (loss {loss:.5g}); SGD {when} ({ratios[-1]:.3g} times)")
        met = "met" if min(ratios) >= ALIGN_RATIO else "missed"
        rows.append((f"{name}: {ALIGN_RATIO:.0f} times cheaper than SGD until within 1 % of its held-out loss",
                     f"{met}. {'; '.join(told)}"))  # fmt: skip
    ratio = sgd_total / solver_total
    met = "met" if ratio >= ALIGN_RATIO else "missed"
    return [*rows, ("both together", f"{met}: {ratio:.3g} times")]


def sgd_until(start: Entry, stage: str, loss: float) -> tuple[float, float, bool]:
    """(seconds, steps, True) when SGD's held-out loss came down to `loss`, on straight lines between measurements where
    these were kept; (seconds, steps, False) of all its steps if it never did."""
    curve = start.get(f"{stage}_curve") or []
    for (step, high, seconds), (next_step, low, next_seconds) in itertools.pairwise(curve):
        if low <= loss < high:
            share = (high - loss) / (high - low)
            return seconds + share * (next_seconds - seconds), step + share * (next_step - step), True
    return start[f"{stage}_seconds"], start[f"{stage}_steps"], start[f"{stage}_loss"] <= loss


def targets(results: Results, base_steps: int) -> list[tuple[str, str]]:
    """(target, what came of it)."""
    rows = []
    if results.base and "ours" in results.runs:
        base, own = results.base["score"]["semantic"], results.base["final"]["semantic"]
        near = [s for s in results.steps if statistics.fmean(results.semantic("ours", s)) >= base - SAME]
        allowed = STEP_SHARE * base_steps
        met = "met" if near and near[0] <= allowed else "missed"
        captions, videos = results.settings["captions"], results.base["final"]["videos"]
        when = f"first at step {near[0]}" if near else "at no checkpoint"
        rows.append((f"(e) within {SAME} of the base's semantic in at most {allowed:.0f} steps",
                     f"{met}: {when} ({captions} captions; base {base:.3f}); at the end, {videos} videos: "
                     f"{number(results.final('ours', 'semantic'))}, base {own:.3f}"))  # fmt: skip
    rows += cost_of_aligning(results)
    if results.base:
        seconds = results.base["seconds"]
        ratio = seconds["base"] / seconds["adapted"]
        met = "met" if ratio >= TIME_RATIO else "missed"
        told = f"{met}: {seconds['base']:.3g} s against {seconds['adapted']:.3g} s, {ratio:.2f} times"
        rows.append((f"DiT time per video at least {TIME_RATIO} times lower", told))
    return rows

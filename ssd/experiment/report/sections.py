"""The document of an experiment: claims first, then a section per setting, then how it all was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ssd.experiment.references import FLOORS
from ssd.experiment.report.claims import RULE, Verdict, verdicts
from ssd.experiment.report.document import Block, Grid, Heading, Paragraph, Picture
from ssd.experiment.report.pictures import title_of
from ssd.experiment.report.results import EVALUATED, Results, finished_before
from ssd.experiment.report.room import claimed_rooms, room_words
from ssd.experiment.report.statistics import holm, p_value, paired, seeds_needed, spread
from ssd.experiment.report.words import (
    MISSING,
    NONE,
    difference_words,
    ordered,
    row_of,
    spread_words,
    value,
)
from ssd.federation.provenance import code_words, without_commit
from ssd.federation.words import duration, size

Json = Any
CLAIMS_CAPTION = (
    "*Error pooled over methods*: the same difference by a randomised-block model (method + seed), whose error all methods of "
    "the setting share. *p, Holm*: two-sided, by the paired differences, corrected for the number of claims on this page; "
    "a verdict whose p is above 0.05 may be one of many looks. *Seeds needed*: until a difference and a spread as seen here would "
    "decide. *Room*: what the base gains with its images dealt evenly or in one place, whichever is more; where there is none "
    "the claim could not be judged, whatever its verdict. *Post hoc*: written down after results could be seen."
)


def document(results: Results, pictures: Mapping[str, list[Picture | Paragraph]]) -> list[Block]:
    """The whole report.

    Args:
        results: the finished cells.
        pictures: what stands at the end of each setting's section.
    """
    experiment = results.experiment
    done, total = len(results.results), len(results.cells)
    seeds = ", ".join(map(str, experiment.experiment.seeds))
    blocks: list[Block] = [
        Heading(1, f"Experiment {experiment.experiment.name}"),
        Paragraph(
            f"{done} of {total} cells are finished. Seeds {seeds}; within a setting and a seed all methods have the same "
            "partition, initial weights and draws of labels."
        ),
    ]
    if results.missing:
        blocks.append(Paragraph(f"Missing: {', '.join(results.missing)}."))
    if results.outdated:
        blocks.append(
            Paragraph(
                f"Measured otherwise than the file says now, and left out: {', '.join(results.outdated)}. The same "
                "`ssd experiment` measures them again."
            )
        )
    if experiment.claims:
        blocks += _claims(results)
    for setting in experiment.settings:
        blocks += _setting(results, setting.name)
        blocks += pictures.get(setting.name, [])
    return blocks + _provenance(results)


def _claims(results: Results) -> list[Block]:
    found = verdicts(results)
    plain = [p_value(each.difference, each.claim.threshold) for each in found]
    several = iter(holm([each for each in plain if each is not None]))
    rows = [
        [
            _named(each), each.claim.text, each.word, _evidence(each),
            difference_words(each.pooled, row_of(each.claim.measure)),
            MISSING if chance is None else f"{next(several):.2g}",
            _needed(each), _room(each), _when(results, each),
        ]
        for each, chance in zip(found, plain, strict=True)
    ]  # fmt: skip
    head = [
        "claim", "words", "verdict", "difference [95 % interval]", "error pooled over methods", "p, Holm",
        "seeds needed", "room", "written down",
    ]  # fmt: skip
    return [Heading(2, "Claims"), Paragraph(RULE), Grid(head, rows, CLAIMS_CAPTION)]


def _needed(verdict: Verdict) -> str:
    needed = seeds_needed(verdict.difference, verdict.claim.threshold)
    if verdict.difference is None or verdict.difference.error is None:
        return MISSING
    return "over 1,000" if needed is None else str(needed)


def _room(verdict: Verdict) -> str:
    if verdict.room is None:
        return NONE
    words = difference_words(verdict.room.gain, row_of(verdict.room.measure))
    return f"**none**: {words}" if verdict.certain else words


def _named(verdict: Verdict) -> str:
    return f"{verdict.claim.name} ({verdict.setting})"


def _evidence(verdict: Verdict) -> str:
    claim = verdict.claim
    row = row_of(claim.measure)
    evidence = difference_words(verdict.difference, row)
    side = "above" if claim.direction == "above" else "below"
    seeds = f"; {verdict.planned} seeds planned" if _count(verdict) < verdict.planned else ""
    return (
        f"{row.words}, {claim.method} − {claim.against}: {evidence}; claimed {side} "
        f"{value(claim.threshold, row, sign=True)}{seeds}"
    )


def _count(verdict: Verdict) -> int:
    return 0 if verdict.difference is None else verdict.difference.count


def _when(results: Results, verdict: Verdict) -> str:
    finished = finished_before(results, verdict.claim)
    if finished is None:
        return "unknown to the runner"
    return (
        "before any cell had finished"
        if finished == 0
        else f"**post hoc**: when {finished} cells had finished"
    )


def _setting(results: Results, setting: str) -> list[Block]:
    labels = results.columns(setting)
    titles = [title_of(results, label) for label in labels]
    base = results.experiment.base
    rows = [row_of(measure) for measure in ordered(results.measures(setting))]
    blocks: list[Block] = [Heading(2, setting), Paragraph(_facts(results, setting))]
    if not rows:
        return [*blocks, Paragraph("No cell has a measure yet.")]
    if told := _unmeasured_clients(results, setting):
        blocks.append(Paragraph(told))
    means = []
    for row in rows:
        cells = [
            spread_words(
                spread(list(results.values(setting, label, row.key).values())),
                row,
                len(results.seeds(setting, label)),
                _absent(results, setting, label),
            )
            for label in labels
        ]
        means.append([row.words, *cells])
    blocks.append(Grid(["", *titles], means, "Mean ± sample standard deviation over seeds."))
    if base in labels and len(labels) > 1:
        others = [label for label in labels if label != base]
        gap = _absent(results, setting, base)
        pairs = []
        for row in rows:
            reference = results.values(setting, base, row.key)
            found = [paired(results.values(setting, label, row.key), reference) for label in others]
            absent = [
                NONE if NONE in (_absent(results, setting, label), gap) else MISSING for label in others
            ]
            words = [difference_words(each, row, gone) for each, gone in zip(found, absent, strict=True)]
            pairs.append([row.words, *words])
        caption = (
            f"Paired differences to {title_of(results, base)}, seed by seed: mean [95 % interval by the t-distribution], "
            "number of seeds. Accuracies in percentage points."
        )
        blocks.append(Grid(["", *(title_of(results, label) for label in others)], pairs, caption))
    base_title = title_of(results, base)
    rooms = [room_words(each, base_title) for each in claimed_rooms(results, setting)]
    blocks += [Paragraph(words) for words in rooms]
    blocks += _commands(results, setting)
    trained = [label for label in labels if label not in FLOORS]
    blocks.append(_cost(results, setting, trained, [title_of(results, label) for label in trained]))
    return blocks


def _unmeasured_clients(results: Results, setting: str) -> str:
    """Which cells' means over clients leave some out; empty if none does."""
    table = next(each for each in results.experiment.settings if each.name == setting)
    few = []
    for cell in results.cells:
        if cell.setting == setting and cell.name in results.results:
            measured = results.numbers(cell.name).get(f"{EVALUATED}/personalised_clients", table.clients)
            if measured < table.clients:
                few.append(f"{cell.name}: {measured:.0f}")
    return (
        f"Not all of the {table.clients} clients were measured at the end: {', '.join(few)}." if few else ""
    )


def _absent(results: Results, setting: str, method: str) -> str:
    """What stands for a number that a method does not have: cells are missing, or the number is not defined."""
    done = any(results.of(setting, method, seed) is not None for seed in results.seeds(setting, method))
    return NONE if done else MISSING


def _commands(results: Results, setting: str) -> list[Block]:
    """How the final measures were taken, once for all methods that were measured alike."""
    told: dict[str, None] = {}
    for label in results.methods(setting):
        for seed in results.seeds(setting, label):
            result = results.of(setting, label, seed)
            for name, measured in () if result is None else result["measures"].items():
                how = measured["how"]
                words = " ".join(["ssd evaluate", "--data", how["data"], *how["arguments"]])
                told[f"{name}: {words}" if name else words] = None
    return (
        [Paragraph(f"Measured with {'; '.join(told)}. What each means is in docs/evaluation.md.")]
        if told
        else []
    )


def _facts(results: Results, setting: str) -> str:
    table = next(each for each in results.experiment.settings if each.name == setting)
    cohort = table.cohort_size or table.clients
    options = ", ".join(f"{key} {item}" for key, item in table.partition.items()) or "the defaults"
    return (
        f"{table.data or results.experiment.data.kind}, {table.clients} clients of which {cohort} take part in each of "
        f"{table.rounds} rounds; partition: {options}."
    )


def _cost(results: Results, setting: str, labels: list[str], titles: list[str]) -> Grid:
    words = {
        "bytes_up": ("sent up", size),
        "bytes_down": ("sent down", size),
        "round_seconds": ("time for the rounds", duration),
        "processor_seconds": ("processor time of training", duration),
    }
    rows = []
    for key, (name, write) in words.items():
        cells = []
        for label in labels:
            found = [results.of(setting, label, seed) for seed in results.seeds(setting, label)]
            values = [float(each["cost"][key]) for each in found if each is not None]
            cells.append(write(sum(values) / len(values)) if values else MISSING)
        rows.append([name, *cells])
    resumed = any(result["cost"]["resumed"] for result in results.results.values())
    note = (
        " Some cell was taken up again after an interruption: its processor time is of the last part."
        if resumed
        else ""
    )
    return Grid(["", *titles], rows, f"Of a whole cell, mean over seeds.{note}")


def _provenance(results: Results) -> list[Block]:
    rows = []
    machines: dict[str, int] = {}
    uncommitted = 0
    for place in results.cells:
        result = results.results.get(place.name)
        if result is None:
            rows.append([place.name, MISSING, MISSING, MISSING])
            continue
        made = json.dumps(
            {
                "versions": result["versions"],
                "machine": result["machine"],
                "code": result["code"],
                "packages": result.get("packages", ""),
            },
            sort_keys=True,
        )
        number = machines.setdefault(made, len(machines) + 1)
        mark = " *" if without_commit(result["code"]) else ""
        uncommitted += bool(mark)
        rows.append(
            [
                place.name,
                result["model_digest"][:16] or NONE,
                result["partition_digest"][:16] or "-",
                f"{number}{mark}",
            ]
        )
    blocks: list[Block] = [
        Heading(2, "Digests"),
        Grid(
            ["cell", "model", "partition", "made with"],
            rows,
            "The first 16 digits; whole ones in results.json.",
        ),
        Heading(2, "Made with"),
    ]
    if uncommitted:
        blocks.append(
            Paragraph(
                f"{uncommitted} cells (*) were made by code that no commit holds: nobody can make them again."
            )
        )
    if len(machines) > 1:
        blocks.append(
            Paragraph(
                f"**The cells were made in {len(machines)} different ways** (code, packages or machine): a difference between "
                "cells of different numbers may be theirs."
            )
        )
    for text, number in machines.items():
        made = json.loads(text)
        machine = ", ".join(f"{key} {item}" for key, item in made["machine"].items())
        versions = ", ".join(f"{key} {item}" for key, item in made["versions"].items())
        blocks.append(
            Paragraph(
                f"{number}: {machine}. {versions}. Code: {code_words(made['code'])}."
                + (f" All packages: {made['packages'][:16]}." if made["packages"] else "")
            )
        )
    return blocks

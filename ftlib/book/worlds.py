"""The worlds side by side, from their results alone: what a chapter answers, its picture, and the words for both.

A world is a set of images with its backbone and its protocol: a folder of results, named as its profile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ftlib.book.claims import SYMBOLS, Claim
from ftlib.book.record import UNPUBLISHED, load_results

# As pages name and order them; a world that is not here follows under the name of its profile.
NAMES = {
    "cpu": "drawn characters",
    "digits": "digits",
    "chars74k": "Chars74K",
    "office31": "Office-31",
    "tinyimagenet": "Tiny-ImageNet",
    "officehome": "Office-Home",
    "imagenet_r": "ImageNet-R",
    "imagenet_sketch": "ImageNet-Sketch",
    "vtab": "VTAB",
    "iwildcam": "iWildCam",
    "photographs": "your photographs",
    "study": "drawn characters, twelve pairs",
    "gpu": "drawn characters, GPU",
}
WORDS = {
    "replicates": "holds",
    "contradicts": "contradicted",
    "inconclusive": "cannot tell",
    "reported": "not judged",
}
NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def read_worlds(root: str | Path = "results") -> dict[str, dict[str, dict[str, Any]]]:
    """Name of the world, in the order of pages, to chapter to what it recorded; tests and trials are left out.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_results`.
    """
    order, results = list(NAMES), load_results(root)
    known = sorted(results, key=lambda profile: (order.index(profile) if profile in order else len(order), profile))
    return {NAMES.get(profile, profile): results[profile] for profile in known if profile not in UNPUBLISHED}


def claims_in(worlds: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Claim]]:
    """Id to world to Claim, in the order of the chapters."""
    found: dict[str, dict[str, Claim]] = {}
    for chapter in sorted({chapter for of in worlds.values() for chapter in of}):
        for world, of in worlds.items():
            for entry in of.get(chapter, {"claims": ()})["claims"]:
                found.setdefault(entry["id"], {})[world] = Claim.from_json(entry)
    return found


def listing(names: Iterable[str], every: Iterable[str] = ()) -> str:
    """Names in a sentence, or their number if they are all of many. Few are named: a reader may know of others.

    >>> listing(["digits", "Office-31"]), listing("abcd", every="abcd")
    ('digits and Office-31', 'all four worlds')
    """
    names = list(names)
    if len(names) > 3 and set(names) == set(every):
        return f"all {(*NUMBERS, len(names))[min(len(names), 11)]} worlds"
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def answer(found: Mapping[str, Claim], holds: str, fails: str, every: Iterable[str] = ()) -> str:
    """The sentence that the verdicts of all worlds choose.

    ``holds`` and ``fails`` are clauses such as "the features improve", with a comma at the end if one belongs before
    "in digits"; ``every`` are the worlds of the page.
    """
    by: dict[str, list[str]] = {}
    bare = holds.removesuffix(",")
    for world, claim in found.items():
        by.setdefault(claim.verdict, []).append(world)
    where = {verdict: listing(worlds, every) for verdict, worlds in by.items()}
    told = [f"{clause} in {where[v]}" for v, clause in (("replicates", holds), ("contradicts", fails)) if v in by]
    if "inconclusive" in by:
        told.append(f"{'' if told else f'whether {bare}, '}in {where['inconclusive']} these repetitions cannot tell")
    if "reported" in by:
        told.append(f"{'' if told else f'whether {bare} '}is not judged in {where['reported']}")
    sentence = "; ".join(told)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def measured_in(found: Iterable[Mapping[str, Claim]], claims: Mapping[str, Mapping[str, Claim]]) -> list[str]:
    """The worlds, in the order of pages, in which one of the claims ``found`` among all was measured."""
    measured = {world for of in found for world in of}
    return [world for world in dict.fromkeys(w for of in claims.values() for w in of) if world in measured]


def sentences(clauses: Mapping[str, Mapping[str, str]], claims: Mapping[str, Mapping[str, Claim]]) -> list[str]:
    """A sentence for each claim that was measured, of ``{id: {holds, fails}}``."""
    found = {id: claims[id] for id in clauses if id in claims}
    every = measured_in(found.values(), claims)
    return [answer(of, clauses[id]["holds"], clauses[id]["fails"], every) for id, of in found.items()]


def spoken(claim: Claim) -> str:
    """A claim's effect, its interval and its verdict, for those who point at a mark or cannot see it."""
    low, mean, high = (claim.written(x, "+") for x in (claim.low, claim.mean, claim.high))
    interval = f"95 % interval {low} to {high}" if claim.n > 1 else "no interval"
    return f"{mean} {claim.unit}, {interval}, n = {claim.n}: {WORDS[claim.verdict]}"


def panel(found: Mapping[str, Claim], every: Iterable[str]) -> str:
    """HTML: a row a world with the mean as a dot, the interval as a line, and a rule where the bound is.

    Rows stretch with the page while their text keeps its size; colours are those of `reading.css`, light and dark.
    """
    every, claims = list(every), list(found.values())
    bounds = [b for c in claims for b in ((-c.within, c.within) if c.within else (c.at_least or 0.0,))]
    ends = [x for c in claims for x in (c.low, c.mean, c.high) if math.isfinite(x)] + bounds + [0.0]
    low, span = min(ends), max(ends) - min(ends) or 1.0

    def at(x: float) -> str:
        return f"{4 + 92 * (x - low) / span:.1f}%"

    def rule(kind: str, x: float) -> str:
        return f'<line class="{kind}" x1="{at(x)}" x2="{at(x)}" y1="0" y2="100%"/>'

    rules = rule("zero", 0) + "".join(rule("bound", b) for b in sorted({*bounds} - {0.0}))
    rows = []
    for world in every:
        mark, value, verdict, title = "", "not measured", "missing", ""
        if claim := found.get(world):
            if claim.n > 1:
                mark = f'<line class="interval" x1="{at(claim.low)}" x2="{at(claim.high)}" y1="50%" y2="50%"/>'
            mark += f'<circle cx="{at(claim.mean)}" cy="50%" r="5"/>'
            value, verdict = f"{claim.written(claim.mean, '+')} <small>n = {claim.n}</small>", claim.verdict
            title = f' title="{escape(f"{world}: {spoken(claim)}")}"'
        rows.append(
            f'<div class="world {verdict}"{title}><span class="name">{escape(world)}</span>'
            f'<svg height="22" aria-hidden="true">{rules}{mark}</svg><span class="value">{value}</span></div>'
        )
    told = "; ".join(f"{world} {spoken(claim)}" for world, claim in found.items())
    return f'<div class="rows" role="img" aria-label="{escape(told)}">{"".join(rows)}</div>'


def tally(claims: Mapping[str, Mapping[str, Claim]]) -> str:
    """HTML: a row a world, a bar with how many of its judged claims hold, cannot be told and are contradicted."""
    rows = []
    for world in dict.fromkeys(world for found in claims.values() for world in found):
        verdicts = [found[world].verdict for found in claims.values() if world in found]
        counts = {v: verdicts.count(v) for v in ("replicates", "inconclusive", "contradicts") if v in verdicts}
        bar = "".join(f'<span class="{v}" style="flex-grow: {count}">{count}</span>' for v, count in counts.items())
        told = ", ".join(f"{count} {WORDS[v]}" for v, count in counts.items())
        rows.append(
            f'<div class="world" role="img" aria-label="{escape(f"{world}: {told}")}" title="{told}">'
            f'<span class="name">{escape(world)}</span><span class="bar">{bar}</span>'
            f'<span class="value">of {sum(counts.values())}</span></div>'
        )
    key = "Green holds, grey cannot be told from these repetitions, orange is contradicted."
    return f'<figure class="worlds">{"".join(rows)}<figcaption>{key}</figcaption></figure>'


def matrix(
    chapters: Mapping[tuple[str, str], Mapping[str, Mapping[str, Claim]]], anchor: str, fold: bool = False
) -> str:
    """HTML: a row a claim, a column a world, the verdict as a chip that tells effect, interval and n when pointed at.

    ``chapters`` is (name of its file, title) to the claims as `claims_in` gives them; chapter 2 is found at
    "<anchor>-02". Without room for columns the chips stand below the statement, each with the name of its world. With
    ``fold`` a chapter's rows are a table of their own, behind its title and its number of verdicts of each kind.
    """
    worlds = list(dict.fromkeys(w for claims in chapters.values() for found in claims.values() for w in found))
    parts = []
    for (chapter, title), claims in chapters.items():
        own = [row_of(id, found, worlds, f"{chapter}.html#{id}") for id, found in claims.items()]
        place, title = f'id="{anchor}-{chapter[:2]}"', escape(title)
        if fold:
            verdicts = [claim.verdict for found in claims.values() for claim in found.values()]
            counts = {verdict: verdicts.count(verdict) for verdict in SYMBOLS if verdict in verdicts}
            chips = " ".join(f'<span class="chip {v}">{SYMBOLS[v]} {count}</span>' for v, count in counts.items())
            parts.append(f"<details {place}><summary>{title} {chips}</summary>{_matrix(worlds, own)}</details>")
        else:
            head = f'<th colspan="{len(worlds) + 1}" scope="rowgroup"><a href="{chapter}.html">{title}</a></th>'
            parts += [f'<tr {place} class="chapter">{head}</tr>', *own]
    return f'<div class="folds">{"".join(parts)}</div>' if fold else _matrix(worlds, parts)


def rows_with_records(found: Mapping[str, Mapping[str, Claim]], own: str) -> str:
    """HTML: the matrix of a few claims of one page, with numbers, and below each the record of the ``own`` world."""
    worlds = list(dict.fromkeys(w for of in found.values() for w in of))
    rows = []
    for id, of in found.items():
        record = f"{escape(of[own].record())} <code>{id}</code>"
        told = f'<tr class="record"><td colspan="{len(worlds) + 1}">{escape(own)}: {record}</td></tr>'
        rows += [row_of(id, of, worlds, numbers=True), told]
    return _matrix(worlds, rows)


def row_of(id: str, found: Mapping[str, Claim], worlds: Sequence[str], href: str = "", numbers: bool = False) -> str:
    """HTML: a claim's row, its statement (a link if there is an ``href``) and a chip for each world."""
    chips = ['<td class="missing"></td>'] * len(worlds)
    for place, claim in ((place, found[world]) for place, world in enumerate(worlds) if world in found):
        told, mark = spoken(claim), SYMBOLS[claim.verdict] + numbers * f" {claim.written(claim.mean, '+')}"
        chips[place] = (
            f'<td data-world="{escape(worlds[place])}"><span class="chip {claim.verdict}" tabindex="0" role="img" '
            f'title="{escape(told)}" aria-label="{escape(f"{worlds[place]}: {told}")}">{mark}</span></td>'
        )
    first = next(iter(found.values()))
    statement = f'<a href="{href}">{escape(first.statement)}</a>' if href else escape(first.statement)
    statement += f" <small>({escape(first.unit)})</small>" if numbers else ""
    return f'<tr id="{id}"><th scope="row">{statement}</th>{"".join(chips)}</tr>'


def _matrix(worlds: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(world)}</th>" for world in worlds)
    return f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'

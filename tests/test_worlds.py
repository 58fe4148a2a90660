"""ftlib.book.worlds: what verdicts choose to be said, and a picture whose marks stand where the numbers are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ftlib.book.claims import check
from ftlib.book.record import Record
from ftlib.book.worlds import answer, claims_in, listing, matrix, panel, read_worlds, rows_with_records, spoken, tally

BOOK = Path(__file__).resolve().parent.parent / "book"


def claim(*effects, **how):
    return check("id", "It holds.", {f"seed {i}": e for i, e in enumerate(effects)}, **how)


YES, NO, UNSURE, ONCE = claim(9.0, 10.0, 11.0), claim(-9.0, -10.0, -11.0), claim(-9.0, 0.0, 10.0), claim(5.0)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"a": YES, "b": YES, "c": YES, "d": YES}, "It gains in all four worlds."),
        ({"a": YES, "b": YES, "c": YES}, "It gains in a, b and c."),
        ({"a": YES}, "It gains in a."),
        ({"a": YES, "b": NO, "c": UNSURE}, "It gains in a; it loses in b; in c these repetitions cannot tell."),
        ({"a": NO, "c": UNSURE}, "It loses in a; in c these repetitions cannot tell."),
        ({"a": UNSURE, "b": UNSURE}, "Whether it gains, in a and b these repetitions cannot tell."),
        ({"a": ONCE}, "Whether it gains is not judged in a."),
        ({}, ""),
    ],
)
def test_the_verdicts_choose_what_is_answered(found, sentence):
    assert answer(found, "it gains", "it loses", every=found) == sentence


def test_a_clause_that_ends_with_a_comma_has_one_before_its_worlds_and_no_second():
    said = [answer({"a": verdict}, "it gains, in time,", "it loses,") for verdict in (YES, NO, UNSURE)]
    assert said[0] == "It gains, in time, in a." and said[1] == "It loses, in a."
    assert said[2] == "Whether it gains, in time, in a these repetitions cannot tell."


def test_all_worlds_are_said_only_where_no_world_of_the_page_is_left_out():
    found = dict.fromkeys("abcd", YES)
    assert answer(found, "it gains", "it loses", every="abcde") == "It gains in a, b, c and d."
    assert listing("abcd") == "a, b, c and d"


def test_worlds_are_named_and_ordered_and_tests_are_none(tmp_path):
    for profile in ("office31", "a-new-one", "digits", "cpu", "ci", "local"):
        record = Record("03-what-breaks", profile, root=tmp_path)
        record.check("absent-drop", "It falls.", {"seed 0": 1.0, "seed 1": 2.0})
        record.save()
    worlds = read_worlds(tmp_path)
    assert list(worlds) == ["drawn characters", "digits", "Office-31", "a-new-one"]
    assert list(claims_in(worlds)["absent-drop"]) == list(worlds)


def test_a_mark_is_at_the_mean_between_the_ends_of_its_interval():
    drawn = panel({"a": YES, "b": NO}, ["a", "b"])
    x1, x2, cx = (
        [float(x) for x in re.findall(pattern, drawn)]
        for pattern in (r'interval" x1="([\d.]+)%', r'interval" x1="[\d.]+%" x2="([\d.]+)%', r'cx="([\d.]+)%')
    )
    assert x1[0] < cx[0] < x2[0] and abs(x1[0] + x2[0] - 2 * cx[0]) < 0.2
    zero = float(re.search(r'zero" x1="([\d.]+)%', drawn)[1])
    assert cx[1] < zero < cx[0] and abs(cx[0] - zero - (zero - cx[1])) < 0.2


def test_a_row_says_its_verdict_in_its_class_and_to_those_who_cannot_see_it():
    drawn = panel({"a": YES, "b": NO}, ["a", "b", "c"])
    assert re.findall(r'<div class="world (\w+)"', drawn) == ["replicates", "contradicts", "missing"]
    assert "a +10.0 points, 95 % interval +7.5 to +12.5, n = 3: holds; b −10.0 points" in drawn
    assert "c</span>" in drawn and "not measured" in drawn


def test_one_repetition_has_a_mark_and_no_interval():
    drawn = panel({"a": ONCE}, ["a"])
    assert "<circle" in drawn and 'class="interval"' not in drawn
    assert spoken(ONCE) == "+5.0 points, no interval, n = 1: not judged"


def test_a_bound_that_is_not_zero_has_a_rule_of_its_own():
    rules = re.findall(r'class="(zero|bound)"', panel({"a": claim(9.0, 10.0, at_least=2.0)}, ["a"]))
    assert rules == ["zero", "bound"]


def test_every_chapter_answers_with_claims_that_the_book_makes():
    told = yaml.safe_load((BOOK / "answers.yml").read_text(encoding="utf-8"))
    made = {c["id"] for path in BOOK.glob("results/cpu/*.json") for c in json.loads(path.read_text())["claims"]}
    for chapter, of in told.items():
        assert (BOOK / f"{chapter}.md").exists() and len(of) <= 2
        assert set(of) <= made, f"{chapter} answers with claims that no chapter makes"
        assert all(set(words) == {"effect", "holds", "fails"} for words in of.values())


def test_a_bar_counts_what_is_judged():
    drawn = tally({"one": {"a": YES, "b": NO}, "two": {"a": YES}, "three": {"a": ONCE, "b": UNSURE}})
    assert re.findall(r'aria-label="([^"]+)"', drawn) == ["a: 2 holds", "b: 1 cannot tell, 1 contradicted"]
    assert re.findall(r'class="(\w+)" style="flex-grow: (\d)"', drawn) == [
        ("replicates", "2"), ("inconclusive", "1"), ("contradicts", "1")
    ]  # fmt: skip


def test_a_folded_matrix_counts_its_verdicts_in_the_line_that_opens_it():
    drawn = matrix({("02-two", "2 What breaks?"): {"one": {"a": YES, "b": NO}, "two": {"b": NO}}}, "own", fold=True)
    summary = re.search(r'<details id="own-02"><summary>(.*?)</summary>', drawn)[1]
    assert re.sub("<[^>]+>", "", summary) == "2 What breaks? ✓ 1 ✗ 2"


def test_a_pages_claims_have_numbers_of_all_worlds_and_the_record_of_its_own():
    drawn = rows_with_records({"one": {"a": YES, "b": NO}}, "a")
    assert re.findall(r">(. [+−][\d.]+)</span>", drawn) == ["✓ +10.0", "✗ −10.0"]
    (record,) = re.findall(r'<tr class="record"><td[^>]*>(.*?)</td>', drawn)
    assert record == "a: 10.0 points, 95 % interval [7.5, 12.5], n = 3 · expected above 0 · <code>one</code>"


def test_the_matrix_has_a_row_a_claim_and_a_chip_a_world_that_tells_the_numbers():
    drawn = matrix({("02-two", "2 What breaks?"): {"one": {"a": YES, "b": NO}, "two": {"b": ONCE}}}, "paper")
    assert '<tr id="paper-02" class="chapter">' in drawn and '<a href="02-two.html">2 What breaks?</a>' in drawn
    assert re.findall(r'chip (\w+)"[^>]+aria-label="(\w): [^"]+">(.)<', drawn) == [
        ("replicates", "a", "✓"), ("contradicts", "b", "✗"), ("reported", "b", "·")
    ]  # fmt: skip
    assert drawn.count('<td class="missing">') == 1

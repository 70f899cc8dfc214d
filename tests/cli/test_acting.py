"""The commands that change something: what they ask, what they do, and what they refuse."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Pabal


def parked(pabal: Pabal, file: Path) -> dict[int, str]:
    page = json.loads(pabal("dead-letters", "list", file, "--json").stdout)
    return {letter["id"]: letter["state"] for letter in page["dead_letters"]}


def test_dead_letters_retry_retries_one_dead_letter(pabal: Pabal, file: Path) -> None:
    """The command in the runbook would do nothing."""
    done = pabal("dead-letters", "retry", file, 1)
    assert (done.exit_code, done.output) == (
        0,
        "1 done; takes effect when the subscription is handled next\n",
    )
    assert parked(pabal, file) == {1: "retrying", 2: "parked"}
    again = pabal("dead-letters", "retry", file, 1)
    assert (again.exit_code, again.stderr) == (
        1,
        "pabal: dead letter 1 is being retried already; nothing was changed\n",
    )


def test_discarding_all_matching_dead_letters_asks_for_confirmation_with_their_count(
    pabal: Pabal, file: Path
) -> None:
    """A slip would discard dead letters that are still needed."""
    dry = pabal("dead-letters", "discard", file, "--subscription", "pack", "--dry-run")
    assert (dry.exit_code, dry.output) == (0, "Discard 2 dead letters for good?\nnothing was changed\n")
    refused = pabal("dead-letters", "discard", file, "--subscription", "pack", input="n\n")
    assert (refused.exit_code, len(parked(pabal, file))) == (1, 2)
    (group,) = json.loads(pabal("dead-letters", "list", file, "--groups", "--json").stdout)
    done = pabal("dead-letters", "discard", file, "--error", group["error_type"], "--yes")
    assert (done.exit_code, parked(pabal, file)) == (0, {})
    nothing = pabal("dead-letters", "discard", file, "--all", "--yes")
    assert (nothing.exit_code, nothing.output) == (1, "no dead letter matches\n")


@pytest.mark.parametrize("action", ["retry", "discard"])
def test_dead_letters_parked_while_the_question_waits_are_left_alone(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Whoever agreed to discard two would discard two hundred, and never know of what."""

    def answer(question: str) -> str:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE dead_letters SET subscription = 'mail' WHERE id = 2")
        return "y"

    monkeypatch.setattr("pabal.cli.base._ask", answer)
    changed = pabal("dead-letters", action, file, "--subscription", "pack")
    assert changed.exit_code == 1
    assert changed.stderr == "pabal: 1 dead letter matches now; nothing was changed\n"
    assert parked(pabal, file) == {1: "parked", 2: "parked"}


def test_dead_letters_edit_validates_the_payload_against_the_event_class(pabal: Pabal, file: Path) -> None:
    """A payload that no handler can read would replace one that was merely wrong."""
    wrong = pabal("dead-letters", "edit", file, 1, "--set", "quantity=many")
    assert (wrong.exit_code, "quantity" in wrong.stderr) == (1, True)
    unknown = pabal("dead-letters", "edit", file, 1, "--set", "colour=red")
    assert (unknown.exit_code, "order_id, quantity, email" in unknown.stderr) == (2, True)
    assert parked(pabal, file) == {1: "parked", 2: "parked"}
    dry = pabal("dead-letters", "edit", file, 1, "--set", "quantity=4", "--dry-run")
    assert json.loads(dry.output)["quantity"] == 4
    done = pabal("dead-letters", "edit", file, 1, "--import", "json", "--set", "quantity=4")
    assert (done.exit_code, parked(pabal, file)[1]) == (0, "retrying")


def test_retry_all_skips_and_counts_dead_letters_that_are_already_being_retried(
    pabal: Pabal, file: Path
) -> None:
    """A user who retries all twice would think that the second time had an effect."""
    pabal("dead-letters", "retry", file, 1)
    rest = pabal("--lang", "ko", "dead-letters", "retry", file, "--all", "--yes")
    assert rest.exit_code == 0
    assert rest.output.startswith("1개 완료, 1개는 그대로 둠")
    again = pabal("dead-letters", "retry", file, "--all", "--yes")
    assert (again.exit_code, again.output) == (
        1,
        "0 done, 2 left unchanged\npabal: nothing was changed\n",
    )


def test_pausing_or_resuming_a_subscription_twice_fails_the_second_time(pabal: Pabal, file: Path) -> None:
    """A second pause would look as if the first had not worked."""
    assert pabal("subscriptions", "pause", file, "pack").exit_code == 0
    again = pabal("subscriptions", "pause", file, "pack")
    assert (again.exit_code, again.stderr) == (1, "pabal: 'pack' is paused already\n")
    assert pabal("subscriptions", "resume", file, "pack").exit_code == 0
    assert pabal("subscriptions", "resume", file, "pack").exit_code == 1


def test_subscriptions_reset_describes_the_move_and_asks_for_confirmation(pabal: Pabal, file: Path) -> None:
    """A typing error would deliver everything again."""
    refused = pabal("subscriptions", "reset", file, "pack", "--to", "beginning", input="n\n")
    assert (refused.exit_code, "from position 8 to beginning?" in refused.output) == (1, True)
    done = pabal("subscriptions", "reset", file, "pack", "--to", "3", "--yes")
    assert (done.exit_code, done.output) == (0, "1 done, now at position 3\n")
    (view,) = json.loads(pabal("subscriptions", "list", file, "--json").stdout)
    assert (view["watermark"], view["lag"]) == (3, 5)


def test_reset_and_replay_accept_times_and_describe_the_action_in_a_dry_run(pabal: Pabal, file: Path) -> None:
    """Users would have to look up the position for a time, or a dry run would change something."""
    before = pabal("subscriptions", "list", file).output
    dry = pabal("subscriptions", "reset", file, "pack", "--to", "2h", "--dry-run")
    assert (dry.exit_code, dry.output) == (
        0,
        "Move 'pack' from position 8 to 2h? 8 positions are delivered again.\nnothing was changed\n",
    )
    dry = pabal("replay", file, "pack", "--from", "2026-05-01", "--to", "0s", "--dry-run")
    assert (dry.exit_code, dry.output) == (
        0,
        "Deliver the events between 2026-05-01 and 0s to 'pack' again?\nnothing was changed\n",
    )
    dry = pabal("--lang", "ko", "replay", file, "pack", "--from", 2, "--dry-run")
    assert dry.output == "위치 2부터 8까지를 'pack'에 다시 전달할까요?\n아무것도 바뀌지 않았습니다\n"
    assert (pabal("subscriptions", "list", file).output, pabal("audit", file).output) == (
        before,
        "the audit log is empty\n",
    )
    empty = pabal("replay", file, "pack", "--to", "1h", "--dry-run")
    assert (empty.exit_code, empty.stdout) == (2, "")
    assert empty.stderr == "pabal: there is nothing to deliver to 'pack' again in this range\n"
    done = pabal("--lang", "ko", "replay", file, "pack", "--from", "2h", "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)["pending"]) == (0, True)
    done = pabal("subscriptions", "reset", file, "pack", "--to", "2h", "--yes")
    assert (done.exit_code, done.output) == (0, "1 done, now at position 0\n")


def test_a_reset_says_how_many_positions_are_delivered_again_or_skipped(pabal: Pabal, file: Path) -> None:
    """An operator who moves a cursor ahead would be told that events are delivered again, and lose them."""
    reset = ("subscriptions", "reset", file, "pack", "--to")
    assert pabal(*reset, "now", "--dry-run").stdout.splitlines()[0] == "Move 'pack' from position 8 to now?"
    assert pabal(*reset, 7, "--dry-run").stdout.splitlines()[0].endswith("1 position is delivered again.")
    assert pabal(*reset, 3, "--yes").exit_code == 0
    ahead = pabal(*reset, "now", "--dry-run").stdout.splitlines()[0]
    assert ahead == "Move 'pack' from position 3 to now? 5 positions are skipped."
    ahead = pabal("--lang", "ko", *reset, "now", "--dry-run").stdout.splitlines()[0]
    assert ahead == "'pack'의 위치를 3에서 now(으)로 옮길까요? 위치 5개를 건너뜁니다."


def test_dry_runs_print_json_for_programs(pabal: Pabal, file: Path) -> None:
    """A script that decides by the plan would have to parse a question, in the language of the locale."""

    def planned(*arguments: object) -> dict[str, Any]:
        result = pabal("--lang", "ko", *arguments, "--dry-run", "--json")
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        plan: dict[str, Any] = json.loads(result.stdout)
        return plan

    plan = planned("subscriptions", "reset", file, "pack", "--to", "beginning")
    assert plan == {"subscription": "pack", "watermark": 8, "position": 0, "again": 8, "skipped": 0}
    assert planned("replay", file, "pack", "--from", 2, "--to", 99)["count"] == 7
    assert planned("replay", file, "pack", "--from", "2h")["count"] == 8
    assert planned("dead-letters", "retry", file, "--all")["count"] == 2
    plan = planned("dead-letters", "discard", file, "--subscription", "pack")
    assert (plan["action"], plan["subject"], plan["count"]) == ("discard", "subscription=pack", 2)
    assert parked(pabal, file) == {1: "parked", 2: "parked"}


def test_a_question_is_not_written_into_the_json(pabal: Pabal, file: Path) -> None:
    """With > result.json the command would seem to hang, and the file would not be JSON."""
    done = pabal("dead-letters", "discard", file, "--all", "--json", input="y\n")
    assert json.loads(done.stdout)["count"] == 2
    assert done.stderr.startswith("Discard 2 dead letters for good? [y/N]: ")


def test_groups_of_dead_letters_can_be_filtered(pabal: Pabal, file: Path) -> None:
    """The counts would be those of all subscriptions, although only one was asked for."""
    groups = ("dead-letters", "list", file, "--groups", "--json")
    error = json.loads(pabal(*groups).stdout)[0]["error_type"]
    assert json.loads(pabal(*groups, "--subscription", "pack", "--error", error).stdout)[0]["count"] == 2
    assert json.loads(pabal(*groups, "--subscription", "mail").stdout) == []
    assert json.loads(pabal(*groups, "--error", "OSError").stdout) == []
    refused = pabal(*groups, "--type", "shop.order")
    assert (refused.exit_code, "--type" in refused.stderr) == (2, True)


def test_replay_requests_a_replay_of_a_range_of_positions(pabal: Pabal, file: Path) -> None:
    """A read model could not be filled again after a repair."""
    done = pabal("replay", file, "pack", "--from", 1, "--to", 3, "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)["pending"]) == (0, True)


def test_retention_deletes_the_oldest_events_and_vacuum_succeeds_afterwards(pabal: Pabal, file: Path) -> None:
    """The file would grow forever."""
    dry = pabal("retention", file, "--max-events", 2, "--dry-run")
    assert dry.output == "Delete the 6 oldest of 8 events?\nnothing was changed\n"
    dry = pabal("retention", file, "--max-events", 2, "--dry-run", "--json")
    assert json.loads(dry.stdout) == {"deleted": 6, "held_back_by": []}
    assert json.loads(pabal("status", file, "--json").stdout)["totals"]["events"] == 8
    done = pabal("retention", file, "--max-events", 2, "--yes")
    assert (done.exit_code, done.output) == (0, "6 events deleted\n")
    assert pabal("vacuum", file).exit_code == 0
    assert json.loads(pabal("status", file, "--json").stdout)["totals"]["events"] == 2


def test_retention_names_the_subscriptions_that_hold_back_deletion(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file would grow although it is trimmed every night, without saying what holds it back."""
    monkeypatch.chdir(file.parent)
    pabal("subscriptions", "reset", file, "pack", "--to", 3, "--yes")
    dry = pabal("retention", file, "--max-events", 2, "--dry-run")
    assert dry.output == "Delete the 3 oldest of 8 events?\nheld back by pack\nnothing was changed\n"
    result = pabal("--lang", "ko", "retention", file.name, "--max-age", "0s", "--yes")
    assert (result.exit_code, result.output) == (0, "이벤트 3개를 지웠습니다\n아직 필요로 하는 쪽: pack\n")
    (entry, _) = json.loads(pabal("audit", file, "--json").stdout)
    assert entry["result"] == "3 events deleted, held back by pack"
    result = pabal("--lang", "ko", "audit", file)
    assert "이벤트 3개 삭제, 아직 필요로 하는 쪽: pack" in result.stdout
    # Nothing is left to delete, so there is no question.
    again = pabal("retention", file, "--max-bytes", 1, "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (0, {"deleted": 0, "held_back_by": ["pack"]})


def test_the_audit_log_lists_operator_actions_and_their_results(pabal: Pabal, file: Path) -> None:
    """It would be impossible to tell afterwards who trimmed the log."""
    pabal("subscriptions", "pause", file, "pack")
    pabal("retention", file, "--max-events", 2, "--yes")
    entries = json.loads(pabal("audit", file, "--json").stdout)
    assert [(entry["action"], entry["result"]) for entry in entries] == [
        ("retention", "6 events deleted"),
        ("pause", "1 done"),
    ]
    pabal("vacuum", file)
    assert "바이트 반환" in pabal("--lang", "ko", "audit", file).stdout


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["events", "list", "missing.db"], 3, "there is no such file"),
        (["status", "notes.txt"], 3, "is not a pabal database"),
        (["status", "http://example.com"], 2, "has no log"),
        (["status", "sqlite://host/x.db"], 2, "names no file"),
        (["events", "list", "shop.db", "--since", "soonish"], 2, "since='soonish' is not a valid filter"),
        (["events", "list", "shop.db", "--type", "a b"], 2, "type='a b' is not a valid filter"),
        (["events", "list", "shop.db", "--before", "x"], 2, "before='x' is not a valid filter"),
        (["tail", "shop.db", "--since", "soonish"], 2, "since='soonish' is not a valid filter"),
        (["tail", "missing.db"], 3, "there is no such file"),
        (["replay", "shop.db", "pack", "--to", "whenever"], 2, "to='whenever'"),
        (["events", "show", "shop.db", "nonsense"], 1, "there is no event nonsense"),
        (["events", "trace", "shop.db", "nonsense"], 1, "there is no event nonsense"),
        (["subscriptions", "pause", "shop.db", "nobody"], 1, "known subscriptions: pack"),
        (["subscriptions", "reset", "shop.db", "pack", "--to", "whenever"], 2, "to='whenever'"),
        (["replay", "shop.db", "nobody", "--yes"], 1, "known subscriptions: pack"),
        (["dead-letters", "retry", "shop.db", "99"], 1, "99"),
        (["dead-letters", "discard", "shop.db"], 2, "name one dead letter"),
        (["dead-letters", "discard", "shop.db", "1", "--all"], 2, "name one dead letter"),
        (["dead-letters", "edit", "shop.db", "1", "--import", "no_such_module"], 2, "cannot import"),
        (["retention", "shop.db"], 2, "--max-age"),
        (["retention", "shop.db", "--max-age", "long"], 2, "is not an age"),
        (["vacuum", "notes.txt"], 3, "is not a pabal database"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_input_exits_with_an_error_code_and_a_one_line_message(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, part: str
) -> None:
    """A mistake would end in a traceback, or in an action that was not asked for."""
    monkeypatch.chdir(file.parent)
    Path("notes.txt").write_text("not a log at all, just some notes")
    before = json.loads(pabal("subscriptions", "list", "shop.db", "--json").stdout)
    refused = pabal(*arguments)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert part in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert json.loads(pabal("subscriptions", "list", "shop.db", "--json").stdout) == before
    assert not Path("missing.db").exists()
    assert Path("notes.txt").read_text() == "not a log at all, just some notes"

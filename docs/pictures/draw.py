"""Draw the pictures of the documentation, in English and Korean.

python docs/pictures/draw.py            write every picture beside this file
python docs/pictures/draw.py --check    write nothing; exit code 1 if one is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from drawing import Drawing  # noqa: E402
from korean import KOREAN  # noqa: E402

Say = Callable[[str], str]
"""Takes a text in English and returns it in the language that is being drawn."""


def way_of_an_event(say: Say) -> Drawing:
    """From publish() to the saved watermark, with what can happen on the way."""
    title = say("The way of an event: publish, log, lane, worker, handler, watermark")
    d = Drawing(960, 592, title)
    d.frame(20, 20, 920, 152, say("publishing"))
    publish = d.box(40, 70, 120, 64, "publish()", say("any coroutine"))
    stamp = d.box(200, 70, 140, 64, say("stamp"), say("id, time, cause"))
    encode = d.box(380, 70, 140, 64, say("encode"), say("and read back"))
    writer = d.box(560, 70, 160, 64, say("one writer"), say("groups, one COMMIT"), kind="log")
    log = d.box(760, 60, 160, 84, say("log"), "position 41, 42, 43 …", say("SQLite, fsync"), kind="log")
    for x in (160, 340, 520, 720):
        d.arrow((x, 102), (x + 40, 102))
    d.arrow((640, 70), (640, 46), (100, 46), (100, 70))
    d.text(370, 41, say("receipt: only after the COMMIT"), style="small soft")

    d.frame(20, 200, 920, 148, say("delivery, for each subscription"))
    feed = d.box(
        740, 242, 180, 72, say("feed"), say("live from commits,"), say("from disk where it lags"), kind="log"
    )
    route = d.box(540, 242, 160, 72, say("route"), say("class, pattern,"), say("ordering key"))
    lane = d.box(350, 242, 150, 72, say("lane"), say("one key,"), say("publish order"), kind="work")
    worker = d.box(190, 242, 120, 72, say("worker"), say("counts the"), say("attempt first"), kind="work")
    handler = d.box(40, 242, 110, 72, say("handler"), say("your code"), kind="work")
    d.arrow((830, 144), (830, 242))
    d.text(838, 190, say("commit"), style="small soft", anchor="start")
    for x in (740, 540, 350, 190):
        d.arrow((x, 278), (x - 40, 278))

    d.frame(20, 396, 920, 176, "")
    d.text(926, 417, say("what comes of it"), style="small soft", anchor="end")
    finished = d.box(40, 440, 110, 84, say("finished"), say("handled or"), say("filtered out"), kind="work")
    policy = d.box(190, 440, 140, 84, say("retry policy"), say("a pure decision"))
    later = d.box(420, 412, 200, 42, say("retry later"), say("only its key waits"), kind="wait")
    d.box(420, 464, 200, 42, say("dead letter"), "park, park_key", kind="dead")
    d.box(420, 516, 200, 42, say("halt"), "stop", kind="dead")
    cursor = d.box(770, 440, 150, 84, say("cursor"), say("watermark and"), say("exceptions"), kind="log")
    d.arrow((75, 314), (75, 440))
    d.text(83, 378, say("ok"), style="small soft", anchor="start")
    d.arrow((125, 314), (125, 384), (260, 384), (260, 440))
    d.text(192, 378, say("failed"), style="small soft")
    d.arrow((470, 412), (470, 314))
    d.text(478, 378, say("when due"), style="small soft", anchor="start")
    d.arrow((330, 485), (380, 485), (380, 433), (420, 433))
    d.arrow((380, 485), (420, 485))
    d.arrow((380, 485), (380, 537), (420, 537))
    d.arrow((620, 485), (770, 485))
    d.text(695, 476, say("saved in"), style="small soft")
    d.text(695, 503, say("one transaction"), style="small soft")
    d.arrow((95, 524), (95, 565), (845, 565), (845, 524))
    first = publish, stamp, encode, writer, log, feed, route
    attempt = lane, worker, handler
    d.walk(*first, *attempt, policy, later, *attempt, finished, cursor)
    return d


def states_of_a_delivery(say: Say) -> Drawing:
    """One event for one subscription: the states it can be in, and what moves it."""
    title = say("The states of a delivery")
    d = Drawing(960, 470, title)
    d.box(40, 60, 150, 60, say("in the log"), say("after the cursor"), kind="log")
    d.box(300, 60, 150, 60, say("queued"), say("in its lane"), kind="plain")
    d.box(560, 60, 150, 60, say("running"), say("attempt n"), kind="work")
    d.box(790, 60, 140, 60, say("finished"), say("watermark moves"), kind="work")
    d.box(300, 205, 150, 60, say("gated"), say("lower number first"), kind="wait")
    d.box(560, 205, 150, 60, say("waiting"), say("back-off"), kind="wait")
    d.box(560, 350, 150, 70, say("parked"), say("a dead letter;"), say("watermark moves"), kind="dead")
    d.box(790, 350, 140, 70, say("halted"), say("the subscription"), kind="dead")
    d.box(300, 350, 150, 70, say("queued behind"), say("a parked event"), kind="wait")
    d.arrow((190, 90), (300, 90), label=say("routed"), at=(245, 82))
    d.arrow((450, 90), (560, 90), label=say("a worker"), at=(505, 82))
    d.arrow((710, 90), (790, 90), label=say("handled"), at=(750, 82))
    d.arrow((115, 60), (115, 32), (860, 32), (860, 60))
    d.text(487, 27, say("not for this subscription, or of an unknown type: passed over"), style="small soft")
    d.arrow((345, 120), (345, 205))
    d.arrow((405, 205), (405, 120))
    d.text(337, 166, say("priority"), style="small soft", anchor="end")
    d.text(413, 166, say("its turn"), style="small soft", anchor="start")
    d.arrow((660, 120), (660, 205))
    d.text(668, 166, say("failed"), style="small soft", anchor="start")
    d.arrow((600, 205), (600, 150), (435, 150), (435, 120))
    d.text(517, 144, say("due"), style="small soft")
    d.arrow((710, 105), (752, 105), (752, 310), (668, 310), (668, 350))
    d.text(760, 245, say("given up"), style="small soft", anchor="start")
    d.text(676, 334, "park, park_key", style="code", anchor="start")
    d.arrow((752, 310), (860, 310), (860, 350))
    d.text(852, 330, "stop", style="code", anchor="end")
    d.arrow((115, 120), (115, 400), (300, 400))
    d.text(123, 392, say("its key is blocked"), style="small soft", anchor="start")
    d.arrow((560, 370), (510, 370), (510, 190), (482, 190), (482, 105), (450, 105))
    d.text(518, 330, say("retry"), style="small soft", anchor="start")
    d.arrow((300, 365), (270, 365), (270, 105), (300, 105))
    d.text(262, 300, say("released, in order"), style="small soft", anchor="end")
    d.arrow((860, 420), (860, 448), (20, 448), (20, 90), (40, 90))
    d.text(440, 441, say("resume() or restart: from the cursor again"), style="small soft")
    return d


def watermark(say: Say) -> Drawing:
    """A cursor row: everything up to the frontier is finished, but for the unfinished list."""
    title = say("A cursor: watermark, frontier, unfinished positions")
    d = Drawing(960, 300, title)
    kinds = {4: "dead", 7: "wait", 11: "work", 14: "work", 15: "plain", 16: "plain"}
    for position in range(1, 17):
        x = 40 + (position - 1) * 55
        d.box(x, 100, 48, 48, str(position), kind=kinds.get(position, "log"))
    for position, label in (
        (2, say("finished")),
        (4, say("parked")),
        (7, say("retry")),
        (11, say("running")),
        (14, say("running")),
    ):
        d.text(40 + (position - 1) * 55 + 24, 168, label, style="small soft")
    d.arrow((339, 40), (339, 96))
    d.text(339, 32, say("watermark 6: all up to here is finished"), style="bold")
    d.arrow((724, 62), (724, 96))
    d.text(724, 54, say("frontier 13: the highest finished"), style="bold")
    d.box(40, 205, 872, 64, kind="plain")
    d.text(60, 232, "subscriptions", style="code soft", anchor="start")
    d.text(200, 232, "watermark 6 · frontier 13 · unfinished [7, 11]", style="code", anchor="start")
    d.text(60, 255, "retries", style="code soft", anchor="start")
    d.text(200, 255, "7: attempts, due_at, failures", style="code", anchor="start")
    d.text(600, 232, "dead_letters", style="code soft", anchor="start")
    d.text(715, 232, say("4: a copy of the event"), style="code", anchor="start")
    d.text(600, 255, say("14 to 16 take no room: above the frontier"), style="small soft", anchor="start")
    return d


def lanes(say: Say) -> Drawing:
    """Lanes of one subscription, the queue of ready ones, and the workers."""
    title = say("Lanes and workers")
    d = Drawing(960, 330, title)
    d.frame(20, 20, 480, 290, say("lanes of one subscription"))
    rows = [
        ("order/o-1", ["41", "44", "47"], "work", say("running")),
        ("order/o-2", ["42", "46"], "plain", say("ready")),
        ("order/o-3", ["43"], "wait", say("waits for its retry")),
        ("order/o-4", ["45"], "plain", say("ready")),
    ]
    for number, (key, items, kind, state) in enumerate(rows):
        y = 58 + number * 62
        d.text(40, y + 25, key, style="code", anchor="start")
        for place, item in enumerate(items):
            d.box(135 + place * 60, y, 52, 40, item, kind=kind if place == 0 else "plain")
        d.text(330, y + 25, state, style="small soft", anchor="start")
    d.box(560, 120, 150, 90, say("ready lanes"), "o-2, o-4 …", say("first come"), kind="log")
    d.arrow((372, 140), (560, 152))
    d.arrow((372, 265), (560, 185))
    for number in range(4):
        y = 40 + number * 68
        d.box(800, y, 130, 46, f"{say('worker')} {number}", kind="work" if number == 0 else "plain")
        if number:
            d.arrow((710, 165), (800, y + 23))
    d.arrow((800, 56), (395, 76))
    d.text(660, 50, say("drains a slice, one at a time"), style="small soft")
    return d


PICTURES: dict[str, Callable[[Say], Drawing]] = {
    "way-of-an-event": way_of_an_event,
    "states-of-a-delivery": states_of_a_delivery,
    "watermark": watermark,
    "lanes": lanes,
}


def render_all() -> dict[Path, str]:
    """Return every picture's file and content."""
    rendered: dict[Path, str] = {}
    for name, draw in PICTURES.items():
        rendered[HERE / f"{name}.svg"] = draw(str).svg()
        rendered[HERE / f"{name}.ko.svg"] = draw(KOREAN.__getitem__).svg()
    return rendered


def main(arguments: list[str]) -> int:
    """Run as a program; return the exit code."""
    stale = 0
    for path, content in render_all().items():
        if path.exists() and path.read_text("utf-8") == content:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"{path.name} is out of date: run python docs/pictures/draw.py")
        else:
            path.write_text(content, "utf-8")
            print(f"wrote {path.name}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

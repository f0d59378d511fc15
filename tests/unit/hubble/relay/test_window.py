"""The merge against a slow, obvious one; and what it promises, one by one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from ciliate_hubble.relay.window import Window
from hypothesis import given, settings
from hypothesis import strategies as st

SPAN, MOST = 1.0, 4


@dataclass
class Oracle:
    """Looks at everything anew each time: lists, and the sentences of the module's docstring."""

    patient: bool
    queues: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict)  # time, number, arrival
    opened: set[int] = field(default_factory=set)
    heard: dict[int, float] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    number: int = 0

    def open(self, source: int, now: float) -> None:
        if not self.queues.setdefault(source, []):
            self.times[source] = 0
        self.heard[source] = now
        self.opened.add(source)

    def close(self, source: int) -> None:
        self.opened.discard(source)

    def push(self, source: int, time: int, now: float) -> None:
        self.times[source] = max(time, self.times[source])
        self.queues[source].append((self.times[source], self.number, now))
        self.heard[source] = now
        self.number += 1

    def pop(self, now: float) -> int | None:
        waiting = [(message, source) for source, queue in self.queues.items() for message in queue]
        if not waiting:
            return None
        silent = [source for source in self.opened if not self.queues[source]]
        if silent:
            if self.patient:
                if any(self.heard[source] + SPAN > now for source in silent):
                    return None
            else:
                full = any(len(queue) >= MOST for queue in self.queues.values())
                waited = any(message[2] + SPAN <= now for message, _ in waiting)
                if not full and not waited:
                    return None
        _, source = min((queue[0][:2], source) for source, queue in self.queues.items() if queue)
        number = self.queues[source].pop(0)[1]
        if not self.queues[source]:
            self.heard[source] = now
        return number

    @property
    def finished(self) -> bool:
        return not self.opened and not any(self.queues.values())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "close", "push", "push", "push", "pop", "pop"]), st.integers(0, 3), st.integers(0, 9)
    ),
    max_size=120,
)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.booleans())
def test_it_does_what_a_slow_and_obvious_merge_does(steps: list[tuple[str, int, int]], patient: bool) -> None:
    window: Window[int] = Window(SPAN, MOST, patient=patient)
    oracle = Oracle(patient)
    now = 0.0
    for what, source, value in steps:
        now += value * 0.06
        if what == "open" and source not in oracle.opened:
            window.open(source, now)
            oracle.open(source, now)
        elif what == "close" and source in oracle.opened:
            window.close(source)
            oracle.close(source)
        elif what == "push" and source in oracle.opened and window.has_room(source):
            window.push(source, value, oracle.number, now)
            oracle.push(source, value, now)
        elif what == "pop":
            popped = window.pop(now)
            assert (popped[1] if popped is not None else None) == oracle.pop(now)
        assert window.finished == oracle.finished
        if (due := window.due()) is not None and due > now:
            later = window.due()
            assert later is not None
            assert later <= now + SPAN


def drain(window: Window[str], now: float) -> list[str]:
    found = []
    while (popped := window.pop(now)) is not None:
        found.append(popped[1])
    return found


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("sources", [1, 2, 7])
def test_sources_that_end_in_time_are_merged_exactly(sources: int, patient: bool) -> None:
    choose = random.Random(sources)
    window: Window[int] = Window(SPAN, 1000, patient=patient)
    times = [sorted(choose.sample(range(10_000), 300)) for _ in range(sources)]
    for source in range(sources):
        window.open(source, 0)
    left = [list(reversed(own)) for own in times]
    found = []
    while any(left):
        source = choose.choice([s for s, own in enumerate(left) if own])
        window.push(source, time := left[source].pop(), time, 0)
        if not left[source]:
            window.close(source)
        while (popped := window.pop(0)) is not None:
            found.append(popped[1])
    assert found == sorted(time for own in times for time in own)
    assert window.finished
    assert not window.late


def test_a_silent_source_holds_the_others_for_the_span_and_not_longer() -> None:
    window: Window[str] = Window(SPAN, MOST, patient=True)
    window.open(1, 0)
    window.open(2, 0)
    window.push(1, 5, "a", 0.1)
    assert drain(window, 0.9) == []
    assert window.due() == SPAN
    assert drain(window, 1.0) == ["a"]
    window.push(1, 6, "b", 1.5)
    assert drain(window, 1.5) == ["b"], "it has been silent for long: nobody waits for it any more"
    window.push(2, 1, "old", 1.6)
    window.push(1, 7, "c", 1.6)
    assert drain(window, 1.6) == ["old"]
    assert window.late == 1
    assert window.due() == 1.6 + SPAN, "it has spoken: it is waited for again"
    assert drain(window, 1.6 + SPAN) == ["c"]


def test_a_source_with_much_is_not_read_further_while_a_patient_merge_waits() -> None:
    window: Window[str] = Window(SPAN, MOST, patient=True)
    window.open(1, 0)
    window.open(2, 0)
    for number in range(MOST):
        assert window.has_room(1)
        window.push(1, number, str(number), 0)
    assert not window.has_room(1)
    assert drain(window, 0.5) == []
    window.push(2, 1, "other", 0.6)
    window.close(2)
    assert drain(window, 0.6) == ["0", "1", "other", "2", "3"]


def test_a_follower_waits_for_nobody_once_a_source_has_much() -> None:
    window: Window[str] = Window(SPAN, MOST, patient=False)
    window.open(1, 0)
    window.open(2, 0)
    for number in range(MOST):
        assert drain(window, 0) == []
        window.push(1, number, str(number), 0)
    assert drain(window, 0) == ["0"]
    assert drain(window, SPAN) == ["1", "2", "3"]


def test_messages_without_a_time_stay_behind_what_they_came_after() -> None:
    window: Window[str] = Window(SPAN, MOST, patient=True)
    window.open(1, 0)
    window.open(2, 0)
    for time, message in ((5, "a5"), (0, "a lost"), (9, "a9")):
        window.push(1, time, message, 0)
    for time, message in ((4, "b4"), (6, "b6"), (10, "b10")):
        window.push(2, time, message, 0)
    window.close(1)
    window.close(2)
    assert drain(window, 0) == ["b4", "a5", "a lost", "b6", "a9", "b10"]

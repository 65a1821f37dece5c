"""The history: what it keeps beside its trials stays true whatever is recorded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nasengine.architecture import Architecture
from nasengine.history import MEASURED, History
from nasengine.trial import Status, Trial

statuses = st.sampled_from(list(Status))


@given(st.lists(st.tuples(st.integers(0, 8), statuses, st.booleans()), max_size=40))
def test_what_is_kept_is_what_a_scan_finds(records):
    history = History()
    rewrites = 0
    for wanted, status, look in records:
        number = min(wanted, len(history))
        if number < len(history) and history[number].status is not Status.RUNNING:
            rewrites += 1
        history.record(Trial(number, Architecture({"a": str(number)}), f"k{number}", status))
        if look:
            running = [trial.number for trial in history if trial.status is Status.RUNNING]
            assert history.settled == min(running, default=len(history))
            assert history.complete == [t for t in history if t.status is Status.COMPLETE]
            assert history.measured == [t for t in history if t.status in MEASURED]
            assert history.rewrites == rewrites
            assert history.keys == {trial.key for trial in history}

"""What a subscriber is told: a greeting, every change once, and where to go on."""

from __future__ import annotations

from perry.sessions.models import Session
from perry.sessions.subscription import Subscription
from tests.sessions.test_journal import journal_of, record


def told(subscription: Subscription[Session]) -> list[tuple[str, str | None]]:
    return [(one.kind, one.change.key[-1] if one.change else None) for one in subscription.unread()]


def test_a_subscriber_is_greeted_and_then_told_what_changes() -> None:
    journal = journal_of()
    record(journal, {}, {"before": 1})
    subscription = Subscription(journal, None)
    assert told(subscription) == [("ready", None)]
    assert told(subscription) == []
    record(journal, {}, {"a": 1}, {"a": 1, "b": 1})
    assert told(subscription) == [("created", "a"), ("created", "b")]
    assert told(subscription) == []


def test_whoever_stops_in_between_goes_on_there() -> None:
    journal = journal_of()
    subscription = Subscription(journal, None)
    told(subscription)
    record(journal, {}, {"a": 1}, {"a": 1, "b": 1})
    first = next(subscription.unread())
    assert told(subscription) == [("created", "b")]
    again = Subscription(journal, first.id)
    assert told(again) == [("ready", None)]
    assert told(again) == [("created", "b")]


def test_an_id_of_another_journal_or_of_nobody_is_a_reset() -> None:
    journal = journal_of()
    record(journal, {}, {"a": 1})
    strange = [
        f"{journal_of().run}-1",
        f"{journal.run}-2",
        journal.run,
        f"{journal.run}-x",
        "",
        "-1",
    ]
    for event_id in [*strange, f"{journal.run}-{'9' * 5000}"]:
        assert told(Subscription(journal, event_id)) == [("reset", None)]


def test_a_subscriber_who_is_too_far_behind_is_reset_and_goes_on_from_now() -> None:
    journal = journal_of(capacity=1)
    subscription = Subscription(journal, None)
    told(subscription)
    record(journal, {}, {"a": 1}, {"a": 1, "b": 1})
    assert told(subscription) == [("reset", None)]
    assert told(subscription) == []

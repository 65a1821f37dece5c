"""The page: its parts in order, and its style."""

from __future__ import annotations

from importlib.resources import files

from nasengine import __version__

from . import costs, data, gradient, outcome, setting, training, trials
from .html import Html, tag
from .record import Record

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing is loaded and no script runs, whatever a run's folder held."""


def page(record: Record) -> Html:
    """Return the report of a run as one HTML document."""
    parts = [
        outcome.headline(record),
        outcome.comparison(record),
        outcome.predictions(record),
        outcome.architecture(record),
        data.data(record),
        gradient.notes(record),
        gradient.gradient_search(record),
        trials.search(record),
        costs.costs(record),
        training.training(record),
        trials.every_trial(record),
        setting.setting(record),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{record.name}: report"),
        tag("style", _style()),
    )
    footer = tag("footer", f"nasengine {__version__} · {record.folder.resolve().name}")
    body = tag("body", tag("main", *parts, footer))
    return Html("<!doctype html>\n" + tag("html", head, body, lang="en") + "\n")


def _style() -> Html:
    return Html(files(__package__).joinpath("style.css").read_text(encoding="utf-8"))

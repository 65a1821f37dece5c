"""The first part of a report: whether the search won, and what it found."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nasengine.plugin_name import PluginName
from nasengine.quantities import format_duration
from nasengine.runs.verdict import WORDS, Standing, Word, leading
from nasengine.trial import Measurement, Status, Trial

from .charts import Axis, Series, strips
from .html import MISSING, TIMES, Html, bullets, details, facts, grid, join, section, table, tag
from .record import Record

_BADGES: Mapping[Word, str] = {
    "better": "the search won",
    "worse": "the search lost",
    "level": "level",
    "ahead": "ahead, not proven",
    "behind": "behind, not proven",
}


def headline(record: Record) -> Html:
    """Say in a sentence whether the search won, and with what."""
    if not record.finished:
        done = f"Not finished: {len(record.history)} trials so far"
        return _header(record, "open", "unfinished", done)
    found = [standing for standing in record.standings if standing.word in _BADGES]
    equal = record.tie.heading if record.tie and record.tie.all else ""
    if not found and not equal:
        said = "Finished; not compared with a reference"
        return _header(record, "open", "finished", "; ".join(record.verdict) or said)
    badges = {"nothing learned" if s.unlearned else _BADGES[s.word] for s in found}
    badge = "trials level" if equal else badges.pop() if len(badges) == 1 else "mixed"
    kind = {"the search won": "won", "the search lost": "lost"}.get(badge, "level")
    metrics = dict.fromkeys(standing.metric for standing in found)
    judged = _listed([*metrics] or record.goals[:1]) or "the goal"
    sentence = "; ".join(filter(None, [equal, _heads(found)])) + f" by {judged}{_where(found)}"
    return _header(record, kind, badge, sentence[0].upper() + sentence[1:])


def _where(found: Sequence[Standing]) -> str:
    if any(standing.split == "test" for standing in found):
        return ", on the test split"
    if any(standing.word == "ahead" and standing.chosen_among > 1 for standing in found):
        known = any(standing.split for standing in found)
        return f", on the {'split' if known else 'measurement'} that chose it"
    return ""


def _heads(found: Iterable[Standing]) -> str:
    """Join ``better than a``, ``better than b`` to ``better than a and b``."""
    grouped: dict[str, list[str]] = {}
    for standing in found:
        grouped.setdefault(WORDS[standing.word], []).append(standing.reference)
    return ", ".join(f"{words} {_listed(names)}" for words, names in grouped.items())


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _header(record: Record, kind: str, badge: str, sentence: str) -> Html:
    parts = [
        f"{len(record.history)} trials" if len(record.history) != 1 else "1 trial",
        f"{format_duration(record.seconds)} of search",
        f"strategy {_plugin(record, 'strategy')}",
        f"space {_plugin(record, 'space')}",
        f"task {_plugin(record, 'task')}",
        f"seed {record.spec.get('seed', '?')}",
    ]
    return tag(
        "header",
        tag("p", tag("span", badge, class_=f"badge {kind}"), " ", record.folder.resolve().name),
        tag("h1", record.name),
        tag("p", sentence, class_="verdict"),
        tag("p", join(parts, " · "), class_="note"),
    )


def _plugin(record: Record, part: str) -> str:
    return PluginName.parse(str(record.spec.get(part, {}).get("name", "?"))).short


def comparison(record: Record) -> Html | None:
    """Return the searched network beside the references, metric by metric."""
    winner = record.winner
    if winner is None:
        return None
    networks = {"searched": winner.measurements}
    networks.update({name: trial.measurements for name, trial in record.references.items()})
    main = leading(record.metrics, record.goals, record.standings)
    others = [name for name in record.metrics if name not in main]
    more = details("all metrics", _networks(record, networks, others)) if others else None
    note = (
        "Under a reference's value: searched / reference. Bold: the best of a row. "
        "±: standard deviation over training seeds, where there were several."
    )
    failed = [f"{n}: {t.reason}" for n, t in record.references.items() if t.reason]
    title = "Searched beside the references" if record.references else "The searched network"
    return section(
        title,
        bullets(record.verdict) if record.verdict else None,
        _networks(record, networks, main),
        tag("p", note, class_="note") if record.references else None,
        bullets(failed, "warnings") if failed else None,
        more,
        _seeds(record, networks),
    )


def _networks(
    record: Record, networks: Mapping[str, Mapping[str, Measurement]], metrics: Iterable[str]
) -> Html:
    rows = []
    for metric in metrics:
        found = {name: values.get(metric) for name, values in networks.items()}
        if any(found.values()):
            rows.append([_metric_name(record, metric), *_cells(record, metric, found)])
    return table(["", *networks], rows)


def _metric_name(record: Record, metric: str) -> Html:
    about = record.metrics[metric]
    arrow = {"max": " ↑", "min": " ↓"}[about.direction]
    roles = list(_roles(record, metric))
    badges = [tag("span", role, class_="badge open") for role in roles]
    name = tag("b", metric) if roles else metric
    return join([name, arrow, " ", join(badges, " "), *_limits(record, metric)])


def _roles(record: Record, metric: str) -> Iterable[str]:
    """Say whether a metric is a goal, and whether the verdict is by it: it need not be the goal."""
    judged = {standing.metric: standing.split for standing in record.standings}
    if metric in record.goals:
        by_another = judged and not judged.keys() & {*record.goals}
        yield "goal, chose the winner" if by_another else "goal"
    if metric in judged:
        yield "verdict, test split" if judged[metric] == "test" else "verdict"


def _limits(record: Record, metric: str) -> Iterable[Html]:
    for item in record.objectives.limits:
        for words, limit in (("at most", item.at_most), ("at least", item.at_least)):
            if item.metric == metric and limit is not None:
                yield tag("small", f"{words} {record.text(metric, limit)}")
    if metric in record.objectives.screens:
        yield tag("small", f"goes on {record.objectives.screens[metric].asked()}")


def _cells(
    record: Record, metric: str, found: Mapping[str, Measurement | None]
) -> Iterable[Html | str]:
    known = {name: m.value for name, m in found.items() if m is not None}
    pick = max if record.metrics[metric].direction == "max" else min
    best = pick(known.values())
    mine = known.get("searched")
    for name, measured in found.items():
        if measured is None:
            yield MISSING
            continue
        text = record.text(metric, measured.value)
        spread = measured.details.get("std")
        if spread:
            text += f" ± {record.text(metric, spread)}"
        ratio = None
        if name != "searched" and mine is not None and measured.value:
            ratio = tag("small", f"{mine / measured.value:.2f}{TIMES}")
        # All equal is nobody's win.
        leads = measured.value == best and len({*known.values()}) > 1
        yield join([tag("b", text) if leads else text, ratio])


def _seeds(record: Record, networks: Mapping[str, Mapping[str, Measurement]]) -> Html | None:
    """Draw every seed of the primary goal, where there are several."""
    if not record.goals:
        return None
    goal = record.goals[0]
    rows = []
    for place, (name, found) in enumerate(networks.items()):
        values = found[goal].details.get("values", ()) if goal in found else ()
        if len(values) > 1:
            titles = [record.text(goal, value) for value in values]
            colour = 2 if name == "searched" else 1
            rows.append(Series(name, [(v, -float(place)) for v in values], colour, "dots", titles))
    title = f"{goal} of every training seed, and the mean"
    return strips(title, rows, Axis(goal, record.metrics[goal].unit))


def architecture(record: Record) -> Html | None:
    """Return the found architecture as a picture and in words."""
    winner = record.winner
    if winner is None:
        return None
    drawing = _delivered(record, "architecture.svg")
    slots, channels = record.slots, record.channels
    image = None
    if drawing is not None:
        # An image runs no script and loads nothing, whatever the file holds.
        image = _image(drawing, "svg+xml", "the searched network's graph")
    delivered = [(path.name, f"{path.stat().st_size:,} bytes") for path in record.delivered]
    return section(
        "The architecture",
        tag("p", *_in_words(winner, record.objectives.recommendation, slots, channels)),
        tag("figure", image, class_="picture wide") if image else None,
        grid([_decision(*item, slots, channels) for item in winner.architecture.items()], "slots"),
        details("delivered in best/", facts(delivered)) if delivered else None,
    )


def _delivered(record: Record, name: str) -> bytes | None:
    return record.file("best", name) if record.result is not None else None


def _decision(
    name: str, choice: str, slots: Mapping[str, int], channels: Mapping[str, int]
) -> Html:
    if name in channels:
        count = f"{channels[name]}"
        said = choice if choice == count else f"{choice}: {count}"
        return tag("div", tag("small", f"{name} (channels)"), said)
    shared = slots.get(name, 1)
    return tag("div", tag("small", f"{name} ({shared} slots)" if shared > 1 else name), choice)


def _in_words(
    winner: Trial, recommended: str, slots: Mapping[str, int], channels: Mapping[str, int]
) -> Iterable[Html | str]:
    """Count the blocks, and say the channels; slots that share a choice are more than choices."""
    blocks = [choice for name, choice in winner.architecture.items() if name not in channels]
    places = sum(slots.values())
    said = _several(len(blocks), "slot" if len(blocks) == places else "decision")
    if places > len(blocks):
        said += f" for {places} slots"
    counted = [(f"{count} {TIMES} ", name) for name, count in Counter(blocks).most_common()]
    yield f"Trial {winner.number}, the {recommended}"
    for what, found in (
        (said, counted),
        ("channels", [(f"{name} ", f"{count}") for name, count in channels.items()]),
    ):
        if found:
            yield f"; {what}: "
            yield join([join([text, tag("b", strong)]) for text, strong in found], ", ")
    yield "."


def _several(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def predictions(record: Record) -> Html | None:
    """Return validation images with what the delivered network makes of them."""
    content = _delivered(record, "predictions.png")
    if content is None:
        return None
    note = (
        "Validation images that hold something to find, spread over the split; not chosen by "
        "how well they went. Above: the image; middle: its mask; below: the prediction."
    )
    image = _image(content, "png", "validation images, masks and predictions")
    return section(
        "Predictions", tag("figure", image, class_="picture"), tag("p", note, class_="note")
    )


def _image(content: bytes, kind: str, alt: str) -> Html:
    return tag("img", src=f"data:image/{kind};base64,{base64.b64encode(content).decode()}", alt=alt)


def counts(trials: Iterable[Trial]) -> str:
    """Count trials by how they ended.

    Examples
    --------
    >>> counts([])
    ''
    """
    found = Counter(trial.status for trial in trials)
    return ", ".join(f"{found[status]} {status.value}" for status in Status if found[status])

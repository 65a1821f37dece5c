"""How a metric is called in a spec, in the history and in tables.

An estimator's primary metric has the estimator's key as its name (``iou``), every further one the
key and its own name (``iou.precision``).
"""

from __future__ import annotations


def full_name(key: str, metric: str, primary: str) -> str:
    """Name an estimator's metric.

    Parameters
    ----------
    key
        The estimator's, in the spec.
    metric, primary
        The metric, and the estimator's primary one, by their own names.

    Examples
    --------
    >>> full_name("iou", "iou", "iou"), full_name("quality", "precision", "iou")
    ('iou', 'quality.precision')
    """
    return key if metric == primary else f"{key}.{metric}"


def estimator_of(name: str) -> str:
    """Return the key of the estimator that measures a metric.

    Examples
    --------
    >>> estimator_of("quality.precision"), estimator_of("iou")
    ('quality', 'iou')
    """
    return name.partition(".")[0]


def is_primary(name: str) -> bool:
    """Say whether a metric is its estimator's primary one.

    Examples
    --------
    >>> is_primary("iou"), is_primary("quality.precision")
    (True, False)
    """
    return "." not in name


def own_name(name: str, primary: str) -> str:
    """Return what the estimator itself calls a metric.

    Examples
    --------
    >>> own_name("quality.precision", "iou"), own_name("quality", "iou")
    ('precision', 'iou')
    """
    return name.partition(".")[2] or primary

"""Results as text for a person: a table, our place in it, and how far each target is met or missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from scripts.benchmarks.rows import HOST, OURS, Results, Target, limit_of

SCALES = {"B": (1e6, "MB", 3), "s": (1.0, "s", 2), "1": (1.0, "", 0)}
YES_NO = ("no", "yes")


def shown(value: float | None, unit: str) -> str:
    """A value with its unit: MB of 1,000,000 bytes, seconds, or a plain number."""
    if value is None:
        return "-"
    divisor, name, digits = SCALES[unit]
    return f"{value / divisor:.{digits}f} {name}".strip()


def ratio(results: Results, who: str, metric: str) -> str:
    """How many times ours a contender's value is."""
    ours, theirs = results.value(OURS, metric), results.value(who, metric)
    return f"{theirs / ours:.2f}" if ours and theirs is not None else "-"


def table(results: Results, columns: Sequence[tuple[str, str]], flags: Sequence[str] = ()) -> Iterator[str]:
    """Lines, one contender each. ``columns`` are (metric, heading); a heading that ends in × is the ratio to ours.

    Metrics named in ``flags`` are shown as yes or no.
    """
    lines = [["", *(heading for _, heading in columns)]]
    for who in results.contenders:
        cells = [_cell(results, who, metric, heading, metric in flags) for metric, heading in columns]
        lines.append([who, *cells])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    for first, *rest in lines:
        numbers = "  ".join(text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))
        yield f"{first.ljust(widths[0])}  {numbers}".rstrip()


def _cell(results: Results, who: str, metric: str, heading: str, is_flag: bool) -> str:
    if heading.endswith("×"):
        return ratio(results, who, metric)
    value = results.value(who, metric)
    if is_flag and value is not None:
        return YES_NO[int(value)]
    return shown(value, results.unit(metric))


def verdicts(results: Results, targets: Iterable[Target]) -> Iterator[str]:
    """One line a target: met or missed, and by how much."""
    for target in targets:
        ours, limit = results.value(OURS, target.metric), limit_of(results, target)
        if ours is None or not limit:
            yield f"not measured  {target.metric}"
            continue
        unit = results.unit(target.metric)
        how = "met   " if ours <= limit else "MISSED"
        against = f"{target.at_most:g} × {target.peer} = " if target.peer else ""
        by = f"{abs(ours / limit - 1):.0%} {'below' if ours <= limit else 'above'}"
        yield f"{how}  {target.metric}: {shown(ours, unit)}, limit {against}{shown(limit, unit)} ({by})"


def host_line(results: Results) -> str:
    """How busy the machine was when the benchmark began, and what that means for its times."""
    processors, load = results.value(HOST, "processors") or 1, results.value(HOST, "load_average") or 0
    warning = "; TOO BUSY for times to be compared" if load > processors else ""
    return f"host: {processors:.0f} processors, load average {load:.1f} at the beginning{warning}"

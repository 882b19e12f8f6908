"""Numbers and policies as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.dealing import Rule
from schemas.failures import FailureReason
from schemas.info import Generation
from schemas.token_rules import TokenRule

__all__ = [
    "compact",
    "generation_text",
    "num_bytes_text",
    "rule_text",
    "settings_text",
    "significant",
    "unread_text",
]

_UNREAD = (FailureReason.ACCESS_DENIED, FailureReason.SOURCE_UNAVAILABLE)


def compact(value: float) -> str:
    """A count in few characters: 9216, 41.3 k, 1.20 M, 3.45 B, 2.00 T."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"
    return f"{value:,.0f}"


def num_bytes_text(value: float) -> str:
    """A size in decimal units: 812 B, 1.4 MB."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            scaled = value / limit
            return f"{scaled:.{1 if scaled < 100 else 0}f} {unit}"
    return f"{value:.0f} B"


def significant(value: float) -> str:
    """Three significant digits or more, without an exponent where that is short."""
    if 1e3 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e7 or not value else f"{value:.1e}"


def rule_text(rule: Rule) -> str:
    """How windows got their rates, in a sentence."""
    if isinstance(rule, TokenRule):
        return (
            f"a token is kept if its information is above {significant(rule.threshold)} * elbo ** "
            f"0.5: threshold solved so that the corpus keeps {significant(rule.target)}, no window "
            f"less than {significant(rule.min_rate)}"
        )
    if rule.budget == "static":
        return f"every window keeps {significant(rule.target)} of its tokens"
    power = "" if rule.exponent == 1 else f" ** {rule.exponent:g}"
    clip = f"clip({significant(rule.scale)} * elbo{power}, {significant(rule.min_rate)}, 1)"
    how = {
        "exact": f"scale solved so that the corpus keeps {significant(rule.target)}",
        "paper": f"scale = {significant(rule.target)} / mean window ELBO, clipping not made up for",
        "expected": f"scale = {significant(rule.target)} / a given mean window ELBO",
    }[rule.budget]
    dark = ""
    if rule.zero_rate != rule.min_rate:
        dark = f"; windows without any information keep {significant(rule.zero_rate)}"
    return f"rate = {clip}: {how}{dark}"


def generation_text(run: Generation) -> str:
    """One run of a grown corpus in a line."""
    if not run.totals.clips:
        return "nothing came through"
    rule = run.routing
    solved = (
        f"threshold {significant(rule.threshold)}"
        if isinstance(rule, TokenRule)
        else f"scale {significant(rule.scale)}"
    )
    whose = "" if run.own_statistics else ", solved on the corpus it was appended to"
    return (
        f"{run.videos:,} videos, {run.totals.clips:,} windows, {run.totals.tokens:,} tokens, rate "
        f"{run.totals.rate:.4f}, {solved}{whose}"
    )


def settings_text(settings: Mapping[str, object]) -> str:
    """A policy of the run configuration in a line; None reads as "as the source"."""
    return ", ".join(
        f"{name} {'as the source' if value is None else value}"
        for name, value in sorted(settings.items())
    )


def unread_text(reasons: Mapping[str, int]) -> str | None:
    """What to do about videos that the store did not hand out; None if it handed out all.

    Args:
        reasons: How many videos were set aside for each reason.
    """
    unread = {str(reason): reasons[reason] for reason in _UNREAD if reasons.get(reason)}
    if not unread:
        return None
    counts = ", ".join(f"{count} {reason}" for reason, count in unread.items())
    options = " ".join(f"--reason {reason}" for reason in unread)
    return (
        f"{sum(unread.values())} videos could not be read, which says nothing against them "
        f"({counts}); `infotok retry-failed INPUT OUTPUT {options}` adds them when the store "
        "hands them out"
    )

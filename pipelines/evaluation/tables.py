"""An evaluation as Markdown: the tables of the paper, each with what its columns mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.evaluation import EvaluationReport, Outcome, Router, Selected

__all__ = ["ROUTER_NAMES", "SELECTION_NAMES", "evaluation_markdown"]

ROUTER_NAMES: dict[str, str] = {
    "static": "same rate for all",
    "global_elbo": "ELBO router",
    "global_elbo_paper": "ELBO router, Eq. 4",
    "global_latent": "latent router",
    "search": "threshold search",
    "optimal_error": "optimum (error)",
    "optimal_psnr": "optimum (PSNR)",
}
SELECTION_NAMES: dict[str, str] = {
    "information": "information",
    "latent": "predicted information",
    "r2l": "R2L",
    "jump": "Jump",
}

_MAX_CLIPS = 60
_Row = Sequence[str]


def evaluation_markdown(report: EvaluationReport) -> str:
    """All tables that the evaluation has the numbers for."""
    parts = [
        _head(report),
        _adaptive(report),
        _optimal(report),
        _selections(report),
        _search(report),
        _latent(report),
        _clips(report),
        _left_out(report),
        _conventions(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: EvaluationReport) -> str:
    videos = len({clip.source for clip in report.clips})
    first = report.clips[0]
    machine = ", ".join(f"{key} {value}" for key, value in sorted(report.machine.items()))
    lines = [
        "# Evaluation",
        "",
        f"{len(report.clips)} clips of {first.frames}x{first.height}x{first.width} from {videos} "
        f"videos; tokenizer `{report.fingerprint[:16]}` ({report.checkpoint}); {report.started}, "
        f"{report.seconds:.0f} s; {machine}.",
        "",
        f"    {' '.join(report.command)}",
    ]
    return "\n".join([*lines, "", *_short(report)]).rstrip()


def _short(report: EvaluationReport) -> list[str]:
    """The differences that people ask for first."""
    lines: list[str] = []
    full = report.outcome("static", rate=1.0)
    for rate in report.rates:
        elbo, static = report.outcome("global_elbo", rate=rate), report.outcome("static", rate=rate)
        if elbo is None or static is None or rate == 1:
            continue
        said = [f"PSNR {elbo.psnr_db:.2f} dB"]
        if full is not None:
            said.append(f"{full.psnr_db - elbo.psnr_db:.2f} dB below rate 1")
        said.append(
            f"against the same rate for all {elbo.psnr_db - static.psnr_db:+.2f} dB, "
            f"{elbo.psnr_pooled_db - static.psnr_pooled_db:+.2f} dB on the pooled error"
        )
        lines.append(f"- ELBO router at {rate:g}: {'; '.join(said)}.")
    return lines


def _adaptive(report: EvaluationReport) -> str:
    routers: list[Router] = [
        "static", "global_elbo", "global_elbo_paper", "global_latent", "search",
    ]  # fmt: skip
    found = [
        outcome
        for rate in report.rates
        for router in routers
        if (outcome := report.outcome(router, _kind(report, router), rate=rate)) is not None
    ]
    extra = [
        (title, key, digits)
        for title, key, digits in (("SSIM", "ssim", 4), ("LPIPS", "lpips", 4), ("FVD", "fvd", 1))
        if any(getattr(outcome, key) is not None for outcome in found)
    ]
    head = ["asked", "router", "rate", "BPP16", "PSNR dB", "pooled", "per frame"]
    head += [title for title, _, _ in extra] + ["NFE", "tokenise ms", "decode ms"]
    rows = [
        [
            f"{outcome.rate_target:g}",
            ROUTER_NAMES[outcome.router],
            f"{outcome.rate:.4f}",
            f"{outcome.bpp16:.4f}",
            f"{outcome.psnr_db:.2f}",
            f"{outcome.psnr_pooled_db:.2f}",
            f"{outcome.psnr_frames_db:.2f}",
            *(_number(getattr(outcome, key), digits) for _, key, digits in extra),
            _passes(outcome),
            _time(outcome.tokenise_ms, outcome.tokenise_cpu_ms),
            _time(outcome.reconstruct_ms, outcome.reconstruct_cpu_ms),
        ]
        for outcome in found
    ]
    return _table(
        "Table 1: the same rate for all against adaptive",
        head,
        rows,
        "NFE: encoder + decoder passes until the tokens are chosen. Times: wall (CPU), mean of a "
        "clip.",
    )


def _optimal(report: EvaluationReport) -> str:
    head = ["rate", "same for all", "ELBO", "optimum", "gap", "bound"]
    parts: list[str] = []
    optima: list[tuple[Router, str, str]] = [
        ("optimal_error", "psnr_pooled_db", "PSNR of the pooled error"),
        ("optimal_psnr", "psnr_db", "mean PSNR of the clips"),
    ]
    for router, key, title in optima:
        rows: list[_Row] = []
        for rate in report.rates:
            best = report.outcome(router, _kind(report, router), rate=rate)
            if best is None:
                continue
            elbo, static = (
                report.outcome(name, best.selection, rate=rate)
                for name in ("global_elbo", "static")
            )
            if elbo is None or static is None:
                continue
            mine, top = getattr(elbo, key), getattr(best, key)
            values = [getattr(static, key), mine, top, top - mine, best.bound_db or top]
            rows.append([f"{rate:g}", *(f"{value:.3f}" for value in values)])
        if rows:
            parts.append(
                _table(f"Table 2: ELBO router against optimal search, {title}, dB", head, rows)
            )
    return "\n\n".join(parts)


def _selections(report: EvaluationReport) -> str:
    if not any(outcome.selection == "r2l" for outcome in report.outcomes):
        return ""
    cells: list[tuple[Router, Selected]] = [
        ("static", "r2l"),
        ("static", "jump"),
        ("static", "information"),
        ("global_elbo", "r2l"),
        ("global_elbo", "jump"),
        ("global_elbo", "information"),
    ]
    head = ["rate"] + [
        f"{SELECTION_NAMES[selection]}, {'uniform' if router == 'static' else 'ELBO'}"
        for router, selection in cells
    ]
    parts: list[str] = []
    for key, title in (("psnr_db", "mean PSNR of the clips"), ("psnr_pooled_db", "pooled PSNR")):
        rows: list[_Row] = []
        for rate in report.rates:
            found = [report.outcome(router, selection, rate=rate) for router, selection in cells]
            values = [None if outcome is None else getattr(outcome, key) for outcome in found]
            rows.append([f"{rate:g}", *(_number(value, 2) for value in values)])
        parts.append(_table(f"Table 3: which tokens, and how many: {title}, dB", head, rows))
    return "\n\n".join(parts)


def _search(report: EvaluationReport) -> str:
    head = ["asked", "threshold dB", "rate", "PSNR dB", "pooled", "NFE", "ELBO: rate", "PSNR dB",
            "pooled", "NFE"]  # fmt: skip
    rows: list[_Row] = []
    for found in report.outcomes:
        if found.router != "search":
            continue
        asked = found.rate_target
        elbo = None if asked is None else report.outcome("global_elbo", found.selection, rate=asked)
        row = [_number(asked, 2), _number(found.threshold_db, 2), *_brief(found)]
        rows.append(row + (["–"] * 4 if elbo is None else _brief(elbo)))
    return _table(
        "The ElasticTok mechanism: the least rate that meets a threshold, by binary search",
        head,
        rows,
        f"Among {report.settings.get('grid_points')} rates; the threshold is the strictest that "
        "keeps to what the ELBO router spent.",
    )


def _latent(report: EvaluationReport) -> str:
    found = report.prediction
    if found is None:
        return ""
    cells: list[tuple[Router, Selected]] = [
        ("global_elbo", "information"), ("global_latent", "latent"),
        ("static", "information"), ("static", "latent"),
    ]  # fmt: skip
    rows: list[_Row] = []
    for rate in report.rates:
        outcomes = [report.outcome(router, kind, rate=rate) for router, kind in cells]
        pairs = [
            [None if item is None else getattr(item, key) for item in outcomes]
            for key in ("psnr_db", "psnr_pooled_db")
        ]
        values = [value for pair in zip(*pairs, strict=True) for value in pair]
        rows.append([f"{rate:g}", *(_number(value, 2) for value in values)])
    head = ["rate", "ELBO router", "pooled", "latent router", "pooled", "same rate, measured",
            "pooled", "same rate, predicted", "pooled"]  # fmt: skip
    return _table(
        "The latent router: information predicted instead of measured, PSNR in dB",
        head,
        rows,
        f"Spearman's rank correlation: {_number(found.spearman_mean, 3)} within a clip (mean), "
        f"{_number(found.spearman_pooled, 3)} over all tokens, "
        f"{_number(found.spearman_clips, 3)} of the clips' means. An analysis with the decoder "
        f"costs {found.cost_ratio:.2f} times one without.",
    )


def _clips(report: EvaluationReport) -> str:
    rates = [rate for rate in report.rates if report.outcome("global_elbo", rate=rate)]
    head = ["clip", "window", "ELBO"]
    head += [text for rate in rates for text in (f"rate at {rate:g}", "PSNR dB", "SSIM")]
    rows: list[_Row] = []
    for place, clip in enumerate(report.clips[:_MAX_CLIPS]):
        row = [f"`{clip.source}`", f"{clip.window_index}", f"{clip.elbo:.4f}"]
        for rate in rates:
            outcome = report.outcome("global_elbo", rate=rate)
            assert outcome is not None
            point = clip.point("information", outcome.num_tokens[place])
            row += [f"{point.num_tokens / clip.cells:.3f}", f"{point.psnr_db:.2f}"]
            row.append(_number(point.ssim, 4))
        rows.append(row)
    left = len(report.clips) - len(rows)
    note = f"And {left} more clips, in the JSON file." if left > 0 else ""
    return _table("Clips, under the ELBO router", head, rows, note)


def _left_out(report: EvaluationReport) -> str:
    rows = [[f"`{item.source}`", item.reason, item.detail] for item in report.left_out]
    return _table("Left out", ["video", "reason", "detail"], rows)


def _conventions(report: EvaluationReport) -> str:
    lines = [f"- **{name}**: {text}." for name, text in sorted(report.conventions.items())]
    return "\n".join(["## What the numbers mean", "", *lines])


def _table(title: str, head: _Row, rows: Sequence[_Row], note: str = "") -> str:
    if not rows:
        return ""
    lines = [f"## {title}", "", _line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join([*lines, *(["", note] if note else [])])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _brief(outcome: Outcome) -> list[str]:
    return [
        f"{outcome.rate:.4f}",
        f"{outcome.psnr_db:.2f}",
        f"{outcome.psnr_pooled_db:.2f}",
        _passes(outcome),
    ]


def _passes(outcome: Outcome) -> str:
    encoder, decoder = (
        sum(passes) / len(passes) for passes in (outcome.encoder_passes, outcome.decoder_passes)
    )
    return f"{encoder:g} + {decoder:.3g}"


def _time(wall_ms: float, cpu_ms: float | None) -> str:
    return f"{wall_ms:.0f}" if cpu_ms is None else f"{wall_ms:.0f} ({cpu_ms:.0f})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _kind(report: EvaluationReport, router: Router) -> Selected:
    """The selection a router is shown by: search and optimum went by one alone."""
    if router == "global_latent":
        return "latent"
    routed = router in ("static", "global_elbo", "global_elbo_paper")
    return "information" if routed else report.grid_selection

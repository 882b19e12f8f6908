"""An evaluation as Markdown: the tables of the paper, each with what its columns mean."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pipelines.evaluation.clip_table import clip_table
from pipelines.evaluation.markdown import Row, code, number, passes, signed, table, time_ms
from schemas.evaluation import EvaluationReport, Outcome, Router, Selected

__all__ = ["ROUTER_NAMES", "SELECTION_NAMES", "evaluation_markdown"]

ROUTER_NAMES: dict[str, str] = {
    "static": "same rate for all",
    "global_elbo": "ELBO router",
    "global_elbo_paper": "ELBO router, Eq. 4",
    "global_latent": "latent router",
    "token_threshold": "token threshold",
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

_PICTURES = {
    "rate_distortion": "PSNR over bits: the routers",
    "rate_distortion_selections": "PSNR over bits: which tokens are kept",
    "routers": "Gain of the routers on the pooled error",
    "routers_mean": "Gain of the routers on the mean PSNR of the clips",
    "selections": "PSNR by selection and router",
    "tokens": "Share of tokens kept over the information of a clip",
    "clips": "PSNR of every clip over its share of tokens",
}
"""What they show, for those who do not see them."""


def evaluation_markdown(
    report: EvaluationReport,
    *,
    pictures: Mapping[str, str] | None = None,
    commands: Sequence[str] = (),
) -> str:
    """All tables that the evaluation has the numbers for.

    Args:
        report: From here or from a JSON file.
        pictures: Links to those of `plots.write_plots` that there are, by the stem of their files.
        commands: What else was called to get the page from the evaluation.
    """

    def shown(*names: str) -> str:
        return "\n\n".join(
            f"![{_PICTURES[name]}]({_link(pictures[name])})"
            for name in names
            if pictures is not None and name in pictures
        )

    parts = [
        _head(report, commands),
        shown("rate_distortion"),
        _adaptive(report),
        shown("routers", "routers_mean", "tokens"),
        _optimal(report),
        _selections(report),
        shown("selections", "rate_distortion_selections"),
        _search(report),
        shown("clips"),
        _latent(report),
        clip_table(report),
        _left_out(report),
        _conventions(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _link(path: str) -> str:
    return f"<{path}>" if set(path) & set(" ()") else path


def _head(report: EvaluationReport, commands: Sequence[str]) -> str:
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
        *(f"    {command}" for command in (shlex.join(report.command), *commands)),
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
        said = [f"PSNR {elbo.psnr_db:.2f} dB, of the pooled error {elbo.psnr_pooled_db:.2f} dB"]
        said += [
            f"against {name} {signed(elbo.psnr_db - other.psnr_db)} and "
            f"{signed(elbo.psnr_pooled_db - other.psnr_pooled_db)} dB"
            for name, other in (("rate 1", full), ("the same rate for all", static))
            if other is not None
        ]
        lines.append(f"- ELBO router at {rate:g}: {'; '.join(said)}.")
    return lines


def _adaptive(report: EvaluationReport) -> str:
    routers: list[Router] = [
        "static", "global_elbo", "global_elbo_paper", "token_threshold", "global_latent", "search",
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
            *(number(getattr(outcome, key), digits) for _, key, digits in extra),
            passes(outcome),
            time_ms(outcome.tokenise_ms, outcome.tokenise_cpu_ms),
            time_ms(outcome.reconstruct_ms, outcome.reconstruct_cpu_ms),
        ]
        for outcome in found
    ]
    return table(
        "Table 1: the same rate for all against adaptive",
        head,
        rows,
        "NFE: encoder + decoder passes until the tokens are chosen. Times: wall (CPU), of "
        "the median clip.",
    )


def _optimal(report: EvaluationReport) -> str:
    head = ["rate", "same for all", "ELBO", "optimum", "gap", "bound"]
    parts: list[str] = []
    optima: list[tuple[Router, str, str]] = [
        ("optimal_error", "psnr_pooled_db", "PSNR of the pooled error"),
        ("optimal_psnr", "psnr_db", "mean PSNR of the clips"),
    ]
    for router, key, title in optima:
        rows: list[Row] = []
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
                table(f"Table 2: ELBO router against optimal search, {title}, dB", head, rows)
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
    measures = (
        ("psnr_db", "mean PSNR of the clips, dB", 2),
        ("psnr_pooled_db", "PSNR of the pooled error, dB", 2),
        ("ssim", "SSIM", 4),
    )
    parts: list[str] = []
    for key, title, digits in measures:
        rows: list[Row] = []
        for rate in report.rates:
            found = [report.outcome(router, selection, rate=rate) for router, selection in cells]
            values = [None if outcome is None else getattr(outcome, key) for outcome in found]
            rows.append([f"{rate:g}", *(number(value, digits) for value in values)])
        parts.append(table(f"Table 3: which tokens, and how many: {title}", head, rows))
    parts.append(
        "One network has them all: trained for another selection, it would do better there."
    )
    return "\n\n".join(parts)


def _search(report: EvaluationReport) -> str:
    head = ["asked", "threshold dB", "rate", "PSNR dB", "pooled", "NFE", "ELBO: rate", "PSNR dB",
            "pooled", "NFE"]  # fmt: skip
    rows: list[Row] = []
    for found in report.outcomes:
        if found.router != "search":
            continue
        asked = found.rate_target
        elbo = None if asked is None else report.outcome("global_elbo", found.selection, rate=asked)
        row = [number(asked, 2), number(found.threshold_db, 2), *_brief(found)]
        rows.append(row + (["–"] * 4 if elbo is None else _brief(elbo)))
    return table(
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
    rows: list[Row] = []
    for rate in report.rates:
        outcomes = [report.outcome(router, kind, rate=rate) for router, kind in cells]
        pairs = [
            [None if item is None else getattr(item, key) for item in outcomes]
            for key in ("psnr_db", "psnr_pooled_db")
        ]
        values = [value for pair in zip(*pairs, strict=True) for value in pair]
        rows.append([f"{rate:g}", *(number(value, 2) for value in values)])
    head = ["rate", "ELBO router", "pooled", "latent router", "pooled", "same rate, measured",
            "pooled", "same rate, predicted", "pooled"]  # fmt: skip
    return table(
        "The latent router: information predicted instead of measured, PSNR in dB",
        head,
        rows,
        f"Spearman's rank correlation: {number(found.spearman_mean, 3)} within a clip (mean), "
        f"{number(found.spearman_pooled, 3)} over all tokens, "
        f"{number(found.spearman_clips, 3)} of the clips' means. An analysis with the decoder "
        f"costs {found.cost_ratio:.2f} times one without.",
    )


def _left_out(report: EvaluationReport) -> str:
    rows = [[code(item.source), item.reason, item.detail] for item in report.left_out]
    return table("Left out", ["video", "reason", "detail"], rows)


def _conventions(report: EvaluationReport) -> str:
    lines = [f"- **{name}**: {text}." for name, text in sorted(report.conventions.items())]
    return "\n".join(["## What the numbers mean", "", *lines])


def _brief(outcome: Outcome) -> list[str]:
    return [
        f"{outcome.rate:.4f}",
        f"{outcome.psnr_db:.2f}",
        f"{outcome.psnr_pooled_db:.2f}",
        passes(outcome),
    ]


def _kind(report: EvaluationReport, router: Router) -> Selected:
    """The selection a router is shown by: search and optimum went by one alone."""
    if router == "global_latent":
        return "latent"
    routed = router in ("static", "global_elbo", "global_elbo_paper", "token_threshold")
    return "information" if routed else report.grid_selection

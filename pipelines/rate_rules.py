"""From the routing of a configuration and statistics to the rate of every window."""

from __future__ import annotations

from pipelines.config import RoutingConfig, RunConfig
from pipelines.errors import PipelineError, PlanMismatchError
from schemas.dealing import Rule
from schemas.rates import RateRule, solve_rule
from schemas.statistics import ElboStatistics
from schemas.token_rules import TokenRule, solve_token_rule

__all__ = ["asked_of", "rate_rule"]


def rate_rule(config: RunConfig, statistics: ElboStatistics) -> Rule:
    """Solve the routing of the configuration over the corpus.

    Raises:
        PipelineError: If the asked rate cannot be met.
        PlanMismatchError: If pass one did not count what the router needs.
    """
    routing = config.routing
    limits = {"rate": routing.rate, "min_rate": routing.min_rate}
    if routing.router == "static":
        return RateRule.static(routing.rate)
    if routing.expected_elbo is not None:
        return RateRule.expected(routing.expected_elbo, **limits)
    if statistics.is_sample and not statistics.bins.weighted:
        raise PipelineError(
            f"the sample of {statistics.num_sampled} videos holds no window with information: "
            "analyse with a larger statistics.sample into another work folder (--work)"
        )
    if routing.router == "token_threshold":
        return _token_rule(routing, statistics)
    if routing.budget == "paper":
        return RateRule.paper(statistics.bins, **limits)
    try:
        return solve_rule(statistics.bins, **limits, exponent=routing.exponent)
    except ValueError as error:
        raise PipelineError(f"routing: {error}") from error


def asked_of(routing: RoutingConfig) -> dict[str, str | float]:
    """What of its rule is known before there are statistics, by the names of its fields."""
    budget = routing.budget if routing.router == "global_elbo" else routing.router
    if routing.router == "global_elbo" and routing.expected_elbo is not None:
        budget = "expected"
    # The static rule knows one rate.
    least = routing.rate if routing.router == "static" else routing.min_rate
    asked: dict[str, str | float] = {"budget": budget, "target": routing.rate, "min_rate": least}
    if routing.router == "global_elbo":
        asked["exponent"] = routing.exponent
    return asked


def _token_rule(routing: RoutingConfig, statistics: ElboStatistics) -> TokenRule:
    counted = statistics.token_bins
    if counted is None:
        raise PlanMismatchError(
            "routing.router = token_threshold needs a histogram of all tokens, which pass one "
            "makes for this router alone: analyse into another work folder (--work), or keep "
            "routing.router = global_elbo"
        )
    if counted.min_rate != routing.min_rate:
        raise PlanMismatchError(
            f"pass one counted tokens for routing.min_rate = {counted.min_rate}, not "
            f"{routing.min_rate}: keep the former, or analyse into another work folder (--work)"
        )
    return solve_token_rule(counted, rate=routing.rate)

"""From the routing of a configuration and statistics to the rate of every window."""

from __future__ import annotations

from pipelines.config import RunConfig
from pipelines.errors import PipelineError
from schemas.rates import RateRule, solve_rule
from schemas.statistics import ElboStatistics

__all__ = ["rate_rule"]


def rate_rule(config: RunConfig, statistics: ElboStatistics) -> RateRule:
    """Solve the routing of the configuration over the corpus.

    Raises:
        PipelineError: If the asked rate cannot be met.
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
    if routing.budget == "paper":
        return RateRule.paper(statistics.bins, **limits)
    try:
        return solve_rule(statistics.bins, **limits, exponent=routing.exponent)
    except ValueError as error:
        raise PipelineError(f"routing: {error}") from error

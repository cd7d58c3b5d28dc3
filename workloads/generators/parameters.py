"""Every number that a generator uses by default, with where it is from.

``measured`` says that somebody counted it on the data named in ``source``; all else is our choice, and the source says
why. Abbreviations:

* *paper*: Y. Wang et al., "BurstGPT: A Real-world Workload Dataset to Optimize LLM Serving Systems", arXiv:2401.17644v5
  (KDD 2025).
* *release 1, 2, 3*: the files of https://github.com/HPMLL/BurstGPT. The data could not be had when this was written, so
  figures on them are those that others published, as named.

The paper models request concurrency by Gamma distributions whose parameters change by service and over time, and
request lengths by a Zipf law; it plots the fits and tabulates no parameters by service, so those here that vary by
service are choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Figure:
    """One number: its value, its unit, where it is from, and whether it was measured."""

    value: float
    unit: str
    source: str
    measured: bool = True


BURSTGPT = MappingProxyType(
    {
        # ------------------------------------------------------------------------------------------------ arrivals
        "burstiness": Figure(
            0.5,
            "Gamma shape",
            "paper, Modeled Scaling of BurstGPT-Perf: alpha = 0.5, beta = 2 (mean gap 1 s, CV 1.41); the same defaults "
            "in example/src/burstgpt/config.py of the repository (gamma_shape, gamma_scale)",
        ),
        "zipf_exponent": Figure(
            1.1, "", "paper, Modeled Scaling: theta = 1.1; zipf_param in the repository's config.py"
        ),
        "modulation_window_s": Figure(
            1200.0, "s", "paper, Modeled Scaling: Gamma parameters by intervals of 20 minutes"
        ),
        "modulation_sigma": Figure(
            0.4, "log", "choice: the paper plots the rate of 20-minute windows but gives no spread", measured=False
        ),
        "rate": Figure(
            1_429_737 / (61 * 86400),
            "1/s",
            "release 1: 1,429.7k rows (README) over 61 days",
        ),
        "weekend": Figure(
            0.5, "of a weekday", "choice: the README's Figure 1 shows weekly periods, no numbers", measured=False
        ),
        # ------------------------------------------------------------------------------------------- who asks what
        "conversation_share": Figure(
            145_717 / 1_404_300,
            "of requests",
            "release 1: 145,717 conversation rows with an answer (counted in Ezekiel-Zhao/3GPP-contributions, "
            "LLM-Length-Distribution) of 1,404.3k (README); release 3 has 233,617 of 5,344,021",
        ),
        "gpt4_share": Figure(
            790_239 / 5_344_021, "of requests", "release 3: 790,239 GPT-4 rows of 5,344,021, published column counts"
        ),
        "failure_rate": Figure(
            1 - 1404.3 / 1429.7,
            "of requests",
            "release 1: 1,429.7k rows, 1,404.3k without failures (README); release 2: 1.9 %, release 3: 7.3 %",
        ),
        # ----------------------------------------------------------------------------------------------- lengths
        "conversation_output_mean": Figure(
            265.0, "tokens", "release 1, conversations: mean 265.0, median 232, standard deviation 221.6, at most 2048"
        ),
        "conversation_output_shape": Figure(
            (265.0 / 221.6) ** 2, "Gamma shape", "the Gamma distribution of that mean and standard deviation"
        ),
        "conversation_output_max": Figure(2048.0, "tokens", "release 1, conversations: the longest answer"),
        "message_median": Figure(
            50.0,
            "tokens",
            "choice: with max_context, conversation prompts then have a mean near 710 and a median near 570 tokens; "
            "release 1 has 761 and 547 (standard deviation 773), GPT-4 conversations a mean of 830 and P50, P80, P95, "
            "P99 of 582, 1427, 2345, 3549 (Llumnix, OSDI 2024, Table 1)",
            measured=False,
        ),
        "message_sigma": Figure(1.7, "log", "choice: see message_median", measured=False),
        "api_prompt_median": Figure(
            327.0, "tokens", "release 3 (96 % API calls): median 327, mean 478, published statistics of the release"
        ),
        "api_prompt_sigma": Figure(0.871, "log", "the lognormal of that median and mean: sqrt(2 ln(478 / 327))"),
        "api_output_median": Figure(
            48.0,
            "tokens",
            "choice: with api_output_sigma a mean of 109, which with the conversations' 265 gives the mean of 125 "
            "output tokens that is published for BurstGPT as a whole",
            measured=False,
        ),
        "api_output_sigma": Figure(1.28, "log", "choice: see api_output_median", measured=False),
        "max_context": Figure(
            2048.0,
            "tokens",
            "choice: see message_median; a front end that sends the recent history only",
            measured=False,
        ),
        # ------------------------------------------------------------------------------------------ conversations
        "turns_median": Figure(2.0, "turns", "release 3: 55,920 sessions, median 2 turns, mean 4.18"),
        "turns_sigma": Figure(1.214, "log", "the lognormal of that median and mean: sqrt(2 ln(4.18 / 2))"),
        "turns_max": Figure(64.0, "turns", "choice: cuts the tail", measured=False),
        "think_median_s": Figure(
            131.0, "s", "release 3: time between turns of a session, P50 131 s, P90 2340 s (the answer included)"
        ),
        "think_sigma": Figure(2.249, "log", "the lognormal of that P50 and P90: ln(2340 / 131) / 1.2816"),
        "think_max_s": Figure(21600.0, "s", "choice: who comes back after 6 hours starts anew", measured=False),
        "nominal_s_per_token": Figure(
            0.02,
            "s",
            "choice: how long an answer takes in the recorded arrivals, which a Sessions source doesn't use",
            measured=False,
        ),
    }
)
"""Defaults of the ``burstgpt`` generator."""

HOURLY = (
    *(0.35, 0.25, 0.2, 0.2, 0.2, 0.3, 0.5, 0.8, 1.2, 1.6, 1.8, 1.7),
    *(1.4, 1.5, 1.8, 1.9, 1.8, 1.5, 1.2, 1.1, 1.1, 1.0, 0.8, 0.5),
)
"""Rate by hour of the day over its mean. Choice: an office day with a dip at noon; the BurstGPT README's Figure 2 shows
daily periods without numbers."""

SHARED_PREFIX = MappingProxyType(
    {
        "groups": Figure(24.0, "groups", "choice: applications behind one endpoint", measured=False),
        "zipf_exponent": Figure(1.0, "", "choice: popularity of the groups by rank", measured=False),
        "system_tokens": Figure(256.0, "tokens", "choice: a system prompt that all share", measured=False),
        "tool_median": Figure(
            1400.0,
            "tokens",
            "choice near ToolBench: prompts of 1835 tokens on average, of which 85 % are a shared prefix (Preble, "
            "arXiv:2407.00023, Table 1)",
            measured=False,
        ),
        "tool_sigma": Figure(
            0.4, "log", "choice: ToolBench prompts spread by 742 tokens (Preble, Table 1)", measured=False
        ),
    }
)
"""Defaults of the ``shared-prefix`` generator."""

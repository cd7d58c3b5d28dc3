"""Generators against theory (within confidence bounds), their parameters, their determinism."""

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from workloads import TraceError, describe, infinite_cache_hit_tokens
from workloads.fit import fit_gaps, fit_trace, read_fit, write_fit
from workloads.generators import generate, generators, lengths
from workloads.generators.arrivals import RateCurve, gap_cv, weekly_curve, weekly_factors
from workloads.generators.parameters import BURSTGPT, SHARED_PREFIX
from workloads.stats import interarrival_cv
from workloads.streams import stream
from workloads.trace import Trace


@pytest.mark.parametrize(
    ("kind", "burstiness", "cv"),
    [
        ("poisson", None, 1.0),
        ("gamma", 0.25, 2.0),
        ("gamma", 4.0, 0.5),
        ("weibull", 1.0, 1.0),
        ("weibull", 0.5, math.sqrt(5)),
        ("regular", None, 0.0),
    ],
)
def test_gaps_have_the_rate_and_burstiness_of_theory(kind, burstiness, cv):
    """Mean within 5 standard errors; CV within 5 %, which heavy tails of 200,000 gaps keep to."""
    n, rate = 200_000, 3.0
    options = {} if burstiness is None else {"burstiness": burstiness}
    trace = generate(kind, requests=n, rate=rate, seed=11, **options)
    assert gap_cv(kind, burstiness or 1.0) == pytest.approx(cv)
    gaps = np.diff(trace.arrival_s, prepend=0)
    assert gaps.mean() == pytest.approx(1 / rate, abs=5 * cv / rate / math.sqrt(n) + 1e-9)
    assert interarrival_cv(trace.arrival_s) == pytest.approx(cv, rel=0.05, abs=1e-6)


def test_duration_ends_a_trace():
    trace = generate("poisson", duration_s=5000, rate=2.0, seed=3)
    assert trace.arrival_s[-1] < 5000
    assert len(trace) == pytest.approx(10_000, abs=5 * 100)
    assert len(generate("poisson", duration_s=5000, requests=17, rate=2.0)) == 17
    assert len(generate("gamma", burstiness=0.01, duration_s=1000, rate=5.0)) > 0


@pytest.mark.parametrize(
    ("spec", "mean", "sd"),
    [
        ("constant:value=7", 7, 0),
        (7, 7, 0),
        ("uniform:low=10,high=20", 15, math.sqrt((11**2 - 1) / 12)),
        ("lognormal:median=500,sigma=0.5", 500 * math.exp(0.125), 500 * math.exp(0.125) * math.sqrt(math.expm1(0.25))),
        ("normal:mean=2600,sd=300", 2600, 300),
        ("gamma:mean=265,shape=1.5", 265, 265 / math.sqrt(1.5)),
        ("weibull:scale=300,shape=2", 300 * math.gamma(1.5), 300 * math.sqrt(1 - math.gamma(1.5) ** 2)),
        ({"kind": "empirical", "quantiles": [1, 101, 301]}, 126, math.sqrt(301**2 / 12 + 500)),
    ],
)
def test_lengths_have_the_mean_of_theory(spec, mean, sd):
    drawn = lengths(spec).sample(stream(5, "x"), 100_000)
    assert drawn.dtype == np.int64
    assert drawn.mean() == pytest.approx(mean, abs=5 * sd / math.sqrt(len(drawn)) + 0.05)


def test_zipf_lengths_follow_the_power_law():
    drawn = lengths("zipf:exponent=1.1,most=1024").sample(stream(5, "x"), 200_000)
    shares = np.bincount(drawn, minlength=1025)[1:] / len(drawn)
    weights = np.arange(1, 1025) ** -1.1
    expected = weights / weights.sum()
    assert drawn.min() == 1
    assert drawn.max() <= 1024
    for value in (1, 2, 10, 100):
        bound = 5 * math.sqrt(expected[value - 1] / len(drawn))
        assert shares[value - 1] == pytest.approx(expected[value - 1], abs=bound)


def test_lengths_are_clipped_and_written_back():
    spec = lengths("lognormal:median=100,sigma=2,min=16,max=64")
    drawn = spec.sample(stream(0, "x"), 1000)
    assert (drawn.min(), drawn.max()) == (16, 64)
    for text in (spec.text(), "lognormal:median=1234567,sigma=0.123456789,max=12345678", "weibull:scale=1e-07,shape=2"):
        assert lengths(lengths(text).text()) == lengths(text)
    assert lengths(spec.text()) == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lognorml:median=1,sigma=1", "unknown length distribution 'lognorml'; did you mean 'lognormal'"),
        ("lognormal:median=1", "'lognormal' needs 'sigma'"),
        ("lognormal:median=1,sigm=1", "has no key 'sigm'; did you mean 'sigma'"),
        ("lognormal:median=x,sigma=1", "median must be a number, got 'x'"),
        ("lognormal:median=-1,sigma=1", "median must be above 0"),
        ("lognormal:median", "'median' is not key=value"),
        ("uniform:low=5,high=4", "high 4 is below low 5"),
        ("constant:value=5,min=9,max=8", "must satisfy 1 <= min <= max"),
        ("zipf:exponent=1,most=1e9", "most must be at most 1e7"),
        ("zipf:exponent=1,most=0.5", "most must be a whole number, got 0.5"),
        ("uniform:low=0.5,high=4", "low must be a whole number, got 0.5"),
        ({"kind": "empirical", "quantiles": [3, 2]}, "must not fall"),
        ({"kind": "empirical", "quantiles": [1, 2], "probabilites": [0, 1]}, "did you mean 'probabilities'"),
        ({"kind": "empirical"}, "needs 'quantiles'"),
        ({"kind": "empirical", "quantiles": [1, 2], "probabilities": [0, 0.5]}, "must run from 0 to 1"),
        ([1], "a length distribution is written as"),
    ],
)
def test_bad_length_distributions(spec, message):
    with pytest.raises(TraceError, match=message):
        lengths(spec)


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("poison", {}, "unknown generator 'poison'; did you mean 'poisson'"),
        ("gamma", {"burstines": 2}, "generator 'gamma' has no parameter 'burstines'; did you mean 'burstiness'"),
        ("gamma", {"burstiness": 0}, "parameter 'burstiness' of generator 'gamma' must be above 0, got 0"),
        ("gamma", {"rate": math.nan}, "'rate' of generator 'gamma' must be a number, got nan"),
        ("gamma", {"rate": math.inf}, "must be finite"),
        ("gamma", {"requests": 1.5}, "must be a whole number"),
        ("gamma", {"requests": 0}, "must be at least 1"),
        ("gamma", {"prompt": "x:1"}, "parameter 'prompt' of generator 'gamma': "),
        ("diurnal", {"process": "pois"}, "must be one of poisson, gamma, weibull, regular, got 'pois'"),
        ("weibull", {"burstiness": 0.01}, "'burstiness' of a Weibull process must be at least 0.02, got 0.01"),
        ("diurnal", {"process": "weibull", "burstiness": 0.001}, "must be at least 0.02, got 0.001"),
        ("diurnal", {"hourly": [1, 2]}, "'hourly' must be 24 rates"),
        ("burstgpt", {"diurnal": 3}, "must be true or false, got 3"),
        ("burstgpt", {"failure_rate": 2}, "must be at most 0.99"),
        ("poisson", {"duration_s": 1e-9}, "no request falls into the trace"),
        ("poisson", {"duration_s": 1e9, "rate": 1e6}, "make about 1e\\+15 requests; at most 1e\\+08"),
        ("burstgpt", {"requests": 1e12}, "must be at most 1e"),
    ],
)
def test_bad_parameters(kind, params, message):
    with pytest.raises(TraceError, match=message):
        generate(kind, **params)


def test_every_generator_is_deterministic_in_another_process_too():
    """Same seed, same trace, also where Python's own hashes differ; another seed, another trace."""
    code = (
        "from workloads.generators import *\nimport hashlib\n"
        "for k in generators():\n"
        "    t = generate(k, requests=500, seed=3)\n"
        "    h = hashlib.sha256()\n"
        "    for c in (t.arrival_s, t.prompt_tokens, t.output_tokens): h.update(c.tobytes())\n"
        "    print(k, t.sha256, h.hexdigest())\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    for kind in generators():
        a, b = (generate(kind, requests=500, seed=seed) for seed in (3, 4))
        assert a.prompt_tokens.tolist() != b.prompt_tokens.tolist()
        assert f"{kind} {a.sha256}" in runs[0]


def test_a_new_stream_shifts_no_other_ones_draws():
    assert stream(1, "prompt").random() != stream(1, "output").random()
    short, long = generate("gamma", requests=10, rate=2), generate("gamma", requests=10, rate=2, output=5)
    assert short.arrival_s.tolist() == long.arrival_s.tolist()
    assert short.prompt_tokens.tolist() == long.prompt_tokens.tolist()


# ------------------------------------------------------------------------------------------------------ rate curves


def test_time_rescaling_by_hand():
    """Rate 2 for 10 s, none for 10 s, 1 for 10 s: nothing comes in the middle."""
    curve = RateCurve(np.array([0.0, 10, 20, 30]), np.array([2.0, 0, 1]))
    assert curve.times(np.array([0.0, 10, 20, 25, 30])).tolist() == [0, 5, 20, 25, 30]
    assert curve.normalised(0, 30).factors.tolist() == [2, 0, 1]
    with pytest.raises(TraceError, match="the rate is 0 throughout"):
        RateCurve(np.array([0.0, 1]), np.array([0.0])).normalised(0, 1)


def test_week_has_mean_one_and_starts_when_told():
    week = weekly_factors([1.0] * 12 + [3.0] * 12, weekend=0.5)
    assert week.mean() == pytest.approx(1)
    assert week[13] / week[0] == pytest.approx(3)
    assert week[5 * 24] / week[0] == pytest.approx(0.5)
    curve = weekly_curve(week, start_h=11.5, from_s=0, to_s=3600)
    assert curve.edges_s[:2].tolist() == [0, 1800]
    assert curve.factors[1] / curve.factors[0] == pytest.approx(3)


def test_diurnal_counts_follow_the_hours():
    hourly = [1.0] * 12 + [3.0] * 12
    trace = generate("diurnal", duration_s=7 * 86400, rate=1.0, hourly=hourly, weekend=1.0, seed=2)
    hours = (trace.arrival_s // 3600).astype(int) % 24
    afternoon = np.count_nonzero(hours >= 12)
    assert len(trace) == pytest.approx(604_800, abs=5 * math.sqrt(604_800))
    assert afternoon / len(trace) == pytest.approx(0.75, abs=5 * math.sqrt(0.75 * 0.25 / len(trace)))
    assert len(generate("diurnal", requests=1234, rate=0.01)) == 1234


# --------------------------------------------------------------------------------------------------------- burstgpt


@pytest.fixture(scope="module")
def month() -> Trace:
    return generate("burstgpt", duration_s=61 * 86400.0, seed=5)


def test_burstgpt_has_the_published_figures(month):
    """Counts, shares, turns and lengths near the sources that parameters.py names."""
    assert len(month) == pytest.approx(1_404_300, rel=0.02)
    assert month.counts["failed"] / (len(month) + month.counts["failed"]) == pytest.approx(0.0178, abs=0.0006)
    conversation = month.request_class.codes == 0
    assert conversation.mean() == pytest.approx(145_717 / 1_404_300, rel=0.08)
    assert np.mean(month.model.codes[~conversation]) == pytest.approx(0.148, abs=0.003)
    prompt, output = month.prompt_tokens[conversation], month.output_tokens[conversation]
    assert prompt.mean() == pytest.approx(761, rel=0.1)
    assert np.median(prompt) == pytest.approx(547, rel=0.15)
    assert output.mean() == pytest.approx(265, rel=0.02)
    assert output.std() == pytest.approx(221.6, rel=0.03)
    sessions = describe(month)["sessions"]
    assert sessions["turns_mean"] == pytest.approx(4.18, rel=0.05)
    assert sessions["turns_p50"] == 2
    assert np.median(month.prompt_tokens[~conversation]) == pytest.approx(327, rel=0.02)
    assert month.output_tokens.mean() == pytest.approx(125, rel=0.05)
    think = month.think_time_s[np.isfinite(month.think_time_s)]
    assert np.median(think) == pytest.approx(131, rel=0.05)


def test_burstgpt_conversations_grow():
    """A turn's prompt holds the previous prompt and answer, unless the history was dropped; hashes agree with that."""
    trace = generate(
        "burstgpt",
        duration_s=3000,
        rate=2.0,
        conversation_share=0.9,
        diurnal=False,
        failure_rate=0.0,
        block_size=16,
        think_median_s=5,
        seed=9,
    )
    later = np.flatnonzero(trace.parent_id >= 0)
    parent = trace.parent_id[later]
    assert (trace.session_id[later] == trace.session_id[parent]).all()
    held = trace.prompt_tokens[parent] + trace.output_tokens[parent]
    grown = np.zeros(len(later), bool)
    for i, (row, before) in enumerate(zip(later.tolist(), parent.tolist(), strict=True)):
        mine, its = trace.block_hashes[row].tolist(), trace.block_hashes[before].tolist()
        assert len(mine) == (trace.prompt_tokens[row] + trace.output_tokens[row]) // 16
        grown[i] = bool(its) and mine[: len(its)] == its
        assert grown[i] or not set(mine) & set(its)
    assert 0.5 < grown.mean() < 1
    assert (trace.prompt_tokens[later] > held)[grown].all()
    hits = infinite_cache_hit_tokens(trace)
    assert (hits[later[grown]] >= held[grown] // 16 * 16 - 16).all()
    gap = trace.arrival_s[later] - trace.arrival_s[parent]
    assert (gap >= trace.think_time_s[later] - 1e-6).all()


def test_burstgpt_is_burstier_than_poisson_and_keeps_its_rate():
    trace = generate("burstgpt", duration_s=86400.0, rate=2.0, seed=1)
    found = describe(trace)
    assert found["interarrival_cv"] > 1.2
    assert found["dispersion"] > 10
    assert len(trace) == pytest.approx(2 * 86400 * (1 - 0.0178), rel=0.05)
    assert len(generate("burstgpt", requests=777, rate=5)) == 777


def test_shared_prefix_by_theory():
    """All share the system prompt's blocks, groups are as popular as Zipf says, an endless cache hits prefixes."""
    trace = generate("shared-prefix", requests=20_000, groups=4, system_tokens=64, tools=100, prompt=40, seed=1)
    assert trace.prompt_tokens.tolist() == [204] * 20_000
    shares = np.bincount(trace.tenant.codes) / len(trace)
    assert shares == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=5 * 0.5 / math.sqrt(20_000))
    first = {int(np.flatnonzero(trace.tenant.codes == g)[0]) for g in range(4)}
    hits = infinite_cache_hit_tokens(trace)
    assert set(np.delete(hits, sorted(first)).tolist()) == {160}  # the 10 full blocks of 64 + 100 tokens
    assert sorted(hits[sorted(first)].tolist()) == [0, 64, 64, 64]


def test_every_default_names_its_source():
    for table in (BURSTGPT, SHARED_PREFIX):
        for name, figure in table.items():
            assert figure.source, name
            assert figure.measured != figure.source.startswith("choice"), name


# ------------------------------------------------------------------------------------------------------------- fits


def test_a_fit_finds_what_made_the_trace(tmp_path):
    trace = generate(
        "gamma",
        requests=40_000,
        rate=2.5,
        burstiness=0.5,
        prompt="lognormal:median=500,sigma=0.7",
        output="gamma:mean=265,shape=1.5",
        seed=8,
    )
    fit = fit_trace(trace)
    prompt, output = fit["prompt_tokens"]["chosen"], fit["output_tokens"]["chosen"]
    assert (prompt["kind"], output["kind"]) == ("lognormal", "gamma")
    assert prompt["median"] == pytest.approx(500, rel=0.02)
    assert prompt["sigma"] == pytest.approx(0.7, rel=0.02)
    assert output["shape"] == pytest.approx(1.5, rel=0.03)
    ks = [candidate["ks"] for candidate in fit["prompt_tokens"]["candidates"]]
    assert all(a <= b for a, b in pairwise(ks))
    assert ks[0] < 1.63 / math.sqrt(40_000) * 1.5
    assert fit["arrivals"]["burstiness"] == pytest.approx(0.5, rel=0.05)
    assert fit["arrivals"]["gamma_shape"] == pytest.approx(0.5, rel=0.03)
    path = tmp_path / "dist.yaml"
    write_fit(fit, path)
    again = generate("gamma", fit=str(path), requests=40_000, seed=9)
    assert again.prompt_tokens.mean() == pytest.approx(trace.prompt_tokens.mean(), rel=0.03)
    assert describe(again)["rate_mean"] == pytest.approx(2.5, rel=0.05)
    assert generate("gamma", fit=str(path), requests=5, prompt=3).prompt_tokens.tolist() == [3] * 5


@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-8])
def test_shapes_of_nearly_equal_gaps(spread):
    """Gamma: 1 / CV². Weibull: standard deviation over mean is pi / (sqrt(6) k) for large k."""
    gaps = 1 + spread * np.random.default_rng(0).standard_normal(20_000)
    assert fit_gaps(gaps)["gamma_shape"] == pytest.approx(1 / (gaps.std() / gaps.mean()) ** 2, rel=1e-2)
    extreme = np.exp(spread * np.log(-np.log(np.random.default_rng(0).random(20_000))))
    assert fit_gaps(extreme)["weibull_shape"] == pytest.approx(1 / spread, rel=0.02)


def test_lengths_of_no_family_keep_their_quantiles():
    rng = np.random.default_rng(0)
    two = np.where(rng.random(5000) < 0.5, 10, 4000)
    trace = Trace(np.arange(5000.0), two, np.full(5000, 7))
    fit = fit_trace(trace)
    assert fit["prompt_tokens"]["chosen"]["kind"] == "empirical"
    assert "no family comes within" in fit["prompt_tokens"]["why"]
    assert fit["output_tokens"]["chosen"] == {"kind": "constant", "value": 7}
    drawn = lengths(fit["prompt_tokens"]["chosen"]).sample(stream(0, "x"), 10_000)
    assert np.median(np.abs(drawn - 2005)) == pytest.approx(1995, abs=1)


def test_bad_fit_files(tmp_path):
    path = tmp_path / "fit.yaml"
    with pytest.raises(TraceError, match=r"can't be read \(No such file"):
        read_fit(path)
    path.write_text("a: [")
    with pytest.raises(TraceError, match="is no YAML"):
        read_fit(path)
    path.write_text("a: 1")
    with pytest.raises(TraceError, match="is no fit"):
        read_fit(path)
    path.write_text("schema: workload-fit/1")
    with pytest.raises(TraceError, match="key 'arrivals' is missing"):
        read_fit(path)
    with pytest.raises(TraceError, match="too few to fit"):
        fit_trace(generate("poisson", requests=9))

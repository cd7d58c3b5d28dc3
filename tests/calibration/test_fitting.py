"""Fits of kernel times: known laws are found again, held-out errors are what they say, files are read as written."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hardware_profiles import ProfileError, list_fits, load_accelerator, load_fits
from hardware_profiles.fits import Grid
from simulator.calibration.fitting.families import families
from simulator.calibration.fitting.forms import FORMS, latency_s, seconds
from simulator.calibration.fitting.lattice import corners, evaluate, octaves
from simulator.calibration.fitting.profile import fit_family, fit_profile, held_out
from simulator.calibration.fitting.solving import solve
from simulator.calibration.fitting.writing import profile_text, write_profile
from simulator.calibration.load import load_measurements
from simulator.calibration.schema import frame, write_measurements
from simulator.cli import main
from simulator.errors import InputError

H200 = load_accelerator("h200")
SHARED = Path(__file__).parents[3] / "shared" / "data"
RTX_4090 = SHARED / "layer_profiles" / "RTX4090" / "meta-llama" / "Llama-3.1-8B" / "bf16"
TOKENS = [1, 2, 4, 8, 16, 17, 32, 64, 65, 128, 129, 256, 257, 512, 513, 1024, 1025, 2048, 4096, 8192]
SIZES = [256, 512, 1024, 2048, 3072, 4096, 8192, 16384]


def products(factor: float = 1.5, **columns: object) -> pd.DataFrame:
    """Products that take ``factor`` times as long as the base, whatever the shape."""
    tokens, n, k = (axis.ravel() for axis in np.meshgrid(TOKENS, SIZES, SIZES, indexing="ij"))
    sizes = {"tokens": tokens.astype(float), "n": n.astype(float), "k": k.astype(float)}
    work = FORMS["gemm"].work(sizes, {"weight_dtype": "bf16"}, H200, latency_s("gemm"))
    rows = {
        "operator": "gemm",
        "time_s": factor * work.base_s,
        "hardware": "h200",
        "weight_dtype": "bf16",
        "dtype": "bf16",
        "software": "synthetic",
        "software_version": "1",
        "date": "2026-01-01",
        "source": "a law",
        "tokens": tokens,
        "n": n,
        "k": k,
    }
    return frame({**rows, **columns}, len(tokens))


def test_octaves_are_logarithms_at_powers_of_two_and_straight_between() -> None:
    assert octaves(np.array([0.25, 1.0, 2.0, 3.0, 4.0, 5.0, 1024.0])).tolist() == [-2.0, 0.0, 1.0, 1.5, 2.0, 2.25, 10.0]


def test_weights_of_nodes_by_hand() -> None:
    axes = [(1.0, 4.0), (2.0, 8.0)]
    indices, weights = corners(axes, np.array([[2.0, 8.0], [64.0, 1.0]]))
    at = [{int(i): float(w) for i, w in zip(indices[:, p], weights[:, p], strict=True) if w} for p in range(2)]
    assert at == [{1: 0.5, 3: 0.5}, {2: 1.0}]  # halfway along the first axis; beyond both ends, the corner
    grid = Grid({"a": axes[0], "b": axes[1]}, (1.0, 2.0, 3.0, 5.0))
    assert evaluate(grid, {"a": np.array([2.0, 64.0]), "b": np.array([8.0, 1.0])}).tolist() == [3.5, 3.0]


def test_a_known_grid_is_found_again() -> None:
    axes = [(1.0, 8.0, 64.0), (1.0, 16.0)]
    truth = np.array([1.0, 2.0, 3.0, 2.5, 1.5, 4.0])
    random = np.random.default_rng(1)
    points = np.stack([2.0 ** random.uniform(0, 6, 400), 2.0 ** random.uniform(0, 4, 400)], axis=1)
    indices, weights = corners(axes, points)
    (found,) = solve([(axes, points, np.ones(400))], (truth[indices] * weights).sum(axis=0), 0.01)
    assert found == pytest.approx(truth, rel=0.01)


def test_outliers_do_not_move_the_fit() -> None:
    points = np.full((100, 1), 4.0)
    ratios = np.full(100, 2.0)
    ratios[:15] = 9.0
    (found,) = solve([([(4.0,)], points, np.ones(100))], ratios, 1.0)
    assert found == pytest.approx([2.0], rel=0.02)  # the mean is 3.05


def test_a_constant_ratio_is_found_and_holds_for_shapes_that_nobody_measured() -> None:
    (family,) = families([products(1.5)], H200)
    fit = fit_family(family, H200)
    assert set(fit.ratios.values) == {1.5}
    assert (fit.points, fit.below_bound) == (len(family.time_s), 0)
    assert 0.1 < fit.held_out / fit.points < 0.3
    assert fit.p90_error < 0.005
    assert fit.left_out is not None and fit.left_out[1] < 0.005
    sizes = {"tokens": np.array([77.0, 30_000.0]), "n": np.array([28_672.0, 100.0]), "k": np.array([4096.0, 40.0])}
    work = FORMS["gemm"].work(sizes, {"weight_dtype": "bf16"}, H200, fit.latency_s)
    assert seconds(work, fit.ratios, None) == pytest.approx(1.5 * work.base_s)


def test_the_base_by_hand() -> None:
    sizes = {"tokens": np.array([2.0]), "n": np.array([4096.0]), "k": np.array([1024.0])}
    work = FORMS["gemm"].work(sizes, {"weight_dtype": "fp8"}, H200, 3e-6)
    memory = (4096 * 1024 * (1) + 2 * (1024 * 1 + 4096 * 2)) / 4.8e12
    arithmetic = 2 * 2 * 4096 * 1024 / 1978.9e12
    assert work.bound_s[0] == pytest.approx(memory)
    assert work.base_s[0] == pytest.approx(3e-6 + memory + arithmetic)


def test_times_from_the_cache_are_lifted_to_the_bound_and_counted() -> None:
    (family,) = families([products(0.4)], H200)
    fit = fit_family(family, H200)
    work = FORMS["gemm"].work(family.columns, family.variant, H200, fit.latency_s)
    assert fit.below_bound == int((family.time_s < work.bound_s).sum()) > 100
    assert (seconds(work, fit.ratios, fit.padding) >= work.bound_s).all()


def test_the_quantisation_of_the_input_is_taken_off() -> None:
    gemm = products(1.5, weight_dtype="fp8", dtype="fp8")
    alone = gemm.drop_duplicates(["tokens", "k"]).assign(
        operator="quantize", time_s=1e-6, n=pd.NA, weight_dtype=None, kernel="dynamic: a"
    )
    (family,) = families([pd.concat([gemm, alone], ignore_index=True)], H200)
    assert family.time_s == pytest.approx(gemm["time_s"].to_numpy() - 1e-6)


def test_the_first_measurements_count_and_others_fill_gaps() -> None:
    first = products(1.5)
    second = pd.concat(
        [products(3.0, software="other"), products(2.0, software="other", weight_dtype="int4")], ignore_index=True
    )
    found = {family.variant["weight_dtype"]: family.software for family in families([first, second], H200)}
    assert found == {"bf16": "synthetic 1", "int4": "other 1"}


def test_products_measured_without_a_graph_are_left_out() -> None:
    launches = products(1.5, software="vllm", weight_dtype="fp8_block")
    assert list(families([launches], H200)) == []
    with pytest.raises(InputError, match="no kernels to fit for h200"):
        fit_profile([launches], H200, command="test")


def test_every_fifth_shape_is_held_out_whatever_the_order() -> None:
    shape = [np.arange(1.0, 20_001.0), np.tile([4096.0, 8192.0], 10_000)]
    out = held_out(shape)
    assert out.mean() == pytest.approx(0.2, abs=0.01)
    assert held_out([column[::-1] for column in shape]).tolist() == out[::-1].tolist()


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    profile = fit_profile([products()], H200, command="it's a test")
    write_profile(profile, tmp_path / "h200.yaml")
    again = load_fits(tmp_path / "h200.yaml")
    assert profile_text(again) == profile_text(profile)
    assert again.command == "it's a test"
    broken = profile_text(profile).replace("  ratios: |\n    1.5", "  ratios: |\n    x")
    (tmp_path / "broken.yaml").write_text(broken)
    with pytest.raises(ProfileError, match="'ratios' must be numbers"):
        load_fits(tmp_path / "broken.yaml")


def test_the_command_writes_a_profile_and_prints_its_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_measurements(products(), tmp_path / "m.parquet")
    arguments = ["calibrate", "fit", str(tmp_path / "m.parquet"), "--out", str(tmp_path / "f.yaml")]
    assert exit_code([*arguments, "--accelerator", "h200"]) == 0
    printed = capsys.readouterr().out
    assert "gemm" in printed and "1 fits of h200 written" in printed
    assert load_fits(tmp_path / "f.yaml").fits[0].variant == {"weight_dtype": "bf16"}
    assert exit_code([*arguments, "--accelerator", "a100-80gb"]) == 2
    assert "was measured on h200, not on a100-80gb" in capsys.readouterr().err


def exit_code(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.mark.shared_data
@pytest.mark.skipif(not RTX_4090.is_dir(), reason="needs ../shared/data/layer_profiles/RTX4090")
def test_the_errors_of_a_layer_profile_are_those_recorded() -> None:
    assert_errors_recorded("rtx-4090", [load_measurements(RTX_4090)])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("aiconfigurator_core") is None, reason="needs the package aiconfigurator-core")
def test_the_errors_of_imported_tables_are_those_recorded() -> None:
    from simulator.calibration.aiconfigurator import import_tables

    tables = [import_tables("a100_sxm", engine) for engine in ("vllm", "trtllm", "sglang")]
    assert_errors_recorded("a100-80gb", tables)


def assert_errors_recorded(name: str, tables: list[pd.DataFrame]) -> None:
    recorded = load_fits(name)
    made = fit_profile(tables, load_accelerator(name), command="test")
    assert [(fit.operator, fit.variant, fit.points) for fit in made.fits] == [
        (fit.operator, fit.variant, fit.points) for fit in recorded.fits
    ]
    for now, then in zip(made.fits, recorded.fits, strict=True):
        # Linear algebra of another machine may move the third digit of a node.
        assert now.median_error == pytest.approx(then.median_error, abs=0.002), now.operator
        assert now.p90_error == pytest.approx(then.p90_error, abs=0.005), now.operator


@pytest.mark.parametrize("name", list_fits())
def test_embedded_fits_say_where_they_come_from_and_how_good_they_are(name: str) -> None:
    profile = load_fits(name)
    assert profile.accelerator == name
    assert profile.date and profile.source and profile.software and "calibrate fit" in profile.command
    for fit in profile.fits:
        assert fit.held_out >= 5 and fit.points > 2 * fit.held_out
        assert 0 < fit.median_error <= fit.p90_error
        assert fit.source and fit.software and fit.date
    products = profile.find("gemm", weight_dtype="bf16")
    assert products is not None
    assert products.median_error < 0.06 and products.p90_error < 0.17

"""Policies are found by name, entry point and file, and every error says in one line what would be right."""

import pickle
import subprocess
import sys

import pytest

from policies import protocols, registry
from policies.batching.sarathi import Sarathi
from policies.protocols import PolicyError

FILE = '''
from dataclasses import dataclass
from typing import ClassVar
from policies.protocols import BatchingPolicy, QueueingPolicy, param

@dataclass
class Mine(BatchingPolicy):
    """My own rule.

    More about it.
    """
    name: ClassVar[str] = "{name}"
    source: ClassVar[str] = "me"
    chunk: int = param(64, "chunk size", unit="tokens", ge=1, le=1024)
    mode: str = param("a", "which way", choices=("a", "b"))

@dataclass
class Order(QueueingPolicy):
    """My own order."""
    name: ClassVar[str] = "order"
'''


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE.format(name="mine"))
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install packages by hand: a module and a dist-info folder on sys.path each."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(module, source, **entry_points):
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [f"{name.replace('_', '-')} = {value}" for name, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[simulator.policies]", *lines, ""]))
        registry._entry_points_on.cache_clear()

    yield install
    registry._entry_points_on.cache_clear()


# ------------------------------------------------------------------------------------------------ built-in ones


def test_names_lists_files_without_importing_them():
    """Listing imports no policy; resolving one imports its file and no other."""
    code = (
        "import sys; from policies import registry; registry.names('batching'); registry.names('routing');"
        "count = lambda: [m for m in sys.modules if m.count('.') == 2 and m.startswith('policies.')];"
        "assert count() == [], count(); registry.resolve('batching', 'vllm-v1');"
        "assert count() == ['policies.batching.vllm_v1'], count()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_those_users_write():
    assert {"vllm", "vllm-v1", "sarathi", "orca", "static", "fastgen", "sjf"} <= set(registry.names("batching"))
    assert {"fcfs", "sjf", "ljf", "priority"} <= set(registry.names("queueing"))
    assert {"lru", "lfu", "fifo", "gdsf"} <= set(registry.names("kv_eviction"))
    assert {"round-robin", "least-outstanding", "prefix-aware"} <= set(registry.names("routing"))


def test_kinds_are_the_bases_of_the_protocols():
    assert {"batching", "queueing", "routing", "kv_eviction"} <= set(registry.KINDS)


def test_resolve_and_make_by_name():
    assert registry.resolve("batching", "sarathi") is Sarathi
    assert registry.make("batching", "sarathi", {"watermark": 0.02}) == Sarathi(watermark=0.02)


@pytest.mark.parametrize(
    ("kind", "ref", "message"),
    [
        ("batching", "sarathy", r"^unknown batching policy 'sarathy'; did you mean 'sarathi'\?$"),
        ("batching", "zzz", r"^unknown batching policy 'zzz'; known: fastgen, .*orca, sarathi, .*vllm-v1$"),
        ("batching", "vllm_v1", r"unknown batching policy 'vllm_v1'; did you mean 'vllm-v1'\?"),
        ("batching", "fcfs", r"^'fcfs' is a queueing policy, not a batching policy; known: fastgen, "),
        ("batchin", "vllm", r"^unknown kind of policy 'batchin'; did you mean 'batching'\?$"),
    ],
)
def test_unknown_names_are_errors(kind, ref, message):
    with pytest.raises(PolicyError, match=message):
        registry.resolve(kind, ref)


@pytest.mark.parametrize(
    ("ref", "params", "message"),
    [
        ("vllm", {"watermrk": 1}, r"parameter 'watermrk' of batching policy 'vllm'; did you mean 'watermark'\?"),
        ("vllm", {"zz": 1}, r"'zz' of batching policy 'vllm'; its parameters: preemption_mode, prio.*, watermark$"),
        ("fastgen", {"chunk": 1}, r"^unknown parameter 'chunk' of batching policy 'fastgen'; it has none$"),
        ("vllm", {"watermark": 2}, r"parameter 'watermark' of policy 'vllm' must be at most 1, got 2"),
        ("vllm", {"preemption_mode": "drop"}, "must be one of recompute, swap, got 'drop'"),
        ("static", {"batch_size": 0}, "must be at least 1 requests, got 0"),
        ("static", {"batch_size": 1.5}, "must be a whole number of requests, got 1.5"),
        ("static", {"batch_size": True}, "must be a number in requests, got True"),
        ("trtllm", {"chunked_context": 1}, "must be true or false, got 1"),
        ("vllm", {"watermark": float("nan")}, "must be a finite number, got nan"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_errors(ref, params, message):
    with pytest.raises(PolicyError, match=message):
        registry.make("batching", ref, params)


def test_describe_says_what_the_author_declared():
    info = {i.name: i for i in registry.describe("queueing")}["sjf"]
    assert info.summary == "Shortest predicted output first, with linear ageing."
    assert info.origin == "policies/queueing/sjf.py"
    assert "Learning to Rank" in info.source
    (ageing,) = info.parameters
    assert (ageing.name, ageing.type, ageing.default) == ("ageing_tokens_per_s", "float", 0.0)
    assert ageing.unit == "tokens/s"
    assert ageing.bounds == "at least 0"
    assert ageing.doc


# -------------------------------------------------------------------------------------------------- own files


def test_a_class_in_a_file(own_file):
    policy = registry.make("batching", f"{own_file}:Mine", {"chunk": 32})
    assert (type(policy).__name__, policy.chunk) == ("Mine", 32)


def test_a_file_is_loaded_once_and_its_policies_pickle(own_file):
    ref = f"{own_file}:Mine"
    cls = registry.resolve("batching", ref)
    assert registry.resolve("batching", ref) is cls
    assert pickle.loads(pickle.dumps(cls(chunk=8))) == cls(chunk=8)


def test_a_file_that_changed_is_loaded_again(own_file):
    registry.resolve("batching", f"{own_file}:Mine")
    own_file.write_text(FILE.format(name="mine2"))
    assert registry.resolve("batching", f"{own_file}:Mine").name == "mine2"


def test_describing_a_file_says_where_it_is(own_file):
    info = registry.info("batching", f"{own_file}:Mine")
    assert (info.summary, info.origin) == ("My own rule.", f"{own_file}:Mine")
    assert [p.bounds for p in info.parameters] == ["at least 1, at most 1024", "a | b"]


def test_what_is_wrong_with_a_file_is_said(own_file, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\n\nprint(nothing)\n")
    unparsable = tmp_path / "unparsable.py"
    unparsable.write_text("x = 1\ndef f(:\n")
    empty = tmp_path / "empty.py"
    empty.write_text("class Plain: pass\n")
    for ref, message in [
        (f"{tmp_path}/none.py:Mine", "none.py' can't be read: No such file"),
        (f"{own_file}:Mein", r"has no class 'Mein'; did you mean 'Mine'\? it has Mine, Order$"),
        (f"{own_file}", "say which class, as in own.py:ClassName; it has Mine, Order$"),
        (f"{own_file}:Order", "Order is a queueing policy, not a batching policy$"),
        (f"{own_file}:dataclass", "dataclass isn't a policy class"),
        (f"{own_file}:BatchingPolicy", "BatchingPolicy is a base class, not a policy"),
        (f"{broken}:Mine", "broken.py' failed to import at line 3: NameError: name 'nothing' is not defined$"),
        (f"{unparsable}:Mine", "unparsable.py' failed to import at line 2: SyntaxError: invalid syntax"),
        (f"{empty}:Mine", "has no class 'Mine'; it has no policy class$"),
        (f"{empty}:Plain", "Plain isn't a policy class"),
    ]:
        with pytest.raises(PolicyError, match=message) as caught:
            registry.resolve("batching", ref)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None


# ----------------------------------------------------------------------------------------------- entry points


def test_an_entry_point_is_listed_resolved_and_described(package):
    package("epmine", FILE.format(name="ep-mine"), ep_mine="epmine:Mine", order="epmine:Order")
    assert "ep-mine" in registry.names("batching")
    assert "ep-mine" not in registry.names("queueing")
    assert "order" in registry.names("queueing")
    assert registry.make("batching", "ep-mine", {"chunk": 5}).chunk == 5
    assert registry.info("batching", "ep-mine").origin == "entry point epmine:Mine of package epmine"


def test_two_entry_points_of_a_name_are_an_error_that_names_both(package):
    package("epone", FILE.format(name="same"), same="epone:Mine")
    package("eptwo", FILE.format(name="same"), same="eptwo:Mine")
    with pytest.raises(
        PolicyError,
        match=r"two batching policies are called 'same': entry point epone:Mine of package epone and "
        r"entry point eptwo:Mine of package eptwo",
    ):
        registry.resolve("batching", "same")


def test_an_entry_point_that_takes_a_built_in_name_is_an_error(package):
    package("epclash", FILE.format(name="sarathi"), sarathi="epclash:Mine")
    with pytest.raises(
        PolicyError,
        match=r"two batching policies are called 'sarathi': the built-in one \(policies/batching/sarathi.py\) and "
        r"entry point epclash:Mine",
    ):
        registry.resolve("batching", "sarathi")


def test_the_same_name_in_another_kind_is_no_clash(package):
    package("epkind", FILE.format(name="fcfs"), fcfs="epkind:Mine")
    assert registry.resolve("queueing", "fcfs").__module__ == "policies.queueing.fcfs"
    assert registry.resolve("batching", "fcfs").__module__ == "epkind"


def test_a_broken_entry_point_is_a_warning_and_the_rest_works(package):
    package("epgood", FILE.format(name="good"), good="epgood:Mine")
    package("epbad", "raise RuntimeError('no GPU')", bad="epbad:Mine")
    with pytest.warns(registry.PolicyWarning, match=r"policy 'bad' of epbad:Mine .*left out: RuntimeError: no GPU"):
        names = registry.names("batching")
    assert "good" in names and "bad" not in names and "sarathi" in names
    with pytest.raises(PolicyError, match=r"policy 'bad' of epbad:Mine of package epbad can't be used: RuntimeError"):
        registry.resolve("batching", "bad")
    assert registry.resolve("batching", "good").name == "good"


def test_an_entry_point_must_call_its_class_by_its_name(package):
    package("epname", FILE.format(name="mine"), other="epname:Mine", nothing="epname:param")
    with pytest.raises(PolicyError, match=r"policy 'other' .* can't be used: its class calls itself 'mine'"):
        registry.resolve("batching", "other")
    with pytest.raises(PolicyError, match=r"policy 'nothing' .*epname:param isn't a policy class"):
        registry.resolve("batching", "nothing")


def test_every_built_in_file_holds_the_policy_it_is_called_after():
    for kind in registry.KINDS:
        for name in registry.names(kind):
            cls = registry.resolve(kind, name)
            assert (cls.kind, cls.name) == (kind, name)
            assert issubclass(cls, protocols.Policy)

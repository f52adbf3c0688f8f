"""The parts of the demo that need no federation."""

from __future__ import annotations

import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from coordinator.config.sections import load as load_coordinator
from ssd.daemon.toml_text import document
from ssd.data.partition.partition import client_ids, dirichlet
from ssd.demo import closing
from ssd.demo.contest import attending, plan_of
from ssd.demo.live import LiveTable, PlainLines, display_for
from ssd.demo.place import MADE, PlaceRefused, claimed, drop_state
from ssd.demo.records import Outcome
from ssd.demo.settings import CLIENTS, CONTENDERS, EVALUATOR, DemoSettings, skew
from ssd.demo.summary import summary
from ssd.federation.children import Children, environment
from ssd.federation.configs import coordinator_tables
from ssd.federation.failure import advice, describe, readable
from ssd.federation.federation import Federation
from ssd.federation.hosting import deal
from ssd.federation.records import DaemonFailed, Progress
from ssd.federation.telemetry import LogFollower, labelled, parse_samples, scrape
from ssd.federation.words import duration, size
from ssd.method.registry import load as load_method
from worker.config.sections import load as load_worker

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")


# Who does what.


def test_every_client_is_hosted_once_and_the_work_is_shared_out() -> None:
    sizes = dict(zip(client_ids(10), (449, 59, 22, 42, 149, 106, 224, 86, 64, 236), strict=True))
    hosted = deal(sizes, 4)
    assert sorted(client for clients in hosted for client in clients) == sorted(sizes)
    loads = [sum(sizes[client] for client in clients) for clients in hosted]
    assert max(loads) == 449, "the largest client bounds the largest worker"
    assert max(loads[1:]) - min(loads[1:]) < 50


def test_no_worker_stays_without_clients_even_if_some_have_no_images() -> None:
    hosted = deal({f"client-{number}": 0 for number in range(4)}, 4)
    assert all(len(clients) == 1 for clients in hosted)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"workers": 0}, {"workers": CLIENTS + 1}, {"seed": -1}])
def test_settings_that_make_no_demo_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        DemoSettings(**wrong)


def test_skew_is_the_mean_share_of_the_commonest_class() -> None:
    assert skew({"a": {0: 3, 1: 1}, "b": {2: 4}}, {"a": 4, "b": 4}) == (4, 4, 0.875)


def test_all_methods_start_from_the_same_weights() -> None:
    first, second = (load_method(each.method, each.config).initial(3, None) for each in CONTENDERS)
    np.testing.assert_array_equal(first, second)


def test_both_methods_train_alike_except_for_what_ssd_adds() -> None:
    base, ours = (each.config for each in CONTENDERS)
    assert {key: ours[key] for key in base} == base


# Configuration files.


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda each: each.method)
def test_the_coordinator_accepts_its_file(contender: object, tmp_path: Path) -> None:
    settings = DemoSettings(out=tmp_path, rounds=3, seed=9)
    plan = replace(plan_of(settings, contender), folder=tmp_path / 'st\u00e4te "x"')
    tables = coordinator_tables(plan)
    path = tmp_path / "coordinator.toml"
    path.write_text(document(tables), encoding="utf-8")
    assert tomllib.loads(document(tables)) == tables
    config = load_coordinator(path, environ={})
    assert config.run.mode == "reproducible"
    assert config.run.clients == client_ids(CLIENTS)
    assert config.round.cohort_size == CLIENTS
    assert config.retention.full_versions > settings.rounds, "version 0 must still be there at the end"


def test_workers_accept_their_files_and_only_the_evaluator_evaluates(tmp_path: Path) -> None:
    plan = plan_of(DemoSettings(out=tmp_path), CONTENDERS[0])
    workers = attending(plan, tmp_path / "p.json", [["client-000"]], "127.0.0.1:7")
    assert list(workers) == [EVALUATOR, "worker-1"]
    for name, tables in workers.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(document(tables), encoding="utf-8")
        config = load_worker(path, environ={})
        assert config.evaluates == (name == EVALUATOR)
        assert list(config.data.clients) == ([] if name == EVALUATOR else ["client-000"])


# Telemetry.


def test_a_log_is_followed_line_by_complete_line(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    follower = LogFollower(log)
    assert follower.read() == []
    log.write_bytes(b'{"event": "listening", "http": "h"}\nTraceback: no JSON\n[1]\n{"event": "rou')
    assert [event["event"] for event in follower.read()] == ["listening"]
    with log.open("ab") as file:
        file.write(b'nd_opened"}\n')
    assert [event["event"] for event in follower.read()] == ["round_opened"]
    assert follower.read() == []


def test_samples_are_read_with_their_labels() -> None:
    text = '# HELP x y\n# TYPE x gauge\nx{term="loss"} -2.5\nx{term="dsr"} 1e-3\nplain 3\nbad word\n\n'
    samples = parse_samples(text)
    assert samples == {'x{term="loss"}': -2.5, 'x{term="dsr"}': 0.001, "plain": 3.0}
    assert labelled(samples, "x", "term") == {"loss": -2.5, "dsr": 0.001}


def test_a_metrics_page_is_scraped_and_silence_is_no_error() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(b"up 1\n")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        assert scrape(address) == {"up": 1.0}
        server.shutdown()
    assert scrape(address) == {}


# The folder.


def test_a_fresh_demo_replaces_an_older_one_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "demo"
    with claimed(out):
        for name in MADE:
            (out / name).mkdir() if "." not in name else (out / name).write_text("old")
        (out / "ssd" / "coordinator").mkdir()
        (out / "notes.txt").write_text("mine")
    with claimed(out):
        assert sorted(path.name for path in out.iterdir()) == [".ssd-demo", "notes.txt"]


def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ssd").mkdir()
    with pytest.raises(PlaceRefused, match="no demo's"), claimed(tmp_path):
        pass
    assert (tmp_path / "ssd").is_dir()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(PlaceRefused, match="is a file"), claimed(tmp_path / "x"):
        pass


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(PlaceRefused, match="another demo"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_dropping_state_keeps_results(tmp_path: Path) -> None:
    for name in ("coordinator", "workers"):
        (tmp_path / "ssd" / name).mkdir(parents=True)
    (tmp_path / "ssd" / "encoder.safetensors").write_text("")
    drop_state(tmp_path)
    assert [path.name for path in (tmp_path / "ssd").iterdir()] == ["encoder.safetensors"]


# Processes.


def python(code: str) -> list[str]:
    return ["-c", code]


def wait_until(condition: object, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not (
        Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    )


def test_children_are_gone_afterwards_even_stubborn_ones(tmp_path: Path) -> None:
    with Children(stop_seconds=1.0) as children:
        polite = children.start(
            "polite", python("import time; print('up', flush=True); time.sleep(600)"), tmp_path / "a.log"
        )
        stubborn = children.start(
            "stubborn",
            python(
                "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
                "time.sleep(600)"
            ),
            tmp_path / "b.log",
        )
        for child in (polite, stubborn):
            assert wait_until(lambda child=child: child.tail() == ["up"])
            assert child.exit_code is None
    assert polite.exit_code == -signal.SIGTERM
    assert stubborn.exit_code == -signal.SIGKILL


def test_children_are_stopped_when_something_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Children() as children:
        child = children.start("sleeper", python("import time; time.sleep(600)"), tmp_path / "log")
        raise RuntimeError
    assert child.exit_code is not None


@LINUX
def test_children_end_when_the_demo_is_killed_outright(tmp_path: Path) -> None:
    code = (
        "import pathlib, time\n"
        "from ssd.federation.children import Children\n"
        "with Children() as children:\n"
        f"    log = pathlib.Path({str(tmp_path / 'child.log')!r})\n"
        "    child = children.start('child', ['-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'], log)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    log = tmp_path / "child.log"
    try:
        assert wait_until(lambda: log.exists() and log.read_text().strip())
        pid = int(log.read_text())
    finally:
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not alive(pid))


def test_a_child_inherits_no_setting_of_another_federation() -> None:
    inherited = environment({"SSD_RUN_ROUNDS": "7", "PATH": "p", "OMP_NUM_THREADS": "8"})
    assert "SSD_RUN_ROUNDS" not in inherited
    assert (inherited["PATH"], inherited["OMP_NUM_THREADS"]) == ("p", "1")


# What is shown.


def plain(every: int) -> tuple[PlainLines, io.StringIO]:
    out = io.StringIO()
    return PlainLines(Console(file=out, width=200), every, clock=lambda: 0.0), out


def test_plain_lines_come_every_few_rounds_and_for_the_last() -> None:
    display, out = plain(every=2)
    progress = Progress(title="SSD", rounds=5, clients=10, phase="training")
    for number in range(6):
        progress.round = number
        progress.losses = {"loss": -float(number)}
        display.show(progress)
        display.show(progress)
    said = [line for line in out.getvalue().splitlines() if ": round " in line]
    assert [line.split("round ")[1].split(" of")[0] for line in said] == ["2", "4", "5"]
    assert out.getvalue().count("SSD: training") == 1
    assert "\x1b" not in out.getvalue()


def test_plain_lines_say_evaluations_and_troubles_once() -> None:
    display, out = plain(every=5)
    progress = Progress(title="SSD", rounds=5, clients=10, phase="training")
    progress.evaluations[0] = {"linear_probe_2_per_class": 0.5, "uniformity_inter": 0.25}
    progress.notes.append("client-003 failed (training_diverged): lower the rate [learning]")
    display.show(progress)
    display.show(progress)
    assert out.getvalue().count("version 0 measured: linear probe on 2 labels per class 50.0 %") == 1
    assert out.getvalue().count("[learning]") == 1


def test_a_terminal_gets_a_table_and_a_pipe_gets_lines() -> None:
    waiting = [Progress(title=each.title, rounds=2, clients=10) for each in CONTENDERS]
    assert isinstance(display_for(Console(file=io.StringIO()), waiting, 1), PlainLines)
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=140, no_color=True)
    display = display_for(terminal, waiting, 1)
    assert isinstance(display, LiveTable)
    with display:
        waiting[1].evaluations[2] = {"linear_probe_2_per_class": 0.813}
        display.show(waiting[1])
        display.say("a [bracketed] sentence")
    assert "81.3 %" in out.getvalue()
    assert "a [bracketed] sentence" in out.getvalue()


def test_sizes_and_durations() -> None:
    assert [size(value) for value in (0, 999, 1000, 1.56e6, 2.5e9)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.6 MB",
        "2.5 GB",
    ]
    assert [duration(value) for value in (0, 59.9, 61, 754)] == ["0:00", "0:59", "1:01", "12:34"]


# Failures.


def test_a_failure_shows_last_words_for_people_and_what_to_do(tmp_path: Path) -> None:
    line = json.dumps(
        {"time": "t", "level": "error", "event": "halted", "logger": "x", "reason": "too many failures"}
    )
    failure = DaemonFailed(
        "coordinator of SSD ended with exit code 1", log=tmp_path / "c.log", lines=[line, "raw"]
    )
    text = "\n".join(describe(failure))
    assert "error halted reason=too many failures" in text
    assert "  raw" in text
    assert str(tmp_path / "c.log") in text
    assert "What to do" in text


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("worker-1 of SSD was killed by signal 9", "--workers"),
        ("coordinator of SSD ended with exit code 4", "disk"),
        ("ModuleNotFoundError: No module named 'grpc'", "install"),
        ("nothing has happened for 180 seconds", "busy"),
        ("something else", "log"),
    ],
)
def test_advice_fits_the_failure(words: str, hint: str) -> None:
    assert hint in advice(DaemonFailed(words))


def test_a_line_that_is_no_event_stays_as_it_is() -> None:
    assert readable('{"a": 1}') == '{"a": 1}'
    assert readable("ValueError: x") == "ValueError: x"


def test_a_halted_run_and_an_ended_daemon_are_failures(tmp_path: Path) -> None:
    settings = DemoSettings(out=tmp_path, rounds=2)
    with Children() as children:
        federation = Federation(plan_of(settings, CONTENDERS[0]), children)
        # Stands in for the coordinator: it says one event and ends.
        said = json.dumps({"event": "halted", "reason": "client-001 failed three times"})
        child = children.start("coordinator", python(f"print('''{said}''')"), tmp_path / "coordinator.log")
        federation._daemons.append(child)
        federation._follower = LogFollower(child.log)
        assert wait_until(lambda: child.exit_code is not None)
        with pytest.raises(DaemonFailed, match="client-001 failed three times"):
            federation.run(lambda address: {}, lambda progress: None)
        child.log.write_text("plain words\n")
        with pytest.raises(DaemonFailed, match="exit code 0") as caught:
            federation.run(lambda address: {}, lambda progress: None)
    assert caught.value.lines == ("plain words",)


# The end.


MEASURED = {
    "raw pixels": {"linear_probe_2_per_class": 0.70},
    "untrained": {"linear_probe_2_per_class": 0.60, "uniformity_inter": 0.05},
    "FedAlignUniform": {"linear_probe_2_per_class": 0.80, "uniformity_inter": 0.50},
    "SSD": {"linear_probe_2_per_class": 0.79, "uniformity_inter": 0.47},
}


def outcome(number: int) -> Outcome:
    rounds = tuple(
        {"round": n, "bytes_up": 100 * n, "bytes_down": 10, "statistics": {"loss": -n, "batches": 3.0}}
        for n in (1, 2)
    )
    return Outcome(
        contender=CONTENDERS[number], run_id="r", version=2, model_digest="ab", rounds=rounds,
        evaluations={0: {"uniformity_inter": 0.05}, 2: {"uniformity_inter": 0.5}},
        clients=(), encoder=Path("x/encoder.safetensors"), seconds=1.5,
    )  # fmt: skip


def test_a_worse_result_is_said_as_plainly_as_a_better_one() -> None:
    text = "\n".join(closing.comparison(MEASURED, ["FedAlignUniform", "SSD"]))
    assert "SSD against FedAlignUniform: -1.0 points" in text
    assert "-0.030 uniformity" in text
    assert "FedAlignUniform: +20.0 points over the untrained encoder" in text


def test_traffic_is_the_mean_of_the_committed_rounds() -> None:
    assert closing.traffic(outcome(0)) == (150.0, 10.0)


def test_the_summary_is_plain_json_and_says_what_it_was_made_of() -> None:
    partition = dirichlet([n % 10 for n in range(200)], CLIENTS, 0.1, 1, dataset="digits")
    document = summary(
        DemoSettings(rounds=2), [outcome(0), outcome(1)], MEASURED, partition,
        wall_seconds=1.0, processor_seconds=2.0,
    )  # fmt: skip
    again = json.loads(json.dumps(document, allow_nan=False))
    assert set(again["federations"]) == {each.method for each in CONTENDERS}
    assert again["federations"]["ssd"]["method_config"]["preset"] == "official"
    assert again["federations"]["ssd"]["evaluations"]["2"] == {"uniformity_inter": 0.5}
    assert sum(again["split"]["sizes"].values()) == 200
    assert {"python", "torch", "numpy"} <= set(again["versions"])
    assert again["machine"]["cores"] >= 1
    assert again["table"] == MEASURED

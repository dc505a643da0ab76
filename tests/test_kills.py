"""Whatever ends a run: real processes, real signals. Results are whole or as they were, nothing is left."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Said, contents, python_m, small_layers

from accelsim.report.folder import result_folder
from accelsim.system import whole
from accelsim.system.whole import SUFFIX, scratch_folder, whole_file, whole_files, whole_folder

pytestmark = pytest.mark.kept

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE_S = 10.0  # a machine may be busy
LIBERTY = ROOT / "tests/data/tiny.lib"


def heed_signals() -> None:
    """In a child: what a test run under nohup or in the background of a shell ignores, its children would."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "accelsim", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def scratch_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(SUFFIX)]


def wait_for(there: Callable[[], object], process: subprocess.Popen) -> None:
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def wait_for_signals(process: subprocess.Popen) -> None:
    """Until the process has its second thread, which waits for signals; before, Python itself is starting."""
    threads = Path(f"/proc/{process.pid}/task")
    wait_for(lambda: len(list(threads.iterdir())) > 1, process)


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Status and stderr after a signal, which must end it at once."""
    process.send_signal(number)
    sent = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - sent < AT_ONCE_S
    return process.returncode, said


@pytest.fixture(scope="module")
def earlier(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    assert python_m("run", trace, "--out", "o", "--no-plots", cwd=folder).returncode == 0
    return folder / "o"


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("run", signal.SIGINT),
        ("run", signal.SIGHUP),
        ("run", signal.SIGKILL),
        ("plot", signal.SIGTERM),
        ("plot", signal.SIGKILL),
    ],
)
def test_a_signal_while_results_are_written(
    trace: Path, earlier: Path, tmp_path: Path, command: str, number: int
) -> None:
    shutil.copytree(earlier, tmp_path / "o")
    before = contents(tmp_path)
    arguments = ("run", trace, "--out", "o") if command == "run" else ("plot", "o")
    process = start(*arguments, cwd=tmp_path)
    wait_for(lambda: scratch_in(tmp_path), process)
    status, said = ended(process, number)
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL and scratch_in(tmp_path)
        after = {path: text for path, text in contents(tmp_path).items() if SUFFIX not in path}
        assert after == before
        again = python_m(*arguments, cwd=tmp_path)
        assert (again.returncode, again.stderr) == (0, "")
        assert [path.name for path in tmp_path.iterdir()] == ["o"]
    else:
        assert (status, said) == (130, "interrupted\n")
        assert contents(tmp_path) == before


def test_a_signal_while_modules_are_imported(trace: Path, tmp_path: Path) -> None:
    """From what imports first on, at any moment before something is written."""
    for moment_s in (0.1, 0.2, 0.4):
        process = start("run", trace, "--out", "o", cwd=tmp_path)
        maps = Path(f"/proc/{process.pid}/task")
        wait_for(
            lambda maps=maps: len(list(maps.iterdir())) > 1, process
        )  # the thread that waits for signals
        time.sleep(moment_s)
        assert ended(process, signal.SIGINT) == (130, "interrupted\n")
        assert not list(tmp_path.iterdir())


def test_ignored_signals_stay_ignored(trace: Path, tmp_path: Path) -> None:
    """As under nohup."""
    process = subprocess.Popen(
        [sys.executable, "-m", "accelsim", "run", str(trace), "--out", "o", "--no-plots"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for_signals(process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0 and (tmp_path / "o/summary.json").is_file()


def test_tools_end_with_the_program(tmp_path: Path) -> None:
    """Yosys, here one that never ends, and whatever it has started."""
    (tmp_path / "bin").mkdir()
    yosys = tmp_path / "bin/yosys"
    yosys.write_text(
        '#!/bin/sh\n[ "$1" = -V ] && echo Yosys 0.0 && exit\nsleep 300 & echo $$ $! > "$PIDS"\nwait\n'
    )
    yosys.chmod(0o755)
    (tmp_path / "out").mkdir()
    pids = tmp_path / "pids"
    arguments = ("costs", "characterise", "--liberty", LIBERTY, "--node-nm", "7", "--out", "out/o")
    process = start(*arguments, cwd=tmp_path, PIDS=str(pids), PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    wait_for(lambda: pids.is_file() and len(pids.read_text().split()) == 2, process)
    assert ended(process, signal.SIGTERM) == (130, "interrupted\n")
    assert not list((tmp_path / "out").iterdir())
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


SLOW_START = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from accelsim.cli.interrupt import end_on_signals
from accelsim.system import tools

end_on_signals()
own = subprocess.Popen

def slowly(*arguments, **options):
    process = own(*arguments, **options)
    Path("pid").write_text(str(process.pid))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)  # it runs, and nobody has been told
    return process

subprocess.Popen = slowly
run = lambda: tools.run_tool(["sleep", "300"], Path.cwd(), 300, "sleep")
if sys.argv[1] == "thread":
    threading.Thread(target=run).start()
    time.sleep(300)
run()
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_tool_that_is_just_being_started_ends_too(where: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_START, where],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals,
    )  # fmt: skip
    assert process.communicate(timeout=100)[1] == "interrupted\n" and process.returncode == 130
    until = time.monotonic() + AT_ONCE_S
    while running((tmp_path / "pid").read_text()):
        assert time.monotonic() < until
        time.sleep(0.01)


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_live_scratch_folder_stays_and_a_dead_one_goes(tmp_path: Path) -> None:
    dead = tmp_path / f".x.00000000{SUFFIX}"
    (dead / "new").mkdir(parents=True)
    (tmp_path / ".mine").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (tmp_path / f".link{SUFFIX}").symlink_to(outside)
    with scratch_folder(tmp_path / "a") as live:
        assert not dead.exists()
        done = subprocess.run(
            [sys.executable, "-c", "from accelsim.system.whole import *; import sys, pathlib\n"
             "with scratch_folder(pathlib.Path(sys.argv[1]) / 'b'): print('ok')", str(tmp_path)],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert done.stdout == "ok\n", done.stderr
        assert live.is_dir()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".mine", "outside", f".link{SUFFIX}"} and (outside / "file").is_file()


def test_what_a_killed_run_had_put_aside_comes_back(tmp_path: Path) -> None:
    """Where folders cannot be swapped a kill may fall between the two renames."""
    old = tmp_path / f".o.00000000{SUFFIX}" / "old" / "o"
    old.mkdir(parents=True)
    (old / "result").write_text("x")
    with scratch_folder(tmp_path / "other"):
        assert (tmp_path / "o/result").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


@pytest.mark.parametrize("swap", [True, False], ids=["swapped", "two renames"])
def test_whole_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: bool) -> None:
    if not swap:
        monkeypatch.setattr(whole, "_swap", lambda one, other: False)
    (tmp_path / "link").symlink_to("real")
    for text in "1", "2":
        with whole_folder(tmp_path / "link") as folder:
            (folder / text).write_text(text)
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["2"]
    assert (tmp_path / "link").is_symlink()
    with whole_files(tmp_path / "real") as folder:
        (folder / "in").mkdir()
        (folder / "in/3").write_text("3")
    with whole_file(tmp_path / "real/2") as file:
        file.write_text("4")
    assert contents(tmp_path / "real") == {"2": b"4", "in": b"a folder", "in/3": b"3"}
    assert {path.name for path in tmp_path.iterdir()} == {"link", "real"}


def test_what_others_put_into_the_target_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds other files"), result_folder(tmp_path / "o") as folder:
        (folder / "summary.json").write_text("{}")
        (tmp_path / "o").mkdir()
        (tmp_path / "o/thesis.tex").write_text("x")
    assert contents(tmp_path) == {"o": b"a folder", "o/thesis.tex": b"x"}


def test_two_runs_with_one_target(trace: Path, tmp_path: Path) -> None:
    both = [start("run", trace, "--out", "o", "--no-plots", cwd=tmp_path) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "") and "results in o/" in out
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert len(list((tmp_path / "o").iterdir())) == 5


# --- machines ----------------------------------------------------------------------------------------------


def test_pipes(tmp_path: Path) -> None:
    """A reader that leaves early is no error; a full disk behind stdout is one line."""
    own = f"{sys.executable} -m accelsim costs --csv"
    script = f"{own} | head -1; echo ${{PIPESTATUS[0]}}; {own} > /dev/full; echo $?; {own} >&-"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["0", "2"] and done.returncode == 0
    assert done.stderr == "error: output: No space left on device\n"


def test_a_narrow_terminal_cuts_no_number(trace: Path, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # bars may be cut
        # Python's readline puts COLUMNS=80 into the environment.
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        run = [sys.executable, "-m", "accelsim", "run", str(trace), "--no-plots"]
        os.execve(sys.executable, run, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    said = b""
    try:
        while part := os.read(terminal, 1 << 16):
            said += part
    except OSError:  # how a terminal on Linux says that the other end is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert "…" not in said.decode() and "results in" in said.decode()
    # What has no column wide enough for a character is not shown at all.
    assert all(own.layer.name in said.decode() for own in small_layers())


@pytest.mark.slow
@pytest.mark.long
def test_without_a_home_or_a_writable_package(tmp_path: Path) -> None:
    """Numba then has nowhere to keep compiled code: it compiles anew, and no one is told."""
    for package in ("accelsim", "kernels", "traces"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        (folder / "__pycache__").write_text("a file where the folder would be")
    (tmp_path / "home").write_text("a file as well")
    done = subprocess.run(
        [sys.executable, "-m", "accelsim", "run", "digits", "--no-plots", "--out", "o"],
        cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "PYTHONPATH": f"{tmp_path}/kernels"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_figures_need_neither_a_window_nor_a_home(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    environment = {
        "MPLBACKEND": "no_such",
        "MPLCONFIGDIR": str(tmp_path / "home"),
        "XDG_CACHE_HOME": "/proc/no",
    }
    done = python_m("run", trace, "--out", "o", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "o/energy.png").is_file()


@pytest.mark.kept(False)
def test_the_jit_of_numba_is_for_others(trace: Path, tmp_path: Path) -> None:
    """The same bytes: what is compiled has no other form."""
    found = []
    for name in "0", "1":
        done = python_m("run", trace, "--out", name, "--no-plots", cwd=tmp_path, NUMBA_DISABLE_JIT=name)
        assert (done.returncode, done.stderr) == (0, "")
        found.append(
            {file: text for file, text in contents(tmp_path / name).items() if file != "summary.json"}
        )
    assert found[0] == found[1] and len(found[0]) > 3


def test_rtl_knows_not_where_its_input_lies(trace: Path, tmp_path: Path, cli: Callable[..., Said]) -> None:
    found = []
    for name in "here", "there":
        folder = tmp_path / name
        folder.mkdir()
        shutil.copyfile(trace, folder / "t.safetensors")
        shutil.copyfile(ROOT / "accelsim/machine/presets/magnet16.yaml", folder / "m.yaml")
        arguments = ("--arch", folder / "m.yaml", "--trace", folder / "t.safetensors", "--layer", "middle")
        assert cli("rtl", *arguments, "--out", folder / "o").status == 0
        found.append(contents(folder / "o"))
    assert found[0] == found[1]
    (tmp_path / "here/o/notes.txt").write_text("x")
    assert "holds other files (notes.txt)" in cli("rtl", *arguments, "--out", tmp_path / "here/o").err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "command",
    [
        ("run", "digits", "--out", "o"),
        ("compare", "digits", "--out", "o", "--no-plots"),
        ("rtl", "--out", "o"),
        ("trace", "quantize", "digits", "--scheme", "4/4/4/4", "--out", "o"),
        (
            "costs",
            "characterise",
            "--liberty",
            LIBERTY,
            "--node-nm",
            "7",
            "--filter",
            "^dot_v16_w2_a[23]_s$",
            "--out",
            "o",
        ),
    ],
    ids=lambda command: command[0],
)
def test_kills_at_random_moments(tmp_path: Path, command: tuple[object, ...], number: int) -> None:
    if command[0] == "costs" and shutil.which("yosys") is None:
        pytest.skip("Yosys is not installed")
    draw = random.Random(5)
    began = time.monotonic()
    whole_run = python_m(*command, cwd=tmp_path)
    took_s = time.monotonic() - began
    assert whole_run.returncode == 0, whole_run.stderr
    expected = set(contents(tmp_path))
    for _ in range(8):
        process = start(*command, cwd=tmp_path)
        wait_for_signals(process)
        time.sleep(draw.uniform(0, took_s))
        status, said = ended(process, number)
        assert status in (0, 130, -number) and said in ("", "interrupted\n")
        assert {path for path in contents(tmp_path) if SUFFIX not in path} == expected
        assert number == signal.SIGKILL or set(contents(tmp_path)) == expected
    assert python_m(*command, cwd=tmp_path).returncode == 0
    assert set(contents(tmp_path)) == expected

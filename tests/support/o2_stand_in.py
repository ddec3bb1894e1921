"""A stand-in for O2Physics: its tasks, ``alienv`` and container engines, with their command lines and ways to fail.

Installed under each of its names (:func:`support.o2_setup.install`); the name decides what it plays. It refuses what
the real programs would not understand. ``O2_STAND_IN`` names a JSON file::

    {"log": FILE, "o2": FOLDER with the o2-analysis-… programs, "faults": {program: fault}, "ready": {tree: ROOT file}}
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

VERSIONS = ("latest", "daily-20260101-0000-1")
IMAGE = "registry.example/alice/o2physics:slc9"
WITH_VALUE = {"--configuration", "--aod-memory-rate-limit", "--shm-segment-size"}
WRITER = {"--aod-writer-keep", "--aod-writer-resdir", "--aod-file"}
TREES = {
    "PIDTRACKSMCML": ("O2pidtracksmcml", "processMcMl"),
    "PIDTRACKSMC": ("O2pidtracksmc", "processMcAll"),
    "PIDTRACKSDATAML": ("O2pidtracksdataml", "processDataML"),
    "PIDTRACKSDATA": ("O2pidtracksdata", "processDataAll"),
}
OUTDATED = {
    "O2trackextra": "o2-analysis-tracks-extra-v002-converter",
    "O2trackextra_001": "o2-analysis-tracks-extra-v002-converter",
    "O2mccollision": "o2-analysis-mccollision-converter",
    "O2bc": "o2-analysis-bc-converter",
}
NAME = Path(sys.argv[0]).name


def die(message, status=1):
    print(f"[ERROR] {NAME}: {message}", file=sys.stderr)
    sys.exit(status)


def settings():
    return json.loads(Path(os.environ["O2_STAND_IN"]).read_text())


def record(given, **facts):
    line = json.dumps({"program": NAME, "arguments": sys.argv[1:], "cwd": str(Path.cwd()), **facts}) + "\n"
    descriptor = os.open(given["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def parse(arguments, valued, flags):
    options, waiting = {}, iter(arguments)
    for word in waiting:
        if word in valued:
            options.setdefault(word, []).append(next(waiting))
        elif word in flags:
            options[word] = True
        else:
            return options, [word, *waiting]
    return options, []


# ----------------------------------------------------------------------------------------------------- O2Physics tasks


def task(given):
    last = NAME == "o2-analysis-pid-ml-producer"
    options, rest = parse(sys.argv[1:], WITH_VALUE | (WRITER if last else set()), {"-b"})
    fault = given["faults"].get(NAME, {})
    record(given, environment=sorted(os.environ))
    if rest:
        die(f"unrecognised option '{rest[0]}'")
    if "-b" not in options:
        die("no -b: would open a window")
    if not options.get("--configuration", [""])[0].startswith("json://"):
        die("--configuration json://FILE is missing")
    try:
        configuration = json.loads(Path(options["--configuration"][0].removeprefix("json://")).read_text())
    except ValueError as error:
        die(f"configuration cannot be parsed: {error}")
    before = upstream()
    if "signal" in fault:
        os.kill(os.getpid(), fault["signal"])
    if "status" in fault:
        die("something went wrong, token=S3CR3T", fault["status"])
    if "hang" in fault:
        print("hanging", file=sys.stderr, flush=True)
        time.sleep(600)
    if last:
        produce(given, options, configuration, before, fault.get("output"))
    else:
        print(json.dumps([*before, NAME]))


def upstream():
    """The tasks before this one, as they describe themselves on the pipe."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return []
    try:
        return json.loads(sys.stdin.read())
    except ValueError:
        die("no workflow on standard input")


def produce(given, options, configuration, before, fault):
    keep = options["--aod-writer-keep"][0]
    table, name = keep.removeprefix("AOD/").split("/0:::")
    tree, switch = TREES[table]
    on = [key for key, value in configuration["pid-ml-producer"].items() if value == "true"]
    if on != [switch]:
        die(f"{table} is not what {on} makes")
    output = Path(options["--aod-writer-resdir"][0], f"{name}.root")
    reader = configuration["internal-dpl-aod-reader"]["aod-file-private"]
    if not reader.startswith("@"):
        die("the reader wants @list")
    if options.get("--aod-file", [reader]) != [reader]:
        die(f"reads {reader}, but is told {options['--aod-file']}")
    files = [Path(line) for line in Path(reader[1:]).read_text().splitlines()]
    if not all(path.is_file() for path in files):
        die(f"cannot open {files}")
    if fault == "no file":
        return
    if fault == "empty file":
        output.touch()
        return
    if fault == "no root":
        output.write_text("<html>quota exceeded</html>")
        return
    ready = given["ready"].get(fault or tree)
    if ready is None:
        write(tree, files, before, configuration, output)
    else:
        shutil.copyfile(ready, output)
        if fault == "truncated":
            os.truncate(output, output.stat().st_size // 2)
    shutil.copyfile(given["ready"]["histograms"], "AnalysisResults.root")


def write(tree, files, before, configuration, output):
    """Check that every file's tables have their converter, and write as many directories as the files have."""
    import uproot

    from pidml.simulation.track_tables import TableFormat, write_track_table

    frames = []
    for path in files:
        with uproot.open(path) as file:
            own = [key for key in file.keys(recursive=False, cycle=False) if key.startswith("DF_")]
            for frame in own:
                check_tables(path, set(file[frame].keys(recursive=False, cycle=False)), before, configuration)
            frames += own
    numbers = sorted({int(frame[3:]) for frame in frames})
    write_track_table(
        output,
        50 * len(numbers),
        1,
        frames=len(numbers),
        form=TableFormat(tree, metadata=False),
        first_frame=numbers[0],
    )


def check_tables(path, trees, before, configuration):
    needed = {program for table, program in OUTDATED.items() if table in trees}
    used = {program for program in before if program.endswith("-converter")}
    if needed != used:
        die(f"{path}: converters {sorted(used)}, but the tables need {sorted(needed)}", 134)
    if "o2-analysis-tracks-extra-v002-converter" in used:
        switches = configuration["tracks-extra-v002-converter"]
        right = "processV000ToV002" if "O2trackextra" in trees else "processV001ToV002"
        if [key for key, value in switches.items() if value == "true"] != [right]:
            die(f"{path}: wrong switches of the converter: {switches}", 134)


# ------------------------------------------------------------------------------------------------ alienv and containers


def alienv(given):
    record(given)
    arguments = sys.argv[1:]
    if arguments[:1] != ["setenv"] or arguments[2:3] != ["-c"] or len(arguments) < 4:
        die("usage: alienv setenv MODULE -c COMMAND …")
    package, _, version = arguments[1].partition("/")
    if package != "O2Physics" or version not in VERSIONS:
        die(f"{arguments[1]} was not found")
    modules = f"O2/1.0:O2Physics/{version}:BASE/1.0"
    loaded = {
        "PATH": f"{given['o2']}:{os.environ['PATH']}",
        "O2PHYSICS_ROOT": "/sw/O2Physics",
        "LOADEDMODULES": modules,
    }
    os.execvpe(arguments[3], arguments[3:], os.environ | loaded)


def container(given):
    arguments = sys.argv[1:]
    if NAME != "apptainer" and arguments[:1] in (["ps"], ["rm"]):
        record(given)
        sys.exit(ask_daemon(given, {"do": arguments[0], "arguments": arguments[1:]}))
    if arguments[:1] != ["exec" if NAME == "apptainer" else "run"]:
        die(f"unknown command {arguments[:1]}")
    valued = {"--env", "--mount"}
    valued |= {"--pwd"} if NAME == "apptainer" else {"--name", "--user", "--shm-size", "--workdir", "--security-opt"}
    flags = {"--cleanenv", "--no-home"} if NAME == "apptainer" else {"--rm", "--init", "--userns=keep-id"}
    options, rest = parse(arguments[1:], valued, flags)
    mounts = [mount(text) for text in options["--mount"]]
    record(given, mounts=mounts, environment=sorted(os.environ))
    if rest[:1] != [IMAGE]:
        die(f"cannot find image {rest[:1]}", 125)
    work = next(each["source"] for each in mounts if each["destination"] == "/pidml")
    if options.get("--pwd", options.get("--workdir")) != ["/pidml"]:
        die("not in the mounted folder")
    inside = dict(text.split("=", 1) for text in options.get("--env", []))
    inside |= {"PATH": f"{given['o2']}:/usr/bin:/bin", "O2_STAND_IN": os.environ["O2_STAND_IN"]}
    if NAME == "apptainer":
        sys.exit(subprocess.run(rest[1:], cwd=work, env=inside, check=False).returncode)
    name = options["--name"][0]
    sys.exit(ask_daemon(given, {"do": "run", "name": name, "command": rest[1:], "cwd": work, "env": inside}))


def ask_daemon(given, request):
    """Have the daemon (:mod:`support.container_daemon`) do something; print what it says and return the status."""
    with socket.create_connection(("127.0.0.1", given["daemon"])) as connection, connection.makefile("rwb") as stream:
        stream.write(json.dumps(request).encode() + b"\n")
        stream.flush()
        for line in stream:
            if line.startswith(b"status "):
                return int(line.split()[1])
            sys.stdout.buffer.write(line.removeprefix(b"output "))
            sys.stdout.flush()
    return 125


def mount(text):
    import csv

    fields = next(csv.reader([text]))
    found = dict(field.split("=", 1) for field in fields if "=" in field)
    if found.pop("type") != "bind" or not Path(found["source"]).exists():
        die(f"cannot mount {text}")
    return found | {"ro": "ro" in fields}


def main():
    given = settings()
    {"alienv": alienv, "apptainer": container, "podman": container, "docker": container}.get(NAME, task)(given)

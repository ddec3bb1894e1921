"""A stand-in for alienpy's ``alien_cp``: its command line, its ways to fail; a folder plays the GRID.

It accepts what alienpy 1.7 accepts and refuses the rest, as a check of what it is given. ``STAND_IN`` names a JSON
file: ``{"grid": FOLDER, "log": FILE, "faults": [NAME, …]}``; each run takes the first fault off the list.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

VALUED = {"-retry", "-S", "-timeout", "-T", "-chunks", "-chunksz", "-y"}
FLAGS = {"-cksum", "-f", "-noxrdzip", "-norecovery", "-strictspec"}


def finish(status, message):
    print(message, file=sys.stderr if status else sys.stdout)
    sys.exit(status)


def parse(arguments):
    options, rest = {}, []
    waiting = iter(arguments)
    for argument in waiting:
        if argument in VALUED:
            options[argument] = int(next(waiting))
        elif argument in FLAGS:
            options[argument] = True
        elif argument.startswith("-"):
            finish(22, f"unknown option {argument}")
        else:
            rest.append(argument)
    if len(rest) != 2:
        finish(22, "Command format is of the form of (with the strict order of arguments): cp <options> src dst")
    if any(re.search(r"[;\n@,*|]", argument) for argument in arguments):
        finish(22, "an argument holds a character that acts in alien_cp")
    if Path("cp").is_file():
        finish(22, "a file named cp in the current folder would be read as a script")
    return options, *rest


def main():
    settings_path = Path(os.environ["STAND_IN"])
    settings = json.loads(settings_path.read_text())
    fault = settings["faults"].pop(0) if settings["faults"] else None
    settings_path.write_text(json.dumps(settings))
    with Path(settings["log"]).open("a") as log:
        log.write(json.dumps({"arguments": sys.argv[1:], "cwd": str(Path.cwd()), "pid": os.getpid()}) + "\n")
    options, source, target = parse(sys.argv[1:])
    lfn = re.sub("(alien|file)(:|/{2})+", "", source)
    if not target.startswith("file:") or not lfn.startswith("/alice/"):
        finish(1, "grid to grid copy is WIP")
    if options.get("-S", 1) > 15 or not options.get("-cksum"):
        finish(22, "wrong number of streams, or no checksum asked for")
    destination = Path(re.sub("(alien|file)(:|/{2})+", "", target)).resolve()
    act(fault, Path(settings["grid"]) / lfn.lstrip("/"), lfn, destination)


def act(fault, stored, lfn, destination):
    job = "jobID: 1/1 >>> "
    if fault == "no services":
        finish(107, "connection to central services failed")
    if fault == "no token":
        finish(1, "Invalid/expired user certificate!! Check the content of usercert.pem\nAuthorization: Bearer S3CR3T")
    if not stored.is_file():
        finish(2, f"Specified source {lfn} not found!")
    if fault == "no replica":
        print(f"No token info for {lfn}\nThis message should not happen!", file=sys.stderr)
        finish(2, "No XRootD operations in list! enable the DEBUG mode for more info")
    content = stored.read_bytes()
    print(f"{job}Start")
    if fault == "cut":
        destination.write_bytes(content[: len(content) // 2])
        finish(1, f"\x1b[1;31m{job}STATUS ERROR\x1b[0m : {lfn}\n[ERROR] Socket error root://u:pw@se//x?authz=S3CR3T")
    if fault == "checksum":
        finish(1, f"{job}STATUS ERROR : {lfn}\n[ERROR] CheckSum error: md5 mismatch")
    if fault == "disk full":
        destination.write_bytes(content[:10])
        finish(1, f"{job}STATUS ERROR : {lfn}\n[ERROR] Local error: No space left on device")
    if fault == "hang":
        destination.write_bytes(content[:10])
        child = subprocess.Popen(["sleep", "600"])
        Path("..", "child").write_text(str(child.pid))
        child.wait()
    if fault == "nothing copied":
        finish(0, "No copy jobs to be done!")
    destination.write_bytes(content if fault != "silent damage" else content[:-1] + bytes([content[-1] ^ 0xFF]))
    finish(0, f"{job}STATUS OK >>> SPEED 1 MiB/s\nSuccessful jobs (1st try): 1/1")


main()

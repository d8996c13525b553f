"""A SLURM of one node on this machine, for tests: slurmctld, slurmd and munge from Debian's packages, without systemd.

    python tests/helpers/slurm_cluster.py install      # apt-get install slurmctld slurmd slurm-client munge
    python tests/helpers/slurm_cluster.py start        # all daemons, configured in a folder of their own; needs root
    eval "$(python tests/helpers/slurm_cluster.py env)"    # what SLURM's commands need to find it
    python tests/helpers/slurm_cluster.py stop

There is no accounting database, as on many small clusters: `sacct` answers nothing.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
DAEMONS = ("munged", "slurmctld", "slurmd")
HOME = Path(os.environ.get("DENSECL_TEST_SLURM", "/tmp/densecl-slurm"))  # short: sockets have short names
MUNGE = Path("/run/munge/munge.socket.2")  # where SLURM looks for it

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=60
SchedulerParameters=sched_interval=2,batch_sched_delay=1
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def installed() -> bool:
    """True if all daemons are on this machine, and this user may start them."""
    return os.geteuid() == 0 and all(shutil.which(name, path=_search()) for name in DAEMONS)


def running() -> bool:
    """True if the node of our cluster takes jobs."""
    if not (HOME / "slurm.conf").is_file() or shutil.which("sinfo") is None:
        return False
    command = ["sinfo", "--noheader", "--format=%T"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    return found.stdout.strip() in ("idle", "mixed", "allocated", "completing")


def environment() -> dict[str, str]:
    """Variables under which SLURM's commands find the cluster."""
    return {**os.environ, "SLURM_CONF": str(HOME / "slurm.conf"), "PATH": _search()}


def install() -> None:
    """Install the packages; Debian would start them through systemd, which need not be there."""
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    options = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES], check=True, env=options)


def start(cpus: int = 2) -> None:
    """Start what is not running, and wait until the node takes jobs."""
    if running():
        return
    for folder in (HOME / "state", HOME / "spool"):
        folder.mkdir(parents=True, exist_ok=True)
    (HOME / "slurm.conf").write_text(CONFIGURATION.format(host=_host(), home=HOME, cpus=cpus))
    _start_munge()
    for daemon in ("slurmctld", "slurmd"):
        _alone(daemon)
        subprocess.run([_which(daemon)], check=True, env=environment())
        time.sleep(2)
    deadline = time.monotonic() + 30
    while not running():
        if time.monotonic() > deadline:
            raise SystemExit(f"the node does not come up: see {HOME}/slurmctld.log and slurmd.log")
        time.sleep(0.5)


def stop() -> None:
    """End the daemons that this script started."""
    for name in ("slurmd", "slurmctld", "munged"):
        _end(HOME / f"{name}.pid")
    shutil.rmtree(HOME, ignore_errors=True)


def _start_munge() -> None:
    """munged as its own user, with a key of its own; one that runs already is used."""
    if MUNGE.exists() and subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    key = Path("/etc/munge/munge.key")
    if not key.is_file():
        key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    MUNGE.parent.mkdir(parents=True, exist_ok=True)
    (HOME / "munge").mkdir(exist_ok=True)
    for path in (key, MUNGE.parent, HOME / "munge"):
        shutil.chown(path, "munge", "munge")
    MUNGE.parent.chmod(0o755)
    options = [f"--pid-file={HOME}/munge/munged.pid", f"--log-file={HOME}/munge/munged.log"]
    options.append(f"--seed-file={HOME}/munge/munged.seed")
    subprocess.run([_which("munged"), *options], check=True, user="munge", group="munge", extra_groups=[])
    (HOME / "munged.pid").symlink_to(HOME / "munge" / "munged.pid")


def _alone(daemon: str) -> None:
    """End a daemon of ours that was left behind."""
    _end(HOME / f"{daemon}.pid")


def _end(pid_file: Path) -> None:
    try:
        number = int(pid_file.read_text())
        os.kill(number, 15)
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and Path(f"/proc/{number}").exists():
        time.sleep(0.1)


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _search() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _which(name: str) -> str:
    found = shutil.which(name, path=_search())
    if found is None:
        raise SystemExit(f"there is no {name}: python {sys.argv[0]} install")
    return found


def main(word: str) -> int:
    """Do what the command line says."""
    if word == "env":
        print(f"export SLURM_CONF={HOME}/slurm.conf PATH=$PATH:/usr/sbin:/sbin")
    elif word in ("install", "start", "stop"):
        {"install": install, "start": start, "stop": stop}[word]()
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))

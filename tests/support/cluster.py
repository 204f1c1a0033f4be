"""A private SLURM of two nodes on this machine, for the tests marked ``slurm``.

From Debian's packages, which only root can install. Everything lives in one folder:
configuration, key, sockets, logs. Memory limits are not enforced (no cgroups), the GPUs are
imaginary, and there is no accounting.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def install() -> None:
    """Install SLURM where this machine allows it; skip the test where it does not."""
    if all(shutil.which(program, path=PATH) for program in PROGRAMS):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        pytest.skip(
            "needs SLURM, which only root can install here: apt-get install " + " ".join(PACKAGES)
        )
    options = {
        "capture_output": True,
        "text": True,
        "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    }
    subprocess.run(["apt-get", "update", "-qq"], **options)
    done = subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], **options
    )
    if done.returncode:
        pytest.skip(f"SLURM cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons; yield the environment that clients need."""
    install()
    for name in ("munge", "state", "spool/n1", "spool/n2"):
        (folder / name).mkdir(parents=True)
    os.chmod(folder / "munge", 0o700)
    key, conf, gpu = folder / "munge" / "key", folder / "slurm.conf", folder / "gpu"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    gpu.touch()  # stands in for /dev/nvidia0; without a file SLURM counts no GPU
    (folder / "gres.conf").write_text(f"Name=gpu File={gpu}\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
    conf.write_text(_configuration(folder))
    # n1 and n2 are no names that anybody could resolve,
    # so the first of several processes says where it is
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": PATH, "MASTER_ADDR": "127.0.0.1"}
    munge = [
        "munged",
        f"--key-file={key}",
        f"--socket={folder}/munge.socket",
        f"--log-file={folder}/munged.log",
    ]
    munge += [
        f"--pid-file={folder}/munged.pid",
        f"--seed-file={folder}/munge/seed",
        "--foreground",
        "--force",
    ]
    daemons = [
        munge,
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "n1"],
        ["slurmd", "-D", "-N", "n2"],
    ]
    started = []
    try:
        for daemon in daemons:
            log = (folder / f"{Path(daemon[0]).name}-{len(started)}.out").open("w")
            started.append(
                subprocess.Popen(
                    daemon, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            )
            time.sleep(0.5)
        _wait_until_idle(folder, environment)
        yield environment
    finally:
        subprocess.run(["scancel", f"--user={os.geteuid()}"], env=environment, capture_output=True)
        time.sleep(1)
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_idle(folder: Path, environment: dict[str, str]) -> None:
    for _ in range(100):
        states = subprocess.run(
            ["sinfo", "-h", "-o", "%t %D"], env=environment, capture_output=True, text=True
        )
        if states.stdout.split() == ["idle", "2"]:
            return
        time.sleep(0.2)
    logs = "\n".join(path.read_text()[-500:] for path in folder.glob("*.out"))
    pytest.skip(f"SLURM does not start here: {states.stdout}{states.stderr}{logs}")


def _configuration(folder: Path) -> str:
    ports = _free_ports(3)
    host = socket.gethostname().split(".")[0]
    user = subprocess.getoutput("id -un")
    node = "NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 Gres=gpu:1 State=UNKNOWN"
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=5
MinJobAge=600
JobRequeue=1
GresTypes=gpu
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} Port={ports[1]} {node}
NodeName=n2 NodeHostname={host} Port={ports[2]} {node}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=24:00:00 State=UP
"""


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports

"""`configs/cluster`, as far as a machine without a cluster can tell: stand-ins for its programs."""

import os
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

CLUSTER = Path(__file__).resolve().parent.parent / "configs" / "cluster"
PRINT = '#!/bin/bash\necho "TF_CONFIG=$TF_CONFIG"\necho "ARGUMENTS=$*"\n'


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a command among programs of the test's own."""

    def run(command, programs, **variables):
        for name, text in programs.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(
            command,
            env=os.environ | variables | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def values(output, name):
    lines = [line for line in output.splitlines() if line.startswith(f"{name}=")]
    return [line.partition("=")[2] for line in lines]


def resolved(text, monkeypatch):
    """What TensorFlow reads of TF_CONFIG."""
    monkeypatch.setenv("TF_CONFIG", text)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id


def test_the_kubernetes_job_tells_each_pod_of_all(run, monkeypatch):
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    kinds = service["kind"], job["kind"], job["spec"]["completionMode"]
    assert kinds == ("Service", "Job", "Indexed")
    name, template = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert template["subdomain"] == service["metadata"]["name"]
    container = template["containers"][0]
    (workers,) = [v["value"] for v in container["env"] if v["name"] == "WORKERS"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(workers)
    port = service["spec"]["ports"][0]["port"]
    assert container["ports"] == [{"containerPort": port}]
    hosts = [f"{name}-{i}.{template['subdomain']}:{port}" for i in range(int(workers))]
    for index in range(int(workers)):
        done = run(
            [*container["command"], *container["args"]],
            {"rcnn": PRINT},
            WORKERS=workers,
            JOB_COMPLETION_INDEX=str(index),
        )
        assert done.returncode == 0, done.stderr
        (text,) = values(done.stdout, "TF_CONFIG")
        assert resolved(text, monkeypatch) == ({"worker": hosts}, "worker", index)
        assert values(done.stdout, "ARGUMENTS") == ["train /data/config.yaml --out /data/run"]


SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit=1
for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" || exit; done
"""
HOSTS = '#!/bin/bash\nif [ "$*" = "show hostnames node[1-2]" ]; then echo node1; echo node2; fi\n'


def slurm(run, rcnn, *arguments):
    return run(
        ["bash", str(CLUSTER / "slurm.sh"), *arguments],
        {"srun": SRUN, "scontrol": HOSTS, "rcnn": rcnn},
        SLURM_JOB_NODELIST="node[1-2]",
    )


def test_the_slurm_script_tells_each_task_of_all(run, monkeypatch):
    assert subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=False).returncode == 0
    done = slurm(run, PRINT, "my config.yaml", "--out", "x")
    assert done.returncode == 0, done.stderr
    found = [resolved(text, monkeypatch) for text in values(done.stdout, "TF_CONFIG")]
    hosts = {"worker": ["node1:2222", "node2:2222"]}
    assert found == [(hosts, "worker", 0), (hosts, "worker", 1)]
    assert values(done.stdout, "ARGUMENTS") == ["train my config.yaml --out x"] * 2


@pytest.mark.parametrize(("status", "starts"), [(75, 4), (137, 4), (1, 1)])
def test_slurm_starts_again_after_a_loss_alone(run, status, starts):
    done = slurm(run, f"#!/bin/bash\necho START=1\nexit {status}\n", "config.yaml")
    assert done.returncode == status
    assert len(values(done.stdout, "START")) == starts

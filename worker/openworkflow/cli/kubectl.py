"""`kubectl openworkflow`: the command line, run in the cluster, beside the fleet that it is about.

It runs in a worker's container, or, when the fleet is at zero, in a pod of the same template that
lives as long as the command. The connection URL stays in the cluster: the pod gets it from the
fleet's Secret, and this program never reads that. What it needs is kubectl, and its user the right
to look at WorkflowNamespaces, Deployments and pods and to `exec` or to create pods.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from openworkflow.cli.render import say

Object = Mapping[str, Any]

_KIND = "workflownamespaces.openworkflow.dev"
_OWNER_LABEL = "openworkflow.dev/workflow-namespace"
_CONTAINER = "worker"
#: What belongs to a worker that serves, and not to one command.
_SERVING = ("args", "command", "livenessProbe", "ports", "readinessProbe", "startupProbe")


class Kubectl:
    """kubectl, with the options that say where."""

    def __init__(self, options: Sequence[str]) -> None:
        self.command = ["kubectl", *options]

    def read(self, *arguments: str) -> Any:
        """What it says as JSON. Raises ClickException with its words."""
        try:
            done = subprocess.run(  # noqa: S603  kubectl, and no shell
                [*self.command, *arguments, "--output=json"],
                capture_output=True,
                text=True,
                timeout=60,
            )
        except FileNotFoundError:
            raise click.ClickException("there is no kubectl in the PATH") from None
        except subprocess.TimeoutExpired:
            raise click.ClickException("the cluster did not answer within 60 s") from None
        if done.returncode:
            raise click.ClickException(done.stderr.strip() or "kubectl failed")
        return json.loads(done.stdout)


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["-h", "--help"],
    }
)
@click.option("-n", "--namespace", help="Kubernetes namespace of the fleet.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", help="Path of the kubeconfig.")
@click.option("-f", "--fleet", help="Name of the WorkflowNamespace, where there are several.")
@click.option("--show", is_flag=True, help="Print the command of kubectl, and run nothing.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def kubectl_openworkflow(
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    fleet: str | None,
    show: bool,
    command: tuple[str, ...],
) -> None:
    """Run `openworkflow COMMAND` on the database of a fleet, in its cluster.

    kubectl openworkflow --fleet orders runs list --status failed
    """
    named = {"--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig}
    kubectl = Kubectl([f"{option}={value}" for option, value in named.items() if value])
    resource = chosen(kubectl.read("get", _KIND)["items"], fleet)
    if not namespace:
        kubectl.command.append(f"--namespace={resource['metadata']['namespace']}")
    selector = f"{_OWNER_LABEL}={resource['metadata']['name']}"
    pod = ready_pod(kubectl.read("get", "pods", "--selector", selector)["items"])
    if pod is not None:
        arguments = in_worker(pod, command)
    else:
        deployments = kubectl.read("get", "deployments", "--selector", selector)["items"]
        arguments = in_own_pod(resource, deployments, command)
    line = [*kubectl.command, *arguments]
    if show:
        click.echo(json.dumps(line))
        return
    if pod is None:
        say("no worker is ready, so a pod is started for this", err=True)
    os.execvp(line[0], line)  # noqa: S606  kubectl has the terminal, signals and exit code


def chosen(resources: Sequence[Object], name: str | None) -> Object:
    """The WorkflowNamespace that is meant. Raises ClickException."""
    names = sorted(each["metadata"]["name"] for each in resources)
    if name is None and len(resources) == 1:
        return resources[0]
    found = [each for each in resources if each["metadata"]["name"] == name]
    if found:
        return found[0]
    if not names:
        raise click.ClickException("there is no WorkflowNamespace here; name one by --namespace")
    raise click.ClickException(f"say which by --fleet: {', '.join(names)}")


def ready_pod(pods: Sequence[Object]) -> str | None:
    """A worker pod in which a command can run."""
    for pod in sorted(pods, key=lambda each: str(each["metadata"]["name"])):
        conditions = (pod.get("status") or {}).get("conditions") or ()
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if is_ready and "deletionTimestamp" not in pod["metadata"]:
            return str(pod["metadata"]["name"])
    return None


def in_worker(pod: str, command: Sequence[str]) -> list[str]:
    """The arguments that run the command in the container of a worker."""
    return ["exec", *_terminal(), f"--container={_CONTAINER}", pod, "--", "openworkflow", *command]


def in_own_pod(
    resource: Object, deployments: Sequence[Object], command: Sequence[str]
) -> list[str]:
    """The arguments that run it in a pod of its own, like a worker's. Raises ClickException."""
    name = resource["metadata"]["name"]
    if not deployments:
        raise click.ClickException(f"{name} has no fleet yet: see `kubectl describe wfns {name}`")
    newest = max(deployments, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    spec = own_spec(newest["spec"]["template"]["spec"], command)
    pod = f"{name}-cli-{secrets.token_hex(3)}"
    return [
        *("run", pod, f"--image={spec['containers'][0]['image']}", "--restart=Never"),
        *("--rm", "--quiet", *_terminal(), "--pod-running-timeout=5m"),
        "--overrides=" + json.dumps({"apiVersion": "v1", "spec": spec}),
    ]


def own_spec(template: Object, command: Sequence[str]) -> dict[str, Any]:
    """The worker's pod with this command; without labels no Service and no fleet takes it."""
    worker = next(each for each in template["containers"] if each["name"] == _CONTAINER)
    container = {key: value for key, value in worker.items() if key not in _SERVING}
    container["command"] = ["openworkflow", *command]
    container |= {"stdin": True, "stdinOnce": True, "tty": "--tty" in _terminal()}
    others = {key: value for key, value in template.items() if key != "containers"}
    return {**others, "containers": [container], "restartPolicy": "Never"}


def _terminal() -> list[str]:
    both = sys.stdin.isatty() and sys.stdout.isatty()
    return ["--stdin", "--tty"] if both else ["--stdin"]

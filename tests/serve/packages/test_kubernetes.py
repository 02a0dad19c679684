"""Manifests, held against the schemas of Kubernetes, against each other, and against the container's command."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.errors import InputError, OutputError
from evovit_deploy.packages.contents import Contents, read_contents
from evovit_deploy.packages.kubernetes import Cluster, kubernetes
from evovit_deploy.packages.options import ServiceOptions

from ..conftest import DIGITS
from ..running import Running

IMAGE = "registry.example.com:5000/team/digits:1.2"
VERSIONS = ("1.30", "1.36")
OF_KSERVE = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}  # beside the fields of a pod


def model(path: Path = Path("some model.onnx"), backend: str = "onnxruntime") -> Contents:
    plan = backend != "onnxruntime"
    return Contents(path, backend, "1.7.1.116" if plan else None, 64 if plan else None, 10, Path("x") if plan else None)


def written(
    folder: Path, cluster: Cluster, options: ServiceOptions | None = None, contents: Contents | None = None
) -> Any:
    path = kubernetes(contents or model(), folder / "k.yaml", options or ServiceOptions(), cluster)
    return {each["kind"]: each for each in yaml.safe_load_all(path.read_text())}


def pod(documents: Any) -> Any:
    return documents["Deployment"]["spec"]["template"]["spec"]


def validate(document: Any) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("replicas", [(1, 1), (2, 5)])
@pytest.mark.parametrize(
    "others", [{}, {"namespace": "vision", "token_secret": "a.secret", "memory": "1.5Gi", "cpus": 0.5}]
)
def test_the_schemas_of_kubernetes(
    tmp_path: Path, gpu: bool, replicas: tuple[int, int], others: dict[str, Any]
) -> None:
    low, high = replicas
    documents = written(
        tmp_path, Cluster(IMAGE, min_replicas=low, max_replicas=high, **others), ServiceOptions(gpu=gpu)
    )
    scaler = {"HorizontalPodAutoscaler"} if low < high else set()
    assert set(documents) == {"Deployment", "Service", "PodDisruptionBudget"} | scaler
    for document in documents.values():
        validate(document)
        assert document["metadata"]["name"] == "some-model"
        assert document["metadata"].get("namespace") == others.get("namespace")
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        documents["Deployment"]["spec"]["selector"]["matchLabels"],
        documents["Service"]["spec"]["selector"],
        documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        pod(documents)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (container,) = pod(documents)["containers"]
    assert container["image"] == IMAGE
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == gpu
    assert container["resources"]["requests"]["memory"] == others.get("memory", "8Gi" if gpu else "2Gi")
    if scaler:
        assert "replicas" not in documents["Deployment"]["spec"]  # or applying it again would undo the scaling
        assert documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "some-model"
        kind = documents["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["type"]
        assert kind == ("Pods" if gpu else "Resource")
    else:
        assert documents["Deployment"]["spec"]["replicas"] == low
    secrets = [each["valueFrom"]["secretKeyRef"]["name"] for each in container.get("env", [])]
    assert secrets == ([others["token_secret"]] if "token_secret" in others else [])


def test_the_validator_refuses_what_is_wrong(tmp_path: Path) -> None:
    document = written(tmp_path, Cluster(IMAGE))["Deployment"]
    wrong = copy.deepcopy(document)
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong)


def test_kserve(tmp_path: Path) -> None:
    (document,) = written(tmp_path, Cluster(IMAGE, min_replicas=1, max_replicas=3, kserve=True)).values()
    assert (document["apiVersion"], document["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = document["spec"]["predictor"]
    assert predictor["containers"][0]["name"] == "kserve-container"
    assert [port["name"] for port in predictor["containers"][0]["ports"]] == ["http1"]
    assert {name: predictor.pop(name) for name in OF_KSERVE} == {
        "minReplicas": 1, "maxReplicas": 3, "scaleMetric": "cpu", "scaleTarget": 70,
    }  # fmt: skip
    (tmp_path / "k.yaml").unlink()
    deployment = written(tmp_path, Cluster(IMAGE))["Deployment"]
    deployment["spec"]["template"]["spec"] = predictor  # what is left are the fields of a pod
    validate(deployment)
    with pytest.raises(InputError, match="nothing of a GPU"):
        written(
            tmp_path, Cluster(IMAGE, min_replicas=1, max_replicas=3, kserve=True), ServiceOptions(gpu=True)
        )  # fmt: skip


def test_the_command_is_the_containers_with_threads(digits_model: Path, tmp_path: Path) -> None:
    common = [str(digits_model), "--labels", str(DIGITS / "labels.txt"), "--max-queue", "64", "--model-name", "d"]
    told = CliRunner().invoke(app, ["package", "container", *common, "-o", str(tmp_path / "image"), "--json"])
    words = [
        "package",
        "kubernetes",
        *common,
        "--image",
        IMAGE,
        "--cpus",
        "2.5",
        "-o",
        str(tmp_path / "k.yaml"),
        "--json",
    ]
    document = json.loads(CliRunner().invoke(app, words).stdout)
    assert document["files"] == [str(tmp_path / "k.yaml")]
    (container,) = pod({each["kind"]: each for each in yaml.safe_load_all((tmp_path / "k.yaml").read_text())})[
        "containers"
    ]
    arguments = container["args"]
    at = arguments.index("--threads")
    assert arguments[at + 1] == "3"
    assert ["evovit", *arguments[:at], *arguments[at + 2 :]] == json.loads(told.stdout)["command"]


def test_time_to_stop_and_what_is_probed(tmp_path: Path, fake: Running) -> None:
    documents = written(tmp_path, Cluster(IMAGE), ServiceOptions(drain=42.5))
    (container,) = pod(documents)["containers"]
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod(documents)["terminationGracePeriodSeconds"] >= wait + 42.5 + 4
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        assert get["port"] == 8000 == container["ports"][0]["containerPort"]
        assert fake.call("GET", get["path"])[0] == 200


def test_a_plan_has_a_gpu(plan: Callable[..., Path], tmp_path: Path) -> None:
    (container,) = pod(written(tmp_path, Cluster(IMAGE), contents=read_contents(plan())))["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "--threads" not in container["args"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"image": "a b"}, "not the name of an image"),
        ({"image": "x\n  evil: true"}, "not the name of an image"),
        ({"image": ""}, "not the name of an image"),
        ({"name": "Digits"}, "'Digits' cannot name"),
        ({"name": "1digits"}, "the first a letter"),
        ({"name": "d" * 64}, "at most 63"),
        ({"name": "d-"}, "cannot name"),
        ({"namespace": "a.b"}, "cannot be a namespace"),
        ({"token_secret": "A"}, "cannot name a Secret"),
        ({"token_secret": "a..b"}, "cannot name a Secret"),
        ({"memory": "2 GB"}, "such as 2Gi"),
        ({"cpus": 0}, "more than 0"),
        ({"cpus": float("nan")}, "more than 0"),
        ({"min_replicas": 0, "max_replicas": 0}, "from 1"),
        ({"min_replicas": 3, "max_replicas": 2}, "a range"),
    ],
)
def test_what_kubernetes_would_refuse(values: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Cluster(**{"image": IMAGE, **values})


@pytest.mark.parametrize("name", ["x", "a/b", "host:80/a", "h/a@sha256:" + "0" * 64, "h/a:v1@sha256:" + "f" * 64])
def test_names_of_images(name: str) -> None:
    Cluster(name)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("Evo_DeiT.small", "evo-deit-small"), ("m" * 80, "m" * 63), ("a" * 62 + "_b", "a" * 62), ("-x-", "x")],
)
def test_names_that_are_made(tmp_path: Path, stem: str, expected: str) -> None:
    documents = written(tmp_path, Cluster(IMAGE), contents=model(Path(f"{stem}.onnx")))
    assert documents["Service"]["metadata"]["name"] == expected


def test_a_name_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--name"):
        written(tmp_path, Cluster(IMAGE), contents=model(Path("123.onnx")))
    assert list(tmp_path.iterdir()) == []


def test_notes_and_a_file_that_is_there(digits_model: Path, tmp_path: Path) -> None:
    words = ["package", "kubernetes", str(digits_model), "-o", str(tmp_path / "k.yaml"), "--image"]
    result = CliRunner().invoke(app, [*words, "team/digits"])
    assert "names no version" in result.stderr
    assert "--token-secret" in result.stderr
    assert isinstance(CliRunner().invoke(app, [*words, IMAGE]).exception, OutputError)
    quiet = CliRunner().invoke(app, [*words, IMAGE, "--token-secret", "s", "--force"])
    assert quiet.exit_code == 0
    assert quiet.stderr == ""

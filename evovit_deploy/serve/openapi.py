"""The OpenAPI description of the HTTP service, and the page that shows it."""

from __future__ import annotations

import html
from typing import Any

__all__ = ["openapi", "page"]

ERRORS = {
    400: "The request is wrong; `error` says why",
    401: "A bearer token is needed",
    403: "Loading and unloading is not allowed",
    404: "No such model or version",
    405: "Another method is needed",
    408: "The request did not arrive in time",
    409: "The file cannot be loaded",
    413: "Larger than the service takes",
    415: "Another content type or coding is needed",
    422: "The model's answer is not finite",
    500: "The model failed",
    503: "The queue is full or the service is not ready; see Retry-After",
    504: "Not answered in time",
}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _list(items: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **other}


TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "integer"}
SHAPE = _list(NUMBER)
FREE: dict[str, Any] = {"type": "object"}
TENSOR = _object({"name": TEXT, "datatype": TEXT, "shape": SHAPE}, ["name", "datatype", "shape"])
MODEL = _object(
    {"name": TEXT, "versions": _list(TEXT), "platform": TEXT, "inputs": _list(TENSOR), "outputs": _list(TENSOR)},
    ["name", "versions", "platform", "inputs", "outputs"],
)
INPUT = _object(
    {
        "name": {"type": "string", "enum": ["images"]},
        "datatype": {"type": "string", "enum": ["FP32", "UINT8"]},
        "shape": _list({"type": "integer", "minimum": 1}, minItems=4, maxItems=4),
        "data": {"type": "array", "items": {}},
        "parameters": _object({"binary_data_size": NUMBER}, []),
    },
    ["name", "datatype", "shape"],
)
REQUEST = _object(
    {
        "id": TEXT,
        "parameters": _object({"timeout": NUMBER, "binary_data_output": {"type": "boolean"}}, []),
        "inputs": _list(INPUT, minItems=1, maxItems=1),
        "outputs": _list(
            _object({"name": TEXT, "parameters": _object({"binary_data": {"type": "boolean"}}, [])}, ["name"])
        ),
    },
    ["inputs"],
)
RESPONSE = _object(
    {"model_name": TEXT, "model_version": TEXT, "id": TEXT, "outputs": _list(TENSOR)},
    ["model_name", "model_version", "outputs"],
)
CLASS = _object(
    {"class": NUMBER, "label": {"type": ["string", "null"]}, "probability": {"type": "number"}},
    ["class", "label", "probability"],
)


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _operation(
    summary: str, schema: dict[str, Any] | None, *errors: int, body: dict[str, Any] | None = None, needs_body: bool = True,
    parameters: tuple[dict[str, Any], ...] = (), media: str = "application/json", open_: bool = False,
) -> dict[str, Any]:  # fmt: skip
    ok: dict[str, Any] = {"description": "OK", "content": {media: {"schema": schema} if schema is not None else {}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    codes = sorted({*errors, *(() if open_ else (401,)), 503})
    result: dict[str, Any] = {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": ok,
            **{str(code): {"description": ERRORS[code], "content": error} for code in codes},
        },
    }
    if body is not None:
        result["requestBody"] = {"required": needs_body, "content": body}
    if open_:
        result["security"] = []
        result["responses"]["503"] = {"description": "Not ready", "content": {"application/json": {"schema": FREE}}}
    return result


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    from importlib.metadata import version

    name, number = _parameter("name", "path", TEXT), _parameter("version", "path", TEXT)
    binary = {"type": "string", "format": "binary"}
    infer_body = {"application/json": {"schema": REQUEST}}
    empty = {"application/json": {"schema": FREE}}
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("The service and its extensions", FREE)},
        "/v2/health/live": {"get": _operation("The process answers", FREE, open_=True)},
        "/v2/health/ready": {"get": _operation("Models are warm", FREE, open_=True)},
        "/v2/models/stats": {"get": _operation("Statistics of every model", FREE)},
        "/v2/repository/index": {
            "post": _operation("Every model and its state", _list(FREE), 400, 408, 413, 415, body=empty, needs_body=False)
        },
        "/v1/classify": {
            "post": _operation(
                "The most probable classes of a JPEG or PNG image",
                _object({"model": TEXT, "version": TEXT, "top": _list(CLASS)}, ["model", "version", "top"]),
                400, 404, 408, 413, 415, 422, 504,
                body={kind: {"schema": binary} for kind in ("image/jpeg", "image/png", "application/octet-stream")},
                parameters=(
                    _parameter("model", "query", TEXT),
                    _parameter("version", "query", TEXT),
                    _parameter("top_k", "query", {"type": "integer", "minimum": 1, "default": 5}),
                ),
            )
        },
        "/metrics": {"get": _operation("Prometheus metrics", TEXT, media="text/plain")},
    }  # fmt: skip
    for action in ("load", "unload"):
        paths[f"/v2/repository/models/{{name}}/{action}"] = {
            "post": _operation(
                f"{action.capitalize()} a model", FREE, 400, 403, 404, 408, 409, 413, 415,
                body=empty, needs_body=False, parameters=(name,),
            )
        }  # fmt: skip
    for prefix, where in (
        ("/v2/models/{name}", (name,)),
        ("/v2/models/{name}/versions/{version}", (name, number)),
    ):
        paths |= {
            prefix: {"get": _operation("Metadata of a model", MODEL, 404, parameters=where)},
            f"{prefix}/ready": {"get": _operation("Whether a model takes requests", FREE, 404, parameters=where)},
            f"{prefix}/config": {"get": _operation("Configuration of a model", FREE, 404, parameters=where)},
            f"{prefix}/stats": {"get": _operation("Statistics of a model", FREE, 404, parameters=where)},
            f"{prefix}/infer": {
                "post": _operation(
                    "Run images (JSON, or JSON and raw tensors)", RESPONSE, 400, 404, 408, 413, 415, 422, 504,
                    body=infer_body, parameters=where,
                )
            },
        }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "evovit",
            "version": version("evovit-deploy"),
            "description": "Open Inference Protocol (KServe v2) and image classification.",
        },
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _object({"error": TEXT}, ["error"])},
        },
    }


def page() -> str:
    """Return the description as a page that needs nothing from anywhere else."""
    rows = [
        f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, methods in openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>evovit</title>"
        "<style>body{font:15px sans-serif;margin:2em}td{padding:.2em 1em .2em 0}</style>"
        "<h1>evovit</h1><p>Schemas and every answer: <a href=openapi.json>openapi.json</a>.</p>"
        f"<table>{''.join(rows)}</table></html>"
    )

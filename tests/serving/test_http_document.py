"""The OpenAPI document is true: schemathesis asks what it allows and what it forbids, and looks at the answers."""

from contextlib import asynccontextmanager

import pytest
import schemathesis
from http_server import KnownPlan, client, new_key, settings
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as settings_of
from schemathesis import GenerationMode

from dcvideogen.serving.app import create_app

HOST = {"Host": "127.0.0.1:8000"}
# No schema says which fields go together, how much the limits allow, and which files can be decoded.
OTHERS = [schemathesis.checks.positive_data_acceptance]
OPERATIONS = [
    ("GET", "/v1/videos"), ("POST", "/v1/videos"), ("GET", "/v1/videos/{video_id}"),
    ("DELETE", "/v1/videos/{video_id}"), ("POST", "/v1/videos/{video_id}/cancel"),
    ("GET", "/v1/videos/{video_id}/content"),
    ("GET", "/v1/videos/{video_id}/events"), ("POST", "/v1/uploads"), ("DELETE", "/v1/uploads/{upload_id}"),
    ("POST", "/v1/reconstructions"), ("POST", "/v1/plan"), ("GET", "/v1/models"), ("GET", "/healthz"),
    ("GET", "/metrics"),
]  # fmt: skip


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    app = create_app(settings(tmp_path_factory.mktemp("document")), KnownPlan())
    app.router.lifespan_context = _endless  # schemathesis begins and ends a life for some of its calls
    document = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
    # A body that is wrong may be too large as well, which is said first.
    document.config.checks.negative_data_rejection.expected_statuses.append("413")
    return document


@asynccontextmanager
async def _endless(_app):
    yield


def hold_against(document, method: str, path: str, examples: int) -> None:
    """Asks what the document allows and what it forbids; every check of schemathesis looks at the answers."""
    operation = document[path][method]
    few = settings_of(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for mode in GenerationMode:
        if mode.is_negative and not (operation.body or operation.query):
            continue  # nothing that could be wrong

        @few
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            case.call_and_validate(headers=HOST, excluded_checks=OTHERS)

        ask()


def test_the_document_has_these_operations(document):
    found = {(one.ok().method.upper(), one.ok().path) for one in document.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_the_document_says(document, method, path):
    hold_against(document, method, path, examples=5)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_the_document_says_for_many_requests(document, method, path):
    hold_against(document, method, path, examples=300)


def test_the_document_names_the_key_where_one_is_needed_and_every_error(tmp_path):
    with client(tmp_path, key=new_key(tmp_path), require_keys=True) as http:
        document = http.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["security"] == ([] if path == "/healthz" else [{"key": []}])
            assert "ErrorAnswer" in str(operation["responses"]["400"])
            assert "HTTPValidationError" not in str(operation["responses"])

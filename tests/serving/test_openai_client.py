"""OpenAI's own Python client works with the server as it does with theirs."""

import socket
import threading
import time

import pytest
import uvicorn
from http_server import KnownPlan, complete, settings

from dcvideogen.serving.app import create_app

openai = pytest.importorskip("openai")


@pytest.fixture
def client(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(settings(tmp_path, port=port), KnownPlan())
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0)
    server.should_exit = True
    thread.join()


@pytest.mark.filterwarnings("ignore:The Sora API")  # theirs ends; its words stay
def test_videos_are_made_listed_fetched_and_deleted(client, tmp_path):
    made = client.videos.create(model="shapes-dc", prompt="a red circle", seconds="2", size="64x40")
    assert (made.status, made.size, made.progress) == ("queued", "64x40", 0)
    other = client.videos.create(prompt="a blue square")
    assert [one.id for one in client.videos.list(limit=1)] == [other.id, made.id]  # page by page
    complete(tmp_path)
    assert client.videos.poll(made.id).status == "completed"
    assert client.videos.download_content(made.id).read() == b"0123456789"
    assert client.videos.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError) as refused:
        client.videos.retrieve(made.id)
    assert refused.value.code == "not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.videos.create(prompt="a", size="0x0")
    assert refused.value.code == "invalid_request"

"""Log lines for programs and for people."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from service import logs
from service.logs import facts, log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, level = logging.getLogger(), log.level
    handlers, root_level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(root_level)
    log.setLevel(level)


def test_json_lines_carry_facts_the_request_and_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    request_id = logs.begin_request(None)
    log.info("said %d", 1, extra=facts(port=8000, path=b"?"))
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    log.debug("not written")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["message"], first["port"], first["request_id"]) == ("said 1", 8000, request_id)
    assert first["level"] == "info"
    assert "ValueError: why" in second["traceback"]


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "text")
    log.debug("ready", extra=facts(port=8000))
    assert capsys.readouterr().err.endswith("debug   ready  port=8000\n")


def test_auto_is_json_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "auto")
    log.info("ready")
    assert json.loads(capsys.readouterr().err)["message"] == "ready"


@pytest.mark.parametrize("sent", ["abc-1.2_3:4", "x" * 64])
def test_a_well_formed_id_is_kept(sent: str) -> None:
    assert logs.begin_request(sent) == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 65, "a b", 'a"b', "a\nb", "ä"])
def test_any_other_id_is_replaced(sent: str | None) -> None:
    assert logs.begin_request(sent) != sent
    assert logs.begin_request(sent) != logs.begin_request(sent)


def test_lines_about_requests_are_written_together_in_order_and_none_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")

    async def serve() -> None:
        for number in range(3):
            logs.request(number=number)
        assert capsys.readouterr().err == ""
        log.info("another")
        logs.request(number=3)
        written = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert [line.get("number") for line in written] == [0, 1, 2, None]
        await asyncio.sleep(10 * logs.HELD_S)
        assert json.loads(capsys.readouterr().err)["number"] == 3
        for number in range(logs.MOST_HELD + 1):
            logs.request(number=number)
        assert len(capsys.readouterr().err.splitlines()) == logs.MOST_HELD

    asyncio.run(serve())
    asyncio.run(_ask_once())  # the event loop that was to write the last line is gone
    assert [json.loads(line)["number"] for line in capsys.readouterr().err.splitlines()] == [
        logs.MOST_HELD,
        7,
    ]
    logs.request(number=8)  # nobody would come back to it
    assert json.loads(capsys.readouterr().err)["number"] == 8


async def _ask_once() -> None:
    logs.request(number=7)
    await asyncio.sleep(10 * logs.HELD_S)


def test_threads_that_write_meanwhile_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")

    def disturb() -> None:
        for _ in range(300):
            log.info("disturbing")

    async def serve() -> None:
        threads = [threading.Thread(target=disturb) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(2000):
            logs.request(number=number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        for thread in threads:
            thread.join()
        logs.flush()

    asyncio.run(serve())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    numbers = [line["number"] for line in lines if line["message"] == "request"]
    assert sorted(numbers) == list(range(2000))
    assert len(lines) == 2900

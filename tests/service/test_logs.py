"""Log lines for programs and for people."""

from __future__ import annotations

import json
import logging
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

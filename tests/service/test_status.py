"""The one table of errors: every class has its row, and rows agree with each other."""

from __future__ import annotations

import inspect

import grpc
import pytest

from model_zoo import errors as zoo
from service import errors, status
from service.status import INTERNAL, STATUS, report, status_of

CLASSES = [
    each
    for module, base in ((errors, errors.ServiceError), (zoo, zoo.ModelZooError))
    for _, each in inspect.getmembers(module, inspect.isclass)
    if issubclass(each, base)
]


@pytest.mark.parametrize("error", CLASSES)
def test_every_class_of_error_has_a_row(error: type[Exception]) -> None:
    assert error in STATUS


@pytest.mark.parametrize("row", set(STATUS.values()))
def test_both_protocols_say_the_same_of_whose_fault_it_is(row: status.Status) -> None:
    codes = grpc.StatusCode
    client = row.grpc in (
        codes.INVALID_ARGUMENT, codes.RESOURCE_EXHAUSTED, codes.NOT_FOUND, codes.ABORTED, codes.UNAUTHENTICATED,
        codes.PERMISSION_DENIED,
    )  # fmt: skip
    assert client == (400 <= row.http < 500)
    assert row.code == row.code.lower()


def test_one_code_means_one_thing() -> None:
    assert len({row.code for row in STATUS.values()}) == len(set(STATUS.values()))


def test_an_error_without_a_row_has_that_of_its_base() -> None:
    class Torn(errors.InvalidImage):
        pass

    assert status_of(Torn("torn")) is STATUS[errors.InvalidImage]
    assert status_of(KeyError("x")) is INTERNAL


def test_the_words_of_an_internal_error_stay_inside() -> None:
    told = report(zoo.BundleCorrupt("/secret/path: sha256 differs"))
    assert told.status is INTERNAL
    assert "secret" not in told.message
    assert told.field is None


def test_a_report_names_the_field() -> None:
    assert report(errors.InvalidBoxes("no area")).field == "boxes"
    assert report(zoo.UnknownDecoder("?")).field == "decoder"
    assert report(errors.InvalidRequest("what?", field="render")).field == "render"
    assert report(errors.InvalidRequest("what?")).field is None

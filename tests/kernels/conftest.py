"""The ring of other kernels: the distribution's 6.1 and 6.12, booted once each in QEMU."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.vm.guest import booted
from ksmtrace.vm.packages import kernel_package
from ksmtrace.vm.qemu import qemu_obstacles
from tests.support.kernels import SERIES, Visited, visit

_reasons: dict[str, str] = {}


def _obstacle(series: str) -> str | None:
    """Why a kernel can't be booted here, or None; fetches it."""
    if obstacles := qemu_obstacles():
        return "; ".join(map(str, obstacles))
    try:
        kernel_package(series)
    except KsmtraceError as error:
        if error.exit_code != Exit.HOST_CANNOT:
            raise
        return error.message
    return None


def pytest_unconfigure() -> None:
    """If a kernel could not be tried, that is among the run's last words."""
    for series, reason in _reasons.items():
        print(f"Linux {series} was not tried: {reason}")


@pytest.fixture(scope="session")
def visits() -> Iterator[dict[str, Visited]]:
    """Every kernel booted and tried, side by side: each guest has a processor of its own."""
    _reasons.update({series: why for series in SERIES if (why := _obstacle(series))})
    wanted = [series for series in SERIES if series not in _reasons]
    with ThreadPoolExecutor(max(len(wanted), 1)) as pool, ExitStack() as stack:

        def boot_and_visit(series: str) -> Visited:
            return visit(stack.enter_context(booted(series)))

        yield dict(zip(wanted, pool.map(boot_and_visit, wanted), strict=True))


@pytest.fixture(params=SERIES)
def series(request: pytest.FixtureRequest) -> str:
    """A series."""
    return str(request.param)


@pytest.fixture
def visited(series: str, visits: dict[str, Visited]) -> Visited:
    """Its kernel."""
    if series in _reasons:
        pytest.skip(f"Linux {series}: {_reasons[series]}")
    return visits[series]

"""Changeover between two parts: no part is lost, or judged by another product's bundle."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from level_bundle import make_level_bundle
from line_bench import BAD, GOOD, Hand, is_balanced, running
from listener import Listener
from test_triggers import BROKER, Broker, free_port, post
from waiting import wait_until

from edgead.decision import Verdict
from edgead.errors import ConfigError
from edgead.line.channels import open_channels
from edgead.line.part import PartRules
from edgead.line.parts import Parts
from edgead.line.products import FreeRun, Product, Products
from edgead.runtime.ledger import Ledger
from edgead.runtime.pipeline import run_stream
from edgead.runtime.policy import Policy
from edgead.runtime.sinks import Callback

pytest.importorskip("onnxruntime")
OFFSETS = {"bottle": 0.0, "cap": 1000.0}
"""What a product's bundle adds to the grey level."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Product]:
    folder = tmp_path_factory.mktemp("products")
    bundles = {name: make_level_bundle(folder / f"{name}.edgead", offset) for name, offset in OFFSETS.items()}
    return {
        "bottle": Product(str(bundles["bottle"].path), version="3"),
        "cap": Product(str(bundles["cap"].path), threshold=1130.0),
    }


@pytest.fixture
def open_products(described: dict[str, Product]) -> Iterator[Callable[..., Products]]:
    opened: list[Products] = []

    def make(**options: Any) -> Products:
        opened.append(Products(described, engine="onnxruntime", **options))
        return opened[-1]

    yield make
    for products in opened:
        products.close()


def test_the_part_keeps_the_product_of_its_trigger(open_products: Callable[..., Products]) -> None:
    console = Listener()
    products, camera = open_products(console=console), Hand()
    assert [text.partition(",")[0] for text in console.said] == [
        "Product bottle 3: bottle on onnxruntime-cpu",
        f"Product {list(products.recipes)[1]}: cap on onnxruntime-cpu",
    ]
    parts = Parts(PartRules(within=60_000), products=products)
    with running(products.current, parts, [camera]) as bench:
        parts.trigger("A")
        made = time.monotonic()
        assert products.choose("cap").startswith("cap ")
        parts.trigger("B")
        camera.show(GOOD, made)  # of A, and comes after the changeover
        camera.show(BAD)
        a, b = bench.wait(2)
        with pytest.raises(ConfigError, match=r"Unknown product 'cup'. Did you mean 'cap'\?"):
            products.choose("cup")
        wait_until(lambda: bench.stream and bench.stream.inspector is products.current)
        parts.trigger("C")
    assert [(one.part_id, one.bundle, one.recipe) for one in (a, b)] == [
        ("A", "bottle", "bottle 3"),
        ("B", "cap", list(products.recipes)[1]),
    ]
    assert (a.score, b.score, b.verdict) == (pytest.approx(GOOD, abs=0.01), pytest.approx(1000 + BAD), Verdict.FAIL)
    assert (bench.results[2].cause, bench.results[2].bundle) == ("stopped", "cap")  # also without a frame


def test_the_version_follows_from_what_decides(described: dict[str, Product]) -> None:
    def version(**changed: Any) -> str:
        product = Product(described["cap"].bundle, **changed)
        with Products({"cap": product}, engine="onnxruntime") as products:
            return products.current.recipe

    first = version()
    assert version() == first
    assert len({first, version(threshold=5), version(min_area=3), version(roi=("0,0,1,0.5",))}) == 4


def test_a_version_with_spaces_is_refused(described: dict[str, Product]) -> None:
    """In a review, the marks of version 3 were not those of the product in version "rev B"."""
    with pytest.raises(ConfigError, match="Product cap: the version 'rev B' may hold no spaces"):
        Products({"cap": Product(described["cap"].bundle, version="rev B")}, engine="onnxruntime")


def test_a_free_run_changes_over_between_two_frames(open_products: Callable[..., Products]) -> None:
    products, camera = open_products(first="cap"), Hand()
    with running(products.current, FreeRun(products), [camera]) as bench:  # type: ignore[arg-type]
        camera.show(GOOD)
        bench.wait(1)
        products.choose("bottle")
        camera.show(GOOD)
        bench.wait(2)
    assert [one.bundle for one in bench.results] == ["cap", "bottle"]


def test_a_threshold_of_the_live_page_ends_with_its_product(open_products: Callable[..., Products]) -> None:
    """The page says so. It came back with the product, hours later, when nobody remembered it."""
    console = Listener()
    products, camera = open_products(first="cap", console=console), Hand()
    with running(products.current, FreeRun(products), [camera]) as bench:  # type: ignore[arg-type]

        def show() -> tuple[float, Verdict]:
            camera.show(GOOD)
            bench.wait(len(bench.results) + 1)
            return bench.results[-1].threshold, bench.results[-1].verdict

        products.current.threshold = 5.0
        products.choose("cap")  # it decides already
        assert show() == (5.0, Verdict.FAIL)
        products.choose("bottle")
        assert show() == (130.0, Verdict.PASS)
        recipe = products.choose("cap")
        assert show() == (1130.0, Verdict.PASS)
    told = f"{recipe}: cap: the threshold that was set during the run, 5, is over; it is 1130 again"
    assert [text for text in console.said if "is over" in text] == [told]


def test_two_changeovers_at_once_have_one_order(open_products: Callable[..., Products]) -> None:
    """Of two channels: parts followed one of them, and the page, the metrics and reports named the other product."""
    products, camera = open_products(first="cap"), Hand()
    with running(products.current, FreeRun(products), [camera]) as bench:  # type: ignore[arg-type]
        assert bench.stream
        call_soon, others = bench.stream.call_soon, list[threading.Thread]()

        def interrupted(action: Callable[[], object]) -> bool:
            if not others:
                others.append(threading.Thread(target=products.choose, args=("cap",)))
                others[0].start()
                others[0].join(0.3)
            return call_soon(action)

        bench.stream.call_soon = interrupted  # type: ignore[method-assign]
        products.choose("bottle")
        others[0].join()
        camera.show(GOOD)
        [result] = bench.wait(1)
        assert result.bundle == bench.stream.inspector.bundle.manifest.name == "cap"


def test_a_frame_from_before_a_changeover_is_of_the_product_before(open_products: Callable[..., Products]) -> None:
    """Its picture was on the way, or its file waited to be read: the next product decided on it."""
    products, camera = open_products(first="cap"), Hand()
    with running(products.current, FreeRun(products), [camera]) as bench:  # type: ignore[arg-type]
        before = time.monotonic()
        products.choose("bottle")
        products.choose("bottle")  # nothing new
        between = time.monotonic()
        products.choose("cap")
        camera.show(GOOD, before)
        camera.show(GOOD, between)
        camera.show(GOOD)
        bench.wait(3)
    assert [one.bundle for one in bench.results] == ["cap", "bottle", "cap"]


def test_a_part_that_is_announced_late_is_of_the_product_before(open_products: Callable[..., Products]) -> None:
    """A picture announced it, or the kernel noted when its edge came: the next product decided on it."""
    for triggers in (["camera:"], []):
        products, camera = open_products(first="cap"), Hand()
        parts = Parts(PartRules(within=60_000), triggers, products=products)
        with running(products.current, parts, [camera]) as bench:
            moments = []
            for name in ("bottle", "cap"):
                moments.append(time.monotonic())
                products.choose(name)
            for made in (*moments, time.monotonic(), moments[1]):  # the last one comes after one of the next product
                if not triggers:
                    parts.trigger(at=made)
                camera.show(GOOD, made if triggers else None)
                bench.wait(len(bench.results) + 1)
        assert [one.bundle for one in bench.results] == ["cap", "bottle", "cap", "bottle"]


def test_the_oldest_changeovers_are_forgotten(
    open_products: Callable[..., Products], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.line.products.REMEMBERED", 2)
    with open_products(first="cap") as products:
        for name in ("bottle", "cap", "bottle"):
            products.choose(name)
        assert products.at(time.monotonic()) is products.current
        assert products.at(0.0).bundle.manifest.name == "cap"  # the last but one


def test_a_sink_that_takes_orders_changes_over(open_products: Callable[..., Products]) -> None:
    class Ordering(Callback):
        def take_recipes(self, versions: dict[str, str], choose: Callable[[str], str]) -> None:
            self.versions, self.choose = versions, choose

    for kind in (FreeRun, lambda products: Parts(products=products)):
        products, sink = open_products(), Ordering(lambda result: None)
        run_stream(products.current, "synthetic:?fps=50&frames=2", [sink], Ledger(), gate=kind(products))
        assert list(sink.versions) == ["bottle", "cap"]
        assert sink.choose("cap") == f"cap {sink.versions['cap']}"
        assert products.current.bundle.manifest.name == "cap"


def test_products_that_cannot_be_opened_are_named(described: dict[str, Product], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown product 'cup'"):
        Products(described, "cup", engine="onnxruntime")
    with pytest.raises(ConfigError, match=r"Product lid: The region 'none.png' is neither a mask image"):
        Products({**described, "lid": Product(next(iter(described.values())).bundle, roi=("none.png",))})
    other = make_level_bundle(tmp_path / "other.edgead", bit_depth=12)
    with pytest.raises(ConfigError, match="they cannot share frames"):
        Products({**described, "other": Product(str(other.path))}, engine="onnxruntime")


def test_changeover_over_http_mqtt_and_modbus(open_products: Callable[..., Products], tmp_path: Path) -> None:
    publish = pytest.importorskip("paho.mqtt.publish", reason="no paho-mqtt")
    pytest.importorskip("pymodbus", reason="no pymodbus")
    if not BROKER:
        pytest.skip("no mosquitto (apt: mosquitto)")
    from plc_bench import Plc

    broker, plc, port, said = Broker(tmp_path), Plc(), free_port(), list[str]()
    broker.start()
    plc.start()
    uris = [
        f"http://127.0.0.1:{port}/product",
        f"mqtt://127.0.0.1:{broker.port}/line/product",
        f"modbus://127.0.0.1:{plc.port}/coil/7?poll_ms=2&id=100&id_registers=4",
    ]
    channels = open_channels(uris, said.append)
    products = open_products(channels=channels, console=Listener())
    try:
        with running(products.current, Parts(products=products), [Hand()]):
            wait_until(lambda: all(channel.ready for channel in channels))
            status, answer = post(f"http://127.0.0.1:{port}/product", b'{"product": "cap"}')
            assert (status, answer["recipe"]) == (202, products.current.recipe)
            assert products.current.recipe.startswith("cap ")
            assert post(f"http://127.0.0.1:{port}/product", b'{"product": "cup"}')[0] == 409
            publish.single("line/product", b'{"product": "bottle"}', 2, hostname="127.0.0.1", port=broker.port)
            wait_until(lambda: products.current.recipe == "bottle 3")
            plc.set("hr", 100, *(int.from_bytes(pair, "big") for pair in (b"ca", b"p\0")))
            plc.set("co", 7, 1)
            wait_until(lambda: products.current.recipe.startswith("cap "))
    finally:
        plc.close()
        broker.stop()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("camera:", "cannot send the name of a product"),
        ("modbus://127.0.0.1/coil/7", r"\?id=REGISTER"),
        ("bell:", "Unknown trigger"),
    ],
)
def test_channels_that_carry_no_name_are_refused(uri: str, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    first = f"http://127.0.0.1:{port}/product"
    with pytest.raises(ConfigError, match=message):
        open_channels([first, uri], print)
    open_channels([first], print)[0].close()  # it was closed


@pytest.mark.parametrize("seed", range(3))
def test_no_part_is_judged_by_another_products_bundle(open_products: Callable[..., Products], seed: int) -> None:
    """Random changeovers between parts, while frames wait for the engine."""
    chance, products, camera = random.Random(seed), open_products(), Hand()
    parts = Parts(PartRules(within=60_000), products=products)
    policy = Policy(health="off", capacity=64, silence=1e6, batch=chance.choice((1, 4)))
    wanted: dict[str, str] = {}
    stopped, turn = threading.Event(), threading.Lock()

    def change() -> None:
        while not stopped.is_set():
            with turn:
                products.choose(chance.choice(("bottle", "cap")))
            time.sleep(chance.choice((0, 0.001, 0.003)))

    with running(products.current, parts, [camera], policy=policy) as bench:
        changer = threading.Thread(target=change)
        changer.start()
        for number in range(80):
            with turn:
                wanted[parts.trigger(str(number))] = products.current.recipe
            camera.show(chance.choice((GOOD, BAD)))
            time.sleep(chance.choice((0.001, 0.002)))
        bench.wait(80)
        stopped.set()
        changer.join()
    assert is_balanced(parts.ledger.snapshot())
    assert {one.part_id: one.recipe for one in bench.results} == wanted
    assert len(bench.results) == 80
    assert {one.bundle for one in bench.results} == set(OFFSETS)
    for one in bench.results:
        assert one.recipe.startswith(f"{one.bundle} ")
        if one.frame_id is not None:
            level = one.score - OFFSETS[one.bundle]
            assert min(abs(level - GOOD), abs(level - BAD)) < 0.01

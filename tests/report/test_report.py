"""The report as a reader meets it: in a browser, on a telephone, in dark mode, on paper, and
without a network.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.text
import pytest
from conftest import tiny_experiment
from matplotlib.figure import Figure
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from mi_jax import plots
from mi_jax.dynamics import Claim
from mi_jax.models import Transformer
from mi_jax.plots.style import WIDE
from mi_jax.report import Page, render
from mi_jax.report.study import Study, report
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, log_spaced

pytestmark = pytest.mark.slow

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
_DESK = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}


@pytest.fixture(scope="module")
def drawn() -> list[Figure]:
    """The figures of the report, as they were saved."""
    return []


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, drawn: list[Figure]) -> Study:
    experiment = tiny_experiment(
        task=ModularArithmetic(p=17, fraction=0.7),
        model=Transformer(d_model=32, heads=2, d_mlp=128),
        optimizer=AdamW(learning_rate=5e-3, warmup=3),
        steps=1500,
        schedule=log_spaced(24),
    )
    run = train(experiment, tmp_path_factory.mktemp("reported") / "tiny")
    run.measure()
    with pytest.MonkeyPatch.context() as patch:
        save = plots.save

        def save_and_collect(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
            drawn.append(figure)
            return save(figure, folder, name)

        patch.setattr(plots, "save", save_and_collect)
        return report(run)


@pytest.fixture(scope="module")
def browser(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    try:
        opened.get(study.report.as_uri())
        yield opened
    finally:
        opened.quit()


def _size(browser: Any, size: dict[str, Any]) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


# --- In a browser


def test_nothing_is_loaded_and_the_browser_logs_nothing(browser: Any, study: Study) -> None:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        event["params"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    # The browser opens with a page of its own.
    asked = {
        request["request"]["url"]
        for request in requests
        if not request["documentURL"].startswith("chrome:")
    }
    assert study.report.as_uri() in asked
    assert {url for url in asked if not url.startswith("data:")} == {study.report.as_uri()}
    assert browser.get_log("browser") == []


def test_every_picture_is_complete_and_has_an_alternative_text(
    browser: Any, drawn: list[Figure]
) -> None:
    pictures = browser.execute_script(
        "return [...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt,"
        " i.src.slice(0, 11)])"
    )
    assert len(pictures) >= len(drawn) >= 12
    assert all(whole and alt and source == "data:image/" for whole, alt, source in pictures)


@pytest.mark.parametrize("size", [_PHONE, _DESK], ids=["telephone", "desk"])
def test_nothing_is_wider_than_the_screen(browser: Any, size: dict[str, Any]) -> None:
    _size(browser, size)
    wide, seen = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= seen <= size["width"]


def test_the_story_comes_first_and_can_be_seen_at_once(browser: Any) -> None:
    _size(browser, _DESK)
    first, top = browser.execute_script(
        "const f = document.querySelector('figure'); return [f.querySelector('h3').textContent,"
        " f.getBoundingClientRect().top]"
    )
    assert first == "The circuit under the loss"
    assert top < 300


def _luminance(colour: str) -> float:
    r, g, b = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return sum(
        weight * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
        for weight, c in ((0.2126, r), (0.7152, g), (0.0722, b))
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(browser: Any, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    ground, *texts = browser.execute_script(
        "const s = e => getComputedStyle(e);return [s(document.body).backgroundColor,"
        " s(document.body).color, s(document.querySelector('figcaption')).color]"
    )
    assert (_luminance(ground) > 0.5) == (scheme == "light")
    for text in texts:
        low, high = sorted((_luminance(ground), _luminance(text)))
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


def test_it_prints(browser: Any) -> None:
    assert len(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 100_000


# --- What it says


def test_the_page_says_how_to_make_it_again_and_where_the_numbers_are(study: Study) -> None:
    page = study.report.read_text()
    assert f"mi-jax reproduce {study.run.path}" in page
    for name in (
        "Findings",
        "Numbers",
        "How it was measured",
        "Manifest",
        study.run.record["hash"],
    ):
        assert name in page
    for line in page.split("Data: figures/")[1:]:
        assert (study.run.path / "figures" / line.split("<")[0]).is_file()


def test_each_seed_is_said_to_have_grokked_or_not(study: Study) -> None:
    page = study.report.read_text()
    grokked = study.dates["verdict"].values == "grokked"
    assert set(grokked) == {True, False}
    assert f"Of 3 seeds, {grokked.sum()} grokked and " in page
    assert f"{grokked.sum()} of 3 seeds; there is no null to compare a date with" in page
    assert page.count('<td class="cell">did not grok</td>') == (~grokked).sum()
    assert page.count('<td class="cell">grokked</td>') == grokked.sum()
    assert '<td class="cell">later than ' in page
    assert "first reaches 0.99. It has grokked if it generalised at 2 times" in page


def test_texts_of_a_page_are_escaped() -> None:
    name = "<script>alert(1)</script>"
    page = render(
        Page(
            name,
            name,
            [],
            [("seed", [name])],
            [Claim(name, 0, name)],
            {name: name},
            [(name, name)],
            {"name": name},
            name,
        )
    )
    assert "<script>" not in page


# --- Figures


def test_figures_fit_a_page_and_their_text_can_be_read_in_print(
    study: Study, drawn: list[Figure]
) -> None:
    assert study.report.is_file()
    for figure in drawn:
        assert figure.get_figwidth() <= WIDE
        texts = [
            text
            for text in figure.findobj(matplotlib.text.Text)
            if text.get_visible() and text.get_text()
        ]
        assert texts
        assert min(text.get_fontsize() for text in texts) >= 6


def test_axes_are_labelled(drawn: list[Figure]) -> None:
    for figure in drawn:
        labels = [
            axes.get_xlabel() or axes.get_ylabel() or axes.get_title() for axes in figure.axes
        ]
        assert all(labels[:1]), figure


def test_each_figure_is_stored_for_print_and_for_screens_with_its_data(study: Study) -> None:
    folder = study.run.path / "figures"
    names = {file.stem for file in folder.glob("*.png")}
    assert names == {file.stem for file in folder.glob("*.svg")}
    assert names <= {file.stem for file in folder.glob("*.nc")}

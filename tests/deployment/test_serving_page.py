"""The page of bnn serve in headless Chromium: drawn on by pointer, used by keyboard alone, in a narrow window."""

import json
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from tests.deployment.conftest import Served

pytest.importorskip("litserve", reason="bnn serve needs litserve: pip install 'bnn_lightning[serve]'")
pytest.importorskip("selenium", reason="the page is tested by selenium: pip install selenium")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="the page is tested in Chromium, of which chromium or chromedriver is not here: apt-get install "
        "chromium chromium-driver",
    ),
]

NOTHING = "\u2013"  # where a class will be
SEVEN = [(80, 65), (200, 65), (125, 230)]


@pytest.fixture(scope="module")
def browser(served):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, served):
    """The page, empty, in a wide window; afterwards the browser must have complained about nothing."""
    resize(browser, 1160, 900)
    browser.get(served.url)
    wait(lambda: browser.title == "lenet_lrt")
    yield browser
    assert browser.get_log("browser") == []


def resize(browser, width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def wait(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def part(page, name):
    return page.find_element("css selector", name)


def predicted(page):
    """The predicted class, once the server has answered."""
    wait(lambda: re.fullmatch(r"\d", part(page, "#name").text))
    return part(page, "#name").text


def draw(page, points, kind="mouse"):
    """One stroke through points of the canvas, whose side is 280, by the events of a mouse or a finger."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    canvas = part(page, "#canvas")
    scale = canvas.size["width"] / 280
    places = [(round((x - 140) * scale), round((y - 140) * scale)) for x, y in points]
    builder = ActionBuilder(page, mouse=PointerInput(kind, kind), duration=30)
    pointer = builder.pointer_action
    pointer.move_to(canvas, *places[0]).pointer_down()
    for place in places[1:]:
        pointer.move_to(canvas, *place)
    pointer.pointer_up()
    builder.perform()
    ActionChains(page).reset_actions()


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_a_digit_that_is_drawn(page, served, kind):
    assert part(page, "#name").text == NOTHING
    draw(page, SEVEN, kind)
    assert predicted(page) == "7"
    values = [item.text for item in page.find_elements("css selector", "#bars .value")]
    assert len(values) == 10
    assert part(page, "#bars .most .name").text == "7"
    assert part(page, "#badge").text == "✓ Accepted"
    assert [chip.text for chip in page.find_elements("css selector", "#set .chip")] == ["7"]
    parts = [float(part(page, name).text) for name in ("#aleatoric", "#epistemic")]
    assert 0 < sum(parts) < np.log(10)
    assert "7" in part(page, "#live").get_attribute("textContent")
    wait(lambda: part(page, "#plot").is_displayed())
    assert len(page.find_elements("css selector", "#plot .same, #plot .other")) == 25
    assert "Upright the class is 7" in part(page, "#rotation-text").text


def test_each_rotation_is_asked_for_once_and_few_at_a_time(page):
    """Others wait for a part of the rotations at most; half a turn to the left and to the right are one image."""
    page.execute_script(
        "const ask = window.fetch; window.asked = []; window.fetch = (path, options) => { "
        "if (typeof options?.body === 'string') asked.push(JSON.parse(options.body).images); "
        "return ask(path, options); }"
    )
    draw(page, SEVEN)
    wait(lambda: part(page, "#plot").is_displayed())
    parts = page.execute_script("return asked")
    assert max(len(images) for images in parts) == 4
    assert len({image for images in parts for image in images}) == sum(len(images) for images in parts) == 24
    assert re.search(r"at \d+ of 23 other angles\.$", part(page, "#rotation-text").text)


def test_a_slider_that_interrupts_the_rotations_has_them_asked_for_again(page):
    """Those of the picture before the last stroke would stay."""
    draw(page, SEVEN)
    wait(lambda: part(page, "#plot").is_displayed())
    before = part(page, "#plot").get_attribute("aria-label")
    page.execute_script(
        "const ask = window.fetch; window.fetch = (path, options) => { if (typeof options?.body !== 'string') "
        "return ask(path, options); window.waits = true; return new Promise((_, fail) => "
        "options.signal.addEventListener('abort', () => { window.fetch = ask; fail(options.signal.reason); })); }"
    )
    draw(page, [(80, 65), (80, 230), (200, 230), (200, 65)])
    wait(lambda: page.execute_script("return window.waits"))
    part(page, "#angle").send_keys("\ue014")  # one step to the right
    wait(lambda: part(page, "#plot").get_attribute("aria-label") != before)


def test_the_slider_of_risk_decides(page):
    draw(page, SEVEN)
    predicted(page)
    wait(lambda: part(page, "#badge").text == "✓ Accepted")
    part(page, "#risk").send_keys("\ue011")  # Home, the lowest: no calibration of 6,000 images bounds .1 %
    assert part(page, "#risk-text").text == "0.1 %"
    assert part(page, "#badge").text == "✕ Abstains"


def test_a_file_says_what_the_server_says_of_it(page, served, tmp_path):
    from bnn_lightning.data import MNIST5k

    file = tmp_path / "digit.png"
    Image.fromarray(MNIST5k().load_test().pixels[500, 0].numpy()).save(file)
    part(page, "#file").send_keys(str(file))
    name = predicted(page)
    _, answer = served.ask("/predict", file.read_bytes(), "image/png")
    (said,) = answer["predictions"]
    assert name == said["name"]
    wait(lambda: abs(float(part(page, "#epistemic").text) - said["mutual_information"]) < 1e-3)
    part(page, "#clear").click()
    assert part(page, "#name").text == NOTHING


def test_a_file_that_is_no_picture_gets_the_servers_sentence(page, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    part(page, "#file").send_keys(str(tmp_path / "no.png"))
    wait(lambda: part(page, "#alert").is_displayed())
    assert part(page, "#alert").text.startswith("images must be pictures that can be read")
    draw(page, SEVEN)
    assert predicted(page) == "7"
    assert not part(page, "#alert").is_displayed()
    page.get_log("browser")  # which tells of the status 422


def test_what_is_cleared_gets_no_answer(page):
    """A prediction that was under way when its drawing was cleared is not shown."""
    page.execute_script(
        "const ask = window.fetch; window.fetch = (...words) => new Promise((go) => { window.goOn = go; })"
        ".then(() => ask(...words)).finally(() => { window.ended = true; });"
    )
    draw(page, SEVEN)
    wait(lambda: page.execute_script("return Boolean(window.goOn)"))
    part(page, "#clear").click()
    page.execute_script("goOn()")
    wait(lambda: page.execute_script("return window.ended"))
    page.execute_async_script("setTimeout(arguments[0], 300)")  # in which an answer would be shown
    assert part(page, "#name").text == NOTHING


def test_a_transparent_picture_is_shown_on_the_background_that_the_server_gives_it(page, tmp_path):
    Image.new("RGBA", (60, 60), (0, 0, 0, 0)).save(tmp_path / "nothing.png")
    part(page, "#file").send_keys(str(tmp_path / "nothing.png"))
    predicted(page)
    pixel = "return [...document.getElementById('canvas').getContext('2d').getImageData(140, 140, 1, 1).data]"
    assert page.execute_script(pixel) == [255, 255, 255, 255]  # white is the background of the checkpoint


def test_a_picture_that_the_browser_cannot_show_is_not_turned(page, served, tmp_path):
    file = tmp_path / "digit.tif"
    Image.new("L", (28, 28), 200).save(file)
    part(page, "#file").send_keys(str(file))
    name = predicted(page)
    _, answer = served.ask("/predict", file.read_bytes(), "image/tiff")
    assert name == answer["predictions"][0]["name"]
    assert not part(page, "#angle").is_enabled()
    part(page, "#clear").click()
    assert part(page, "#angle").is_enabled()


def test_by_keyboard_alone(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        actions = ActionChains(page)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def focus():
        return page.switch_to.active_element.get_attribute("id")

    press(Keys.TAB)
    assert focus() == "canvas"
    press(*[Keys.ARROW_UP] * 8, " ", *[Keys.ARROW_DOWN] * 16, " ")
    assert predicted(page) == "1"
    order = []
    for _ in range(5):
        press(Keys.TAB)
        order.append(focus() or page.switch_to.active_element.tag_name)
    assert order == ["file", "clear", "angle", "risk", "summary"]
    press(Keys.ENTER)
    assert part(page, "#curl").is_displayed()
    press(*[Keys.SHIFT + Keys.TAB + Keys.SHIFT])
    page.execute_script("document.getElementById('angle').focus()")
    press(*[Keys.ARROW_RIGHT] * 18)
    assert part(page, "#angle-text").text == "90°"
    wait(lambda: part(page, "#name").text not in ("1", NOTHING))  # a one that lies on its side
    page.execute_script("document.getElementById('canvas').focus()")
    press(Keys.DELETE)
    assert part(page, "#name").text == NOTHING


def test_every_control_has_a_name(page):
    names = page.execute_script(
        "return [...document.querySelectorAll('input, button, select, canvas')].map((each) => each.ariaLabel || "
        "each.textContent || each.labels?.[0]?.textContent || '')"
    )
    assert len(names) >= 5
    assert all(names), names


@pytest.mark.parametrize("width", [320, 400, 700, 1160])
def test_nothing_sticks_out_of_a_window(page, width):
    resize(page, width, 900)
    draw(page, SEVEN)
    assert predicted(page) == "7"
    wait(lambda: part(page, "#plot").is_displayed())
    wide = page.execute_script(
        "return [...document.querySelectorAll('body *')].filter((each) => each.getBoundingClientRect().right > "
        "innerWidth + 1).map((each) => each.id || each.className || each.tagName)"
    )
    assert wide == []
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_light_and_dark_have_contrast(page):
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours = page.execute_script(
            "const of = (each) => getComputedStyle(each); const card = document.querySelector('.card');"
            "return [of(card).backgroundColor, of(card).color, of(document.querySelector('.soft')).color]"
        )
        ground, *inks = [np.array([int(n) for n in re.findall(r"\d+", colour)[:3]]) for colour in colours]
        assert (ground.mean() > 127) == (scheme == "light")
        assert min(contrast(ground, ink) for ink in inks) > 4.5  # WCAG's AA


def contrast(first, second):
    """WCAG's contrast of two colours."""

    def luminance(colour):
        linear = np.where(colour / 255 <= 0.04045, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    lower, higher = sorted((luminance(first), luminance(second)))
    return (higher + 0.05) / (lower + 0.05)


@pytest.fixture(scope="module")
def table(networks):
    """A server of a table's network."""
    with Served("--ckpt_path", networks / "table" / "version_0", "--workers", 1) as server:
        yield server


def test_a_row_of_a_table_by_keyboard(browser, table):
    from selenium.webdriver.common.keys import Keys

    resize(browser, 400, 900)
    browser.get(table.url)
    wait(lambda: browser.title == "table")
    fields = browser.find_elements("css selector", "#row-input select, #row-input input")
    assert [field.accessible_name.split("\n")[0] for field in fields] == ["colour", "age", "size"]
    assert not part(browser, "#image-input").is_displayed()
    assert not part(browser, "#rotation").is_displayed()
    fields[0].send_keys("red")
    fields[1].send_keys("3")
    fields[2].send_keys("4.5", Keys.ENTER)
    wait(lambda: browser.find_elements("css selector", "#numbers td"))
    row = {"colour": "red", "age": 3, "size": 4.5}
    _, answer = table.ask("/predict", json.dumps({"rows": [row]}), "application/json")
    (said,) = answer["predictions"]
    cells = [cell.text for cell in browser.find_elements("css selector", "#numbers td")]
    expected = [said[name][0] for name in ("mean", "aleatoric_std", "epistemic_std")]
    np.testing.assert_allclose([float(cell) for cell in cells[:3]], expected, rtol=1e-3)
    assert part(browser, "#numbers th[scope=row]").text == "price"
    assert part(browser, "#live").get_attribute("textContent").startswith("price ")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []


def test_the_page_loads_nothing_from_elsewhere(page, served):
    loaded = page.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded
    assert all(name.startswith((served.url, "data:")) for name in loaded), loaded
    script = "const it = document.createElement('script'); it.textContent = 'ran = 1'; document.body.append(it);"
    assert page.execute_script(f"{script} return typeof ran") == "undefined"
    assert "Content Security Policy" in page.get_log("browser")[0]["message"]

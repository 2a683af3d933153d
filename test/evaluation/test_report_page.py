"""The pages that are written: their files, and what happens in a browser if there is one."""

from __future__ import annotations

from html.parser import HTMLParser
import json
from pathlib import Path
import shutil

from checkpoints import make_checkpoint
import numpy as np
import pytest

from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.fleet.recordings import FleetRecording
from marigold_ros.evaluation.metrics.costmap import LETHAL
from marigold_ros.evaluation.metrics.obstacle_map import ObstacleMap
from marigold_ros.evaluation.report import html, interactive
from marigold_ros.evaluation.report.fleet import write_fleet_report
from marigold_ros.evaluation.report.look import Cloud, RecordingLook, ShownFrame, StripFrame
from marigold_ros.geometry.unproject import unproject

SAMPLE = Path(__file__).parents[2] / 'sample'
FRAMES = 4
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
QUIET = ('--headless=new', '--no-sandbox', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--use-angle=swiftshader',
         '--enable-unsafe-swiftshader')
CAMERA = 'return JSON.stringify(document.getElementById("cloud")._fullLayout.scene.camera)'


class Page(HTMLParser):
    """Collect what a page loads, its elements with an id, and the contents of its scripts."""

    def __init__(self, path):
        super().__init__()
        self.sources, self.ids, self.scripts = [], {}, []
        self._in_script = False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.sources += [values[name] for name in ('src', 'href') if name in values]
        self.ids[values.get('id')] = values
        if tag == 'script':
            self.scripts.append((values.get('id'), ''))
        self._in_script = tag == 'script'

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            name, text = self.scripts[-1]
            self.scripts[-1] = name, text + data

    def data(self, name):
        """Return the JSON in a script."""
        return json.loads(dict(self.scripts)[name])


def evaluate(folder, *options):
    """Evaluate metric depth on the first frames of the sample drive; return the report."""
    assert main(['bag', str(SAMPLE / 'living_room'), '--image', '/camera/image_raw', '--depth',
                 '/camera/depth_gt/image_rect', '--checkpoint',
                 str(make_checkpoint(folder / 'random')), '--out', str(folder),
                 '--scale-sources', 'cloud', '--reference', 'cloud=/lidar/points',
                 '--costmap', str(SAMPLE.parent / 'config' / 'nav2_costmap.yaml'), *options]) == 0
    return folder / 'report.html'


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """Write a report with obstacles and all policies."""
    return evaluate(tmp_path_factory.mktemp('report'), '--max-frames', str(FRAMES),
                    '--scene', str(SAMPLE / 'scene.json'))


@pytest.fixture(scope='module')
def browser():
    """Start a headless browser."""
    webdriver = pytest.importorskip('selenium.webdriver')
    programs = [next(filter(None, map(shutil.which, names)), None)
                for names in (BROWSERS, ('chromedriver',))]
    if None in programs:
        pytest.skip('no Chromium with chromedriver; on Debian: apt install chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in QUIET:
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
    """Write the page of a recording, as that of the demo, of made-up frames."""
    look = RecordingLook(obstacle_map=ObstacleMap(
        np.zeros(2), 0.05, np.full((60, 80), LETHAL, np.uint8), np.ones((60, 80), np.int64),
        np.eye(60, 80, dtype=np.int64), np.eye(60, 80, dtype=bool), np.array([[1.0, 1], [2, 2]]),
        'lidar'))
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (48, 1))
    points = unproject(1 + ramp, np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]))
    for number in range(FRAMES):
        moved = np.roll(ramp, 9 * number, axis=1)
        rgb = np.repeat((200 * moved[..., None]).astype(np.uint8), 3, axis=2)
        look.add(StripFrame(number, 10 ** 8 * number, rgb, moved, 10 * moved, moved - 0.5, points,
                            rgb, number % 2, {'depth': f'run {number}', 'reason': 'why'}))
    page = tmp_path_factory.mktemp('recording') / 'report.html'
    html.write_page(page, 'recording.html.j2', look, FRAMES, camera='camera', name='recording',
                    rows={'AbsRel': '0.200 by protocol A (least squares in depth), 0.1 to 20 m'})
    return page


@pytest.fixture(scope='module')
def fleet(report, tmp_path_factory):
    """Write the report of a fleet that has compared itself with itself."""
    out = tmp_path_factory.mktemp('fleet')
    recordings = [FleetRecording(name, report.parent, {'site': 'farm'}, state, 'the file ends')
                  for name, state in (('a_drive_with_a_rather_long_name.mcap', 'complete'),
                                      ('yard', 'partial'), ('barn', 'failed'))]
    for baseline in (None, out):
        write_fleet_report(out, recordings, baseline)
    return out / 'report.html'


@pytest.fixture(scope='module')
def opened(browser, request):
    """Open a page in a window as wide as a phone or a screen; no script may fail."""
    page, width_px = request.param
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': width_px, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False})
    browser.get(request.getfixturevalue(page).as_uri())
    yield browser
    assert [each for each in browser.get_log('browser') if each['level'] == 'SEVERE'] == []


def on(*pages):
    """Run a test on these pages, each on a phone and on a screen."""
    return pytest.mark.parametrize('opened', [(page, width) for page in pages
                                              for width in (390, 1440)],
                                   indirect=True, ids=str, scope='module')


def shown(browser):
    """Return what the strip shows: title, pictures and facts."""
    return browser.execute_script("""
        const all = (selector) => [...document.querySelectorAll(`#strip ${selector}`)];
        return [document.getElementById('strip-title').textContent,
                all('.frame img').map((each) => each.src),
                all('dd').map((each) => each.textContent),
                all('.bars i').findIndex((each) => each.classList.contains('now'))]""")


def turned_by(browser, x, y):
    """Drag the cloud with the mouse; return its camera."""
    from selenium.webdriver import ActionChains
    cloud = browser.find_element('id', 'cloud')
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', cloud)
    ActionChains(browser).move_to_element(cloud).click_and_hold().move_by_offset(
        x, y).release().perform()
    return browser.execute_script(CAMERA)


def test_the_file_has_all_parts_and_loads_nothing(report):
    page = Page(report)
    assert report.stat().st_size < html.MAX_PAGE_BYTES
    assert page.sources
    assert all(each.startswith(('data:', '#')) for each in page.sources)
    frames = page.data('strip-frames')
    assert [each['title'] for each in frames] == [
        f'Frame {number}, {number / 10:.2f} s' for number in range(FRAMES)]
    for frame in frames:
        assert len(frame['panels']) == 4  # image, relative depth, metric depth, error
        assert all(each.startswith('data:image/jpeg;base64,') for each in frame['panels'])
        depth, stream, *_, reason = frame['facts']
        assert 'latency' in stream and 'cap 200 ms' in stream
        assert depth.startswith(('run, T = ', 'carried for ')) and reason
    assert page.ids['strip-slider']['max'] == str(FRAMES - 1)
    assert [each['type'] for each in page.data('cloud-figure')['data']] == ['scatter3d'] * FRAMES
    map_figure = page.data('map-figure')
    assert any('marked in' in each.get('text', '') for each in map_figure['data'])
    assert map_figure['layout']['images'][0]['source'].startswith('data:image/png')
    text = report.read_text()
    assert f'{FRAMES} of {FRAMES} frames are shown' in text
    # plotly.js comes with its licence.
    assert 'Permission is hereby granted, free of charge' in text


def test_without_a_scene_the_map_compares_with_the_reference(tmp_path):
    path = evaluate(tmp_path, '--max-frames', '2', '--policies', 'fixed-1')
    figure = Page(path).data('map-figure')
    assert [each['mode'] for each in figure['data']] == ['lines', 'markers']  # no boxes
    assert len(figure['data'][0]['x']) == 2
    assert 'marked by the reference cloud alone' in path.read_text()


def test_frames_are_left_out_of_a_page_that_would_be_too_large(tmp_path, monkeypatch):
    look = RecordingLook()
    # 40 pictures of 4 kB.
    look.frames.items = {number: ShownFrame(number, None, {'image': bytes(4000)}, 0, {})
                         for number in range(40)}
    monkeypatch.setattr(html, 'MAX_PAGE_BYTES', 100_000)
    html.write_page(tmp_path / 'page.html', 'recording.html.j2', look, 40, rows={}, camera='c',
                    name='bag')
    page = Page(tmp_path / 'page.html')
    assert (tmp_path / 'page.html').stat().st_size <= 100_000
    assert 1 < len(page.data('strip-frames')) < 40
    assert f'{len(page.data("strip-frames"))} of 40 frames' in (tmp_path / 'page.html').read_text()


@pytest.mark.parametrize('problem', [ImportError('No module named plotly'),
                                     FileNotFoundError('plotly.min.js')])
def test_without_plotly_the_page_says_how_to_get_the_plots(tmp_path, monkeypatch, problem):
    """The script is missing in the package from apt."""
    def fail(*_):
        raise problem
    monkeypatch.setattr(interactive, 'distribution', fail)
    assert interactive.load_plotly() is None
    look = RecordingLook()
    look.clouds.items = {0: Cloud(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), True)}
    html.write_page(tmp_path / 'page.html', 'recording.html.j2', look, 1, rows={}, camera='c',
                    name='bag')
    text = (tmp_path / 'page.html').read_text()
    assert 'pip install plotly' in text and 'id="cloud"' not in text


@on('report', 'recording', 'fleet')
def test_nothing_is_cut_off(opened):
    page_px, window_px, boxes = opened.execute_script("""
        const boxes = [...document.querySelectorAll(
            'p, dl, ul, pre, img, input, button, .scroll, .plot, .plots svg')]
          .filter((each) => each.checkVisibility())
          .map((each) => [each.getBoundingClientRect(), each.outerHTML.slice(0, 60)]);
        return [document.documentElement.scrollWidth, window.innerWidth,
                boxes.map(([{left, right}, text]) => [left, right, text])]""")
    assert page_px <= window_px
    assert len(boxes) > 10
    assert [box for box in boxes if box[0] < 0 or box[1] > window_px] == []
    wide = opened.execute_script("""return [...document.querySelectorAll('.scroll')].filter(
        (each) => each.scrollWidth > each.clientWidth).length""")
    assert wide == 0 or window_px < 1440  # on a screen no table needs to be scrolled


@on('report', 'recording')
def test_slider_and_keys_step_through_the_frames(opened):
    from selenium.webdriver import ActionChains, Keys
    slider = opened.find_element('id', 'strip-slider')
    slider.send_keys(Keys.HOME)
    first = shown(opened)
    assert first[0] == 'Frame 0, 0.00 s' and first[3] == 0
    ActionChains(opened).send_keys(Keys.ARROW_RIGHT).perform()
    second = shown(opened)
    assert second[0] == 'Frame 1, 0.10 s' and second[3] == 1
    assert all(before != after for before, after in zip(first[1], second[1]))
    assert first[2] != second[2]
    ActionChains(opened).send_keys(Keys.ARROW_LEFT).perform()
    assert shown(opened) == first
    ActionChains(opened).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(
        Keys.SHIFT).perform()
    assert shown(opened)[3] == FRAMES - 1  # ten are more than there are
    ActionChains(opened).move_to_element(slider).click().perform()
    assert 0 < shown(opened)[3] < FRAMES - 1
    for key, index in ((Keys.HOME, 0), (Keys.END, FRAMES - 1)):
        ActionChains(opened).send_keys(key).perform()
        assert shown(opened)[3] == index


@on('report', 'recording')
def test_the_cloud_turns_with_the_mouse_and_the_map_is_drawn(opened):
    before = opened.execute_script(CAMERA)
    assert turned_by(opened, 60, 20) != before
    second = opened.find_elements('css selector', '#cloud-choices button')[1]
    second.click()
    assert second.get_attribute('aria-pressed') == 'true'
    assert opened.execute_script(
        'return document.getElementById("cloud").data.map((each) => each.visible)') == [
            index == 1 for index in range(FRAMES)]
    assert opened.execute_script(
        'return document.querySelectorAll("#map .imagelayer image, #map image").length') > 0

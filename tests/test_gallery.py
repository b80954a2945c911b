"""What a batch leaves to look at: records of grasps, the gallery, and the server that shows no more than them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from browser import open_page, shot
from test_html import Checker, view  # noqa: F401 - a fixture

from contact.corpus.shapes import demo_shapes
from refine.batch.report import Report
from refine.commands.cli import main
from refine.commands.demo import GRASPS
from refine.commands.view import Run, ViewOptions
from refine.files.prediction_files import read_predictions, write_predictions
from refine.view.gallery import GalleryColumn, gallery_page
from refine.view.pictures import GraspView
from refine.view.records import load_view, save_view
from refine.view.serve import LOOPBACK, Answer, server


def data_of(page: str) -> dict:
    return json.loads(Checker(page).scripts[0])


def many(count: int) -> list[GalleryColumn]:
    rng = np.random.default_rng(0)
    depth = rng.gamma(2, 2, count)
    depth[::97] = np.nan
    return [
        GalleryColumn("row", "row", np.arange(count)),
        GalleryColumn("status", "status", rng.choice(["refined", "kept", "failed"], count, p=[0.7, 0.28, 0.02])),
        GalleryColumn("object", "object", rng.choice(["mug", "bowl"], count)),
        GalleryColumn("depth", "depth", depth, "mm"),
        GalleryColumn("notes", "notes", np.where(np.arange(count) == 5, "a </script> mistake", "")),
    ]


def test_gallery_holds_its_numbers_and_fetches_nothing() -> None:
    columns = many(200)
    page = gallery_page("<b>run</b>", columns, pictured=[3, 1])
    assert Checker(page).open == []
    assert "<b>run" not in page
    data = data_of(page)
    assert data["rows"] == 200
    assert data["pictured"] == [1, 3]
    kept = {column["key"]: column["values"] for column in data["columns"]}
    assert kept["notes"][5] == "a </script> mistake"
    assert kept["depth"][97] is None
    np.testing.assert_allclose(kept["depth"][1:90], columns[3].values[1:90], rtol=1e-3)
    with pytest.raises(ValueError, match="one length"):
        gallery_page("", [*columns, GalleryColumn("x", "x", np.zeros(3))])


def test_a_view_comes_back_from_its_record(view: GraspView, tmp_path: Path) -> None:  # noqa: F811
    full = replace(
        view, truth=view.after + 0.01, skin_distance={"before": view.after[:, 0]}, joints=view.after[:21],
        joint_sd=np.full(21, 0.003), warnings=["look"], object_pose=np.eye(4),
    )  # fmt: skip
    rows, shared = tmp_path / "rows", tmp_path / "shared"
    for name in ("a", "b"):
        save_view(full, rows, shared, name)
    assert len(list(shared.iterdir())) == 1
    back = load_view(rows / "b.npz", shared)
    for field in fields(GraspView):
        kept, given = getattr(back, field.name), getattr(full, field.name)
        if isinstance(given, np.ndarray):
            np.testing.assert_allclose(kept, given, rtol=1e-3, atol=1e-6, err_msg=field.name)
        elif field.name == "skin_distance":
            np.testing.assert_allclose(kept["before"], given["before"], rtol=1e-3)
        elif field.name == "metrics":
            assert list(kept) == list(given)
        else:
            assert kept == given, field.name
    (rows / "b.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="no whole record"):
        load_view(rows / "b.npz", shared)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rows with a report: two grasps and one that fails; a page and a picture of one."""
    folder = tmp_path_factory.mktemp("run")
    grasps = read_predictions(GRASPS)
    rows = np.flatnonzero(grasps.object_id == "apple")[:1].repeat(3)
    given = grasps.take(rows)
    transl = given.transl.copy()
    transl[0, 2] += 0.01
    transl[1] = np.nan
    given = replace(given, transl=transl, frame_id=np.array(["one", "two", "three"]))
    write_predictions(folder / "some grasps.npz", given)
    demo_shapes()["apple"].export(folder / "apple.obj")
    status = main([
        "refine", str(folder / "some grasps.npz"), "--objects", str(folder / "apple.obj"), "--out",
        str(folder / "out"), "--report", "--report-rows", "1", "--steps", "2",
    ])  # fmt: skip
    assert status == 1  # a row failed
    return folder / "out"


def test_a_batch_leaves_a_gallery_behind(run: Path) -> None:
    report = Report(run / "some grasps.report")
    assert report.rows() == [0, 2]
    data = data_of((report.folder / "index.html").read_text())
    columns = {column["key"]: column["values"] for column in data["columns"]}
    assert columns["status"][1] == "failed"
    assert "transl" in columns["notes"][1]
    assert columns["frame"] == ["one", "two", "three"]
    assert data["pictured"] == [0]
    assert [path.name for path in (report.folder / "pages").iterdir()] == ["0000000.html"]
    refined = read_predictions(run / "some grasps.refined.npz")
    shown = report.view(2)
    assert shown.metrics["penetration depth (mm)"][1] == pytest.approx(refined.penetration_mm_after[2], abs=1e-3)
    assert -1e3 * shown.skin_distance["after"].min() == pytest.approx(refined.penetration_mm_after[2], abs=0.05)


@pytest.fixture
def address(run: Path) -> Iterator[tuple[str, int]]:
    with server(Run.of(ViewOptions(run)).answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[:2]
        running.shutdown()


def get(address: tuple[str, int], path: str, host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"{address[0]}:{address[1]}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_server_makes_pictures_and_pages_when_asked(address: tuple[str, int]) -> None:
    assert b"some%20grasps" in get(address, "/")[1]
    assert data_of(get(address, "/some%20grasps/")[1].decode())["pictured"] is None
    assert get(address, "/some%20grasps/pictures/0000002.jpg")[1][:3] == b"\xff\xd8\xff"
    assert b"<!DOCTYPE html>" in get(address, "/some%20grasps/pages/0000002.html")[1][:40]
    assert get(address, "/some%20grasps/pictures/0000001.jpg")[0] == 404  # it failed


def test_a_click_on_a_picture_opens_its_grasp(address: tuple[str, int]) -> None:
    with open_page(f"http://{address[0]}:{address[1]}/some%20grasps/") as (page, complaints):
        drawn = "document.images.length === 2 && [...document.images].every(image => image.naturalWidth > 0)"
        page.wait_for_function(drawn)
        assert page.locator("a.card").count() == 2  # of the row that failed there is nothing to open
        page.locator("a.card[data-row='2']").click()
        page.wait_for_url("**/pages/0000002.html")
        page.wait_for_function("document.body.dataset.ready === 'yes'")
        assert "row 2" in page.title()
        assert complaints == []


def test_a_motion_plays_from_the_gallery(run: Path, address: tuple[str, int]) -> None:
    page_of = run / "some grasps.report" / "motions" / "0000002.html"
    page_of.parent.mkdir()
    page_of.write_text('<link rel="icon" href="data:,"><title>it plays</title>', encoding="utf-8")
    assert get(address, "/some%20grasps/motions/0000001.html")[0] == 404
    with open_page(f"http://{address[0]}:{address[1]}/some%20grasps/") as (page, complaints):
        page.locator("#motions").select_option(label=" from row 2")
        page.wait_for_url("**/motions/0000002.html")
        assert page.title() == "it plays"
        assert complaints == []


@pytest.mark.parametrize(
    "path",
    [
        "/../secret", "/some%20grasps/../some%20grasps.refined.npz", "/some%20grasps%2f..%2fsome%20grasps.refined.npz",
        "/some%20grasps/rows/0000000.npz", "/some%20grasps/pages/..%2f..%2fsecret.html", "//etc/passwd", "/etc/passwd",
        "/some%20grasps/pages/%2e%2e/secret", "/..%5csecret", "/some%20grasps.summary.json", "/%00", "/.",
        "http://elsewhere/some%20grasps/",
    ],
)  # fmt: skip
def test_no_other_file_is_served(address: tuple[str, int], run: Path, path: str) -> None:
    (run.parent / "secret").write_text("not to be seen")
    status, body = get(address, path)
    assert status == 404
    assert b"not to be seen" not in body


def test_no_link_leads_out_of_the_run(address: tuple[str, int], run: Path) -> None:
    (run.parent / "secret").write_text("not to be seen")
    report, outside = run / "some grasps.report", run.parent / "outside"
    outside.mkdir(exist_ok=True)
    for kind, name in (("pages", "0000007.html"), ("pictures", "0000007.jpg"), ("rows", "0000008.npz")):
        (report / kind / name).symlink_to(run.parent / "secret")
    for path in ("pages/0000007.html", "pictures/0000007.jpg", "pages/0000008.html"):
        status, body = get(address, f"/some%20grasps/{path}")
        assert status == 404
        assert b"not to be seen" not in body
    (report / "pictures").rename(report / "kept")
    (report / "pictures").symlink_to(outside)  # nothing is written there either
    assert get(address, "/some%20grasps/pictures/0000002.jpg")[0] == 404
    assert list(outside.iterdir()) == []
    (report / "pictures").unlink()
    (report / "kept").rename(report / "pictures")


def test_a_browser_that_leaves_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    asked, gone = threading.Event(), threading.Event()

    def answer(path: str) -> Answer:
        asked.set()
        gone.wait(10)
        return Answer("text/plain", bytes(50_000_000))

    with server(answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        with socket.create_connection(running.server_address[:2]) as leaving:
            leaving.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            asked.wait(10)
        gone.set()
        assert get(running.server_address[:2], "/")[0] == 200
        running.shutdown()
    assert capfd.readouterr().err == ""


def test_server_listens_on_the_loopback_alone_and_knows_its_name(address: tuple[str, int]) -> None:
    assert address[0] == LOOPBACK == "127.0.0.1"
    assert get(address, "/", host="rebound.example")[0] == 404
    own = {place[4][0] for place in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {LOOPBACK}
    for other in own:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((other, address[1]), timeout=2)


def test_view_says_what_is_missing(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path)]) == 2
    assert "give the folder that regrasp refine wrote" in capsys.readouterr().err
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["view", str(run), "--port", str(port)]) == 2
        assert f"--port {port}: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="--objects"):
        Run.of(ViewOptions(run, reference=tmp_path / "truth.npz"))
    shipped = read_predictions(GRASPS)
    write_predictions(tmp_path / "truth.npz", replace(shipped, frame_id=np.array(["other"] * len(shipped))))
    with pytest.raises(ValueError, match="no row has the frame"):
        Run.of(ViewOptions(run, reference=tmp_path / "truth.npz", objects=run.parent / "apple.obj"))


def test_errors_stand_beside_the_rest_where_there_is_a_truth(run: Path, tmp_path: Path) -> None:
    refined = read_predictions(run / "some grasps.refined.npz").take(np.array([2]))
    true = replace(refined, transl=refined.column("transl") + np.float32([0.007, 0, 0]))
    write_predictions(tmp_path / "truth.npz", true)
    shown = Run.of(ViewOptions(run, reference=tmp_path / "truth.npz", objects=run.parent / "apple.obj"))
    columns = {column["key"]: column for column in data_of(shown.files["some grasps"].gallery.decode())["columns"]}
    assert columns["error"]["values"] == [None, None, pytest.approx(7.0, abs=0.01)]


def test_ten_thousand_rows_stay_few_elements(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    columns = many(10_000)
    path.write_text(gallery_page("run", columns, pictured=[]), encoding="utf-8")
    with open_page(path.as_uri()) as (page, complaints):
        assert page.evaluate("document.getElementById('space').children.length") < 100
        page.locator("#only-kept").click()
        page.locator("#search").fill("mug")
        values = {column.key: column.values for column in columns}
        left = ((values["status"] != "kept") & (values["object"] == "mug")).sum()
        page.wait_for_function(f"document.getElementById('count').textContent.startsWith('{left} of')")
        page.locator("#table").click()
        page.locator("#by-depth").click()
        chosen = (values["status"] != "kept") & (values["object"] == "mug")
        deepest = np.flatnonzero(chosen)[np.nanargmax(values["depth"][chosen])]
        assert page.evaluate("document.querySelector('.row').dataset.row") == str(deepest)
        before = shot(page, "#list")
        page.evaluate("document.getElementById('list').scrollTop = 20000")
        page.wait_for_timeout(100)
        assert shot(page, "#list") != before
        page.locator("#reset").click()
        box = page.locator("#range-depth").bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 60, box["y"] + 20)
        page.mouse.up()
        page.wait_for_function("document.getElementById('count').textContent.includes(' of 10000')")
        assert complaints == []


def test_a_phone_shows_two_cards_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(gallery_page("run", many(50), pictured=[]), encoding="utf-8")
    with open_page((tmp_path / "index.html").as_uri(), (390, 800)) as (page, _):
        first, second, third = (page.locator(".card").nth(k).bounding_box() for k in range(3))
        assert first["y"] == second["y"] < third["y"]
        assert first["x"] + first["width"] <= second["x"]
        assert second["x"] + second["width"] <= 390

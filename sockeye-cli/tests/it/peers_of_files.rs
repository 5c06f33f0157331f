//! `sockeye serve files`, and clients that no one here wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::peers::noise;
use crate::support::{Serving, line_with, run, text};

/// Drives a browser by WebDriver (W3C), which is JSON over HTTP.
const BROWSER: &str = r#"
import json, os, re, subprocess, sys, time, urllib.request

address, downloads = sys.argv[1:]
driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
try:
    port = next(found[1] for line in driver.stdout if (found := re.search(r"on port ([1-9]\d*)", line)))
    base = f"http://127.0.0.1:{port}/session"

    def ask(method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"}, method=method)
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]

    options = {"args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
               "prefs": {"download.default_directory": downloads}}
    session = ask("POST", "", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}})
    base += "/" + session["sessionId"]

    def click(text):
        found = ask("POST", "/element", {"using": "link text", "value": text})
        ask("POST", f"/element/{next(iter(found.values()))}/click", {})

    def names():
        script = "return [...document.querySelectorAll('tbody a')].map(link => link.textContent)"
        return ask("POST", "/execute/sync", {"script": script, "args": []})

    ask("POST", "/url", {"url": f"http://{address}/"})
    print(ask("GET", "/title"), names())
    click("Size")
    print(names())
    click("Size")
    print(names())
    click("sub/")
    print(ask("GET", "/title"), names())
    click("../")
    click("large & <b>.bin")
    wanted = os.path.join(downloads, "large & _b_.bin")
    end = time.monotonic() + 30
    while not os.path.exists(wanted) and time.monotonic() < end:
        os.sched_yield()
    print(os.listdir(downloads))
    ask("DELETE", "")
finally:
    driver.terminate()
    driver.wait()
"#;

#[test]
#[ignore = "needs chromium and chromedriver"]
fn a_browser_opens_the_listing_sorts_it_and_downloads_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (served, downloads) = (
        folder.path().join("served"),
        folder.path().join("downloads"),
    );
    fs::create_dir_all(served.join("sub")).expect("made");
    fs::create_dir(&downloads).expect("made");
    fs::write(served.join("small.bin"), b"x").expect("written");
    fs::write(served.join("large & <b>.bin"), noise(3_000_000)).expect("written");
    fs::write(served.join("sub/in it.txt"), b"y").expect("written");
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let serving = Serving::start(&["files", &path(&served), "--index"]);
    let mut python = Command::new("python3");
    python.args(["-c", BROWSER, &serving.address, &path(&downloads)]);
    let output = run(python, b"");
    assert_eq!(
        text(&output.stdout),
        "/ ['sub/', 'large & <b>.bin', 'small.bin']\n\
         ['sub/', 'small.bin', 'large & <b>.bin']\n\
         ['sub/', 'large & <b>.bin', 'small.bin']\n\
         /sub/ ['../', 'in it.txt']\n\
         ['large & _b_.bin']\n",
        "{}",
        text(&output.stderr)
    );
    assert!(fs::read(downloads.join("large & _b_.bin")).expect("there") == noise(3_000_000));
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs wget"]
fn wget_mirrors_a_folder_and_asks_only_for_what_has_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (served, copy) = (folder.path().join("served"), folder.path().join("copy"));
    fs::create_dir_all(served.join("sub")).expect("made");
    fs::create_dir(&copy).expect("made");
    for name in ["a b.txt", "sub/c.bin"] {
        fs::write(served.join(name), noise(100_000)).expect("written");
    }
    let serving = Serving::start(&["files", served.to_str().expect("UTF-8"), "--index", "-v"]);
    let mirror = || {
        let mut wget = Command::new("wget");
        wget.args([
            "-nv",
            "--mirror",
            "-nH",
            "--no-parent",
            "-R",
            "index.html*",
            "-P",
        ])
        .arg(&copy);
        wget.arg(format!("http://{}/", serving.address));
        let output = run(wget, b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    };
    mirror();
    for name in ["a b.txt", "sub/c.bin"] {
        assert!(
            fs::read(copy.join(name)).expect("there") == noise(100_000),
            "{name}"
        );
    }
    mirror();
    // The second time wget sent If-Modified-Since, and got no bytes.
    let unchanged = |name: &str| line_with(&serving.stderr, &format!("GET {name} 304"));
    unchanged("/a%20b.txt");
    unchanged("/sub/c.bin");
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs curl"]
fn curl_resumes_a_download_where_it_was_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = folder.path().join("served");
    fs::create_dir(&served).expect("made");
    fs::write(served.join("data.bin"), noise(1_000_000)).expect("written");
    let half = folder.path().join("half");
    fs::write(&half, &noise(1_000_000)[..300_000]).expect("written");
    let serving = Serving::start(&["files", served.to_str().expect("UTF-8")]);
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--fail",
        "-C",
        "-",
        "-w",
        "%{http_code} %{size_download}",
        "-o",
    ])
    .arg(&half);
    curl.arg(format!("http://{}/data.bin", serving.address));
    let output = run(curl, b"");
    assert_eq!(
        text(&output.stdout),
        "206 700000",
        "{}",
        text(&output.stderr)
    );
    assert!(fs::read(&half).expect("there") == noise(1_000_000));
    assert_eq!(serving.stop(), 0);
}

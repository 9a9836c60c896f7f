//! A headless browser: what it makes of a page, measured from a frame around it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub dark: bool,
}

/// What is there to be seen, and what must not.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// Wider than the screen: a person would have to scroll sideways.
    pub scroll_width: u32,
    pub background: String,
    pub elements: u32,
    pub scripts: u32,
    /// Asked of a network or a disk.
    pub resources: u32,
    /// The largest of the fonts of running text, CSS pixels.
    pub font: f64,
    pub has_text: bool,
}

/// Loads `folder/page` and looks for `text` in it; a picture of it goes to `folder/<picture>`.
pub fn look(folder: &Path, page: &str, screen: Screen, text: &str, picture: &str) -> Result<Seen> {
    let Screen { width, dark } = screen;
    let quoted = serde_json::to_string(text)?;
    let frame = format!(
        "<!DOCTYPE html><style>body{{margin:0}}iframe{{border:0;width:{width}px;height:1600px}}\
         </style><iframe id=f src={page:?}></iframe><pre id=out></pre><script>\
         f.onload = () => {{ const d = f.contentDocument, w = f.contentWindow; \
         const style = w.getComputedStyle(d.body); \
         out.textContent = 'SEEN ' + JSON.stringify({{ \
         scroll_width: d.documentElement.scrollWidth, background: style.backgroundColor, \
         elements: d.querySelectorAll('*').length, scripts: d.scripts.length, \
         resources: w.performance.getEntriesByType('resource').length, \
         font: parseFloat(style.fontSize), has_text: d.body.textContent.includes({quoted}) \
         }}) + ' END'; }};</script>"
    );
    let around = folder.join("frame.html");
    fs::write(&around, frame)?;
    let picture = folder.join(picture);
    let base = |command: &mut Command| {
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
            ])
            // The frame reads the page's measures, which lie in another file.
            .args(["--allow-file-access-from-files", "--disable-web-security"])
            .arg(format!(
                "--user-data-dir={}",
                folder.join("profile").display()
            ))
            .arg(format!(
                "--blink-settings=preferredColorScheme={}",
                u8::from(!dark)
            ))
            .arg(format!("--window-size={},1600", width.max(500)))
            .arg("--virtual-time-budget=10000");
    };
    let mut command = Command::new("chromium");
    base(&mut command);
    let output = command
        .arg(format!("--screenshot={}", picture.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", around.display()))
        .output()
        .context("failed to run chromium; run `cargo xtask setup`")?;
    let dom = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "chromium: {output:?}");
    let seen = dom
        .split_once("<pre id=\"out\">SEEN ")
        .and_then(|(_, rest)| rest.split_once(" END"))
        .with_context(|| format!("chromium measured nothing: {dom}"))?;
    Ok(serde_json::from_str(seen.0)?)
}

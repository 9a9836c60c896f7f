//! Views told samples and pressed keys, drawn on screens that exist in memory only.

use std::{collections::BTreeMap, time::Duration};

use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::{Effect, Key, Origin, Paint, Sample, View, draw};
use crate::{
    policy::level::Level,
    report::{
        Report, Whose,
        model::{OpenerReport, SCHEMA, SocketReport, StackReport, Totals},
    },
    stacks::{Frame, FrameKind, SiteRules},
};

const PLAIN: Paint = Paint {
    color: false,
    unicode: true,
};

fn opener(pid: u32, name: &str, outstanding: u64, oldest_age_s: f64) -> OpenerReport {
    let mut opener: OpenerReport = serde_json::from_value(serde_json::json!({
        "pid": pid, "inner_pid": null, "start_time": format!("start of {pid}"), "name": name,
        "cmdline": [format!("/usr/bin/{name}"), "--serve"], "unit": format!("{name}.service"),
        "container": null, "user": "redis", "netns": 1, "ended": false,
        "outstanding": outstanding, "opened": outstanding, "closed": 0, "states": {},
        "oldest_age_s": oldest_age_s, "verdict": null, "facts": [], "rates": null,
        "next_level": null, "stacks": [], "sockets": [],
    }))
    .expect("the model's fields");
    opener.states.insert("ESTABLISHED".to_owned(), outstanding);
    opener
}

/// With a stack and sockets, as far as the listing asks for them.
fn sample(view: &View, second: u64, openers: Vec<OpenerReport>) -> Sample {
    let listing = view.listing();
    let openers = openers.into_iter().map(|mut opener| {
        let is_listed = match listing.whose {
            Whose::Everybody => true,
            Whose::Opener(pid) => pid == opener.pid,
            Whose::Nobody => false,
        };
        if is_listed {
            opener.stacks = vec![stack(opener.outstanding)];
            let sockets = opener.outstanding.min(u64::from(listing.sockets_max));
            opener.sockets = (0..sockets).map(socket).collect();
        }
        opener
    });
    let openers: Vec<OpenerReport> = openers.collect();
    let count = openers.iter().map(|opener| opener.outstanding as u32).sum();
    Sample {
        at: Duration::from_secs(second),
        origin: Origin::Trace,
        report: Report {
            openers,
            ..report(second)
        },
        listing,
        count,
        level: Level::Warning,
        manual: None,
    }
}

fn report(second: u64) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        version: "1".to_owned(),
        kernel: "6.1".to_owned(),
        host: "web-1".to_owned(),
        boot_id: String::new(),
        netns: Some(1),
        started_at: String::new(),
        generated_at: format!("2026-01-01T00:00:{second:02}.000Z"),
        ports: vec![6379],
        probes: BTreeMap::new(),
        totals: Totals::default(),
        openers: Vec::new(),
        units: Vec::new(),
        sites: Vec::new(),
        servers: Vec::new(),
        timeline: None,
    }
}

fn stack(outstanding: u64) -> StackReport {
    let frame = Frame {
        function: Some("get_client".to_owned()),
        file: Some("/src/worker.rs".to_owned()),
        line: Some(24),
        module: None,
        kind: FrameKind::Native,
        inlined: false,
    };
    StackReport {
        outstanding,
        oldest_age_s: Some(9.0),
        youngest_age_s: Some(1.0),
        site: None,
        verdict: None,
        frames: vec![frame],
        note: None,
    }
}

fn socket(index: u64) -> SocketReport {
    let port = 40_000 + index;
    serde_json::from_value(serde_json::json!({
        "local": format!("127.0.0.1:{port}"), "remote": "127.0.0.1:6379", "state": "ESTABLISHED",
        "opened_at": null, "holders": [{"pid": 7, "fd": 3}], "opener": null, "netns": 1,
        "idle_s": 1.0, "rx_queue_bytes": 0, "tx_queue_bytes": 0, "rx_bytes": 0, "tx_bytes": 0, "redis": null,
    }))
    .expect("the model's fields")
}

fn three(first: u64) -> Vec<OpenerReport> {
    vec![
        opener(10, "old", 5, 900.0),
        opener(20, "big", 50, 60.0),
        opener(30, "growing", first, 5.0),
    ]
}

/// A view that saw `growing` gain and the others not.
fn view() -> View {
    let mut view = View::default();
    for second in 0..20 {
        let now = sample(&view, second, three(1 + second));
        view.tell(now);
    }
    view
}

fn screen(view: &mut View, columns: u16, rows: u16) -> Vec<String> {
    let backend = TestBackend::new(columns, rows);
    let mut terminal = Terminal::new(backend).expect("memory is a terminal");
    let drawn = terminal.draw(|frame| draw(frame, view, &SiteRules::default(), PLAIN));
    let buffer = drawn.expect("memory takes it").buffer;
    let cells = buffer.content().chunks(usize::from(columns));
    let line = |cells: &[ratatui::buffer::Cell]| {
        let text: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    };
    cells.map(line).collect()
}

fn press(view: &mut View, keys: &str) {
    for key in keys.chars() {
        view.press(Key::Char(key));
    }
}

/// Names of the list, as they stand on the screen.
fn names(view: &mut View) -> Vec<String> {
    let lines = screen(view, 80, 24);
    let head = lines.iter().position(|line| line.contains("OUTST"));
    let rows = &lines[head.expect("a head of the list") + 1..];
    let rows = rows.iter().take_while(|line| !line.is_empty());
    rows.filter_map(|line| Some(line.split_whitespace().last()?.to_owned()))
        .collect()
}

#[test]
fn openers_are_sorted_by_outstanding_growth_and_age() {
    let mut view = view();
    assert_eq!(names(&mut view), ["big", "growing", "old"]);
    press(&mut view, "g");
    assert_eq!(names(&mut view)[0], "growing");
    press(&mut view, "a");
    assert_eq!(names(&mut view), ["old", "big", "growing"]);
    press(&mut view, "o");
    assert_eq!(names(&mut view), ["big", "growing", "old"]);
    press(&mut view, "ss");
    assert_eq!(names(&mut view)[0], "old");
}

#[test]
fn growth_is_told_a_minute() {
    let mut view = view();
    let lines = screen(&mut view, 80, 24);
    let row = lines.iter().find(|line| line.ends_with("growing"));
    assert!(row.is_some_and(|row| row.contains("+60.0")), "{lines:#?}");
}

#[test]
fn the_selected_opener_stays_selected_while_rows_move() {
    let mut view = view();
    view.press(Key::Down);
    let selected = |view: &View| view.selected_opener().map(|(opener, _)| opener.pid);
    assert_eq!(selected(&view), Some(Some(30)));
    let overtaken = sample(&view, 21, three(500));
    view.tell(overtaken);
    assert_eq!(selected(&view), Some(Some(30)));
    assert_eq!(view.selected_row(), 0);
    press(&mut view, "a");
    assert_eq!(selected(&view), Some(Some(30)));
    assert_eq!(view.selected_row(), 2);
}

#[test]
fn a_cursor_that_nobody_moved_stays_on_the_first_row() {
    let mut view = view();
    press(&mut view, "a");
    assert_eq!(view.selected_row(), 0);
    let selected = view.selected_opener().map(|(opener, _)| opener.pid);
    assert_eq!(selected, Some(Some(10)));
}

#[test]
fn a_filter_lets_only_those_through_that_have_it() {
    let mut view = view();
    press(&mut view, "/GROW");
    assert_eq!(names(&mut view), ["growing"]);
    // Keys are letters while one types.
    press(&mut view, "q");
    assert_eq!(screen(&mut view, 80, 24)[23], "/GROWq_");
    view.press(Key::Backspace);
    view.press(Key::Enter);
    assert_eq!(names(&mut view), ["growing"]);
    view.press(Key::Escape);
    assert_eq!(names(&mut view).len(), 3);
    press(&mut view, "/30");
    assert_eq!(names(&mut view), ["growing"]);
}

#[test]
fn enter_opens_the_sites_and_tab_the_sockets_of_one() {
    let mut view = view();
    assert_eq!(view.press(Key::Enter), Effect::Look);
    assert_eq!(view.listing().whose, Whose::Opener(Some(20)));
    let now = sample(&view, 21, three(3));
    view.tell(now);
    let sites = screen(&mut view, 80, 24).join("\n");
    assert!(sites.contains("worker.rs:24 get_client"), "{sites}");
    assert!(sites.contains("unit big.service"), "{sites}");
    view.press(Key::Tab);
    let sockets = screen(&mut view, 80, 24).join("\n");
    assert!(
        sockets.contains("127.0.0.1:40000 -> 127.0.0.1:6379"),
        "{sockets}"
    );
    view.press(Key::End);
    let last = screen(&mut view, 80, 24).join("\n");
    assert!(last.contains("127.0.0.1:40049"), "{last}");
    view.press(Key::Escape);
    assert_eq!(names(&mut view), ["big", "old", "growing"]);
}

#[test]
fn sockets_of_a_huge_opener_are_counted_where_they_are_not_listed() {
    let mut view = View::default();
    let huge = || vec![opener(10, "huge", 50_000, 1.0)];
    let now = sample(&view, 0, huge());
    view.tell(now);
    view.press(Key::Enter);
    let now = sample(&view, 1, huge());
    view.tell(now);
    view.press(Key::Tab);
    screen(&mut view, 80, 24);
    view.press(Key::End);
    let last = screen(&mut view, 80, 24).join("\n");
    assert!(last.contains("and 49000 younger ones"), "{last}");
}

#[test]
fn an_opener_that_went_away_says_so() {
    let mut view = view();
    view.press(Key::Enter);
    let now = sample(&view, 21, vec![opener(10, "old", 5, 900.0)]);
    view.tell(now);
    let shown = screen(&mut view, 80, 24).join("\n");
    assert!(
        shown.contains("20 has nothing outstanding any more"),
        "{shown}"
    );
}

#[test]
fn a_frozen_view_has_everybody_and_changes_no_more() {
    let mut view = view();
    assert_eq!(view.press(Key::Char('f')), Effect::Look);
    assert_eq!(view.listing().whose, Whose::Everybody);
    let now = sample(&view, 21, three(3));
    view.tell(now);
    assert!(view.is_frozen());
    let before = screen(&mut view, 80, 24);
    assert!(before[0].contains("FROZEN"), "{before:#?}");
    let later = sample(&view, 22, three(700));
    view.tell(later);
    assert_eq!(screen(&mut view, 80, 24), before);
    // Whoever is opened now is as it was then.
    view.press(Key::Down);
    assert_eq!(view.press(Key::Enter), Effect::Nothing);
    let sites = screen(&mut view, 80, 24).join("\n");
    assert!(sites.contains("5 outstanding"), "{sites}");
    press(&mut view, "f");
    assert!(!view.is_frozen());
}

#[test]
fn any_key_leaves_the_help_and_does_nothing_else() {
    let mut view = view();
    press(&mut view, "?");
    let help = screen(&mut view, 40, 10).join("\n");
    assert!(help.contains("q Ctrl-C"), "{help}");
    assert!(help.contains("any key leaves it"), "{help}");
    assert_eq!(view.press(Key::Char('q')), Effect::Nothing);
    assert_eq!(names(&mut view).len(), 3);
    assert_eq!(view.press(Key::Char('q')), Effect::Quit);
}

#[test]
fn no_word_is_cut_at_80_columns_and_what_matters_fits_40_by_10() {
    let mut view = view();
    let small = screen(&mut view, 40, 10);
    assert!(small[0].contains(":6379"), "{small:#?}");
    assert!(small[1].starts_with("WARNING 75"), "{small:#?}");
    assert!(small[2].starts_with("peak"), "{small:#?}");
    assert!(small[4].ends_with("big"), "{small:#?}");
    assert!(small[9].starts_with("q quit"), "{small:#?}");
    let usual = screen(&mut view, 80, 24);
    assert!(usual[23].ends_with("Enter open"), "{usual:#?}");
    assert!(usual[1].ends_with("both ends 0"), "{usual:#?}");
}

#[test]
fn every_size_can_be_drawn() {
    let mut view = view();
    for columns in (1..60).step_by(4) {
        for rows in (1..30).step_by(2) {
            screen(&mut view, columns, rows);
        }
    }
    for keys in ["?", "/", "\n"] {
        press(&mut view, keys);
        view.press(Key::Enter);
        for (columns, rows) in [(1, 1), (2, 2), (8, 3), (40, 10), (300, 100)] {
            screen(&mut view, columns, rows);
        }
    }
}

#[test]
fn escape_sequences_of_a_process_reach_no_cell() {
    let mut view = View::default();
    let mut hostile = opener(10, "evil\u{1b}[31m\u{7}\u{202e}\u{9b}2Jx", 1, 1.0);
    hostile.unit = Some("u\u{1b}]0;title\u{7}".to_owned());
    hostile.cmdline = vec!["c\u{1b}[2J\n".to_owned()];
    for page in ["", "\t"] {
        let now = sample(&view, 1, vec![hostile.clone()]);
        view.tell(now);
        for line in screen(&mut view, 120, 24) {
            let steers = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!line.chars().any(steers), "{page:?} {line:?}");
        }
        view.press(Key::Enter);
    }
    let shown = screen(&mut view, 120, 24).join("\n");
    assert!(shown.contains("\\u{1b}"), "{shown}");
}

#[test]
fn without_color_no_cell_has_one() {
    let mut view = view();
    let backend = TestBackend::new(80, 24);
    let mut terminal = Terminal::new(backend).expect("memory is a terminal");
    let drawn = terminal.draw(|frame| draw(frame, &mut view, &SiteRules::default(), PLAIN));
    let buffer = drawn.expect("memory takes it").buffer;
    for cell in buffer.content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{cell:?}");
    }
}

#[test]
fn a_failure_is_shown_until_the_next_sample() {
    let mut view = view();
    view.tell_failure("the daemon\u{1b}[2J is gone");
    let foot = |view: &mut View| screen(view, 80, 24)[23].clone();
    assert_eq!(foot(&mut view), "the daemon\\u{1b}[2J is gone");
    let now = sample(&view, 21, three(3));
    view.tell(now);
    assert!(foot(&mut view).starts_with("q quit"));
}

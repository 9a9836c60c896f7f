//! Drawing: a view on a screen of any size, from 40 columns and 10 rows up with all that matters.

mod help;
mod opener;
mod openers;
mod paint;
mod status;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
};

use super::view::{Overlay, Page, View};
use crate::stacks::SiteRules;

pub use paint::Paint;

/// From here on a screen has room for more than the page.
const HIGH: u16 = 20;

/// Draws `view`, and tells it how much there was room for.
pub fn draw(frame: &mut Frame<'_>, view: &mut View, rules: &SiteRules, paint: Paint) {
    let area = frame.area();
    let on_openers = view.page == Page::Openers;
    let [title, numbers, levels, page, preview, foot] = Layout::vertical([
        Constraint::Length(u16::from(area.height >= 6)),
        Constraint::Length(1),
        Constraint::Length(match area.height {
            HIGH.. => 3,
            8.. => 1,
            _ => 0,
        }),
        Constraint::Min(0),
        Constraint::Length(if area.height >= HIGH && on_openers {
            openers::PREVIEW_LINES
        } else {
            0
        }),
        Constraint::Length(u16::from(area.height >= 3)),
    ])
    .areas(area);
    status::title(frame, title, view, paint);
    status::numbers(frame, numbers, view, paint);
    status::levels(frame, levels, view, paint);
    if on_openers {
        openers::list(frame, page, view, paint);
        openers::preview(frame, preview, view, paint);
    } else {
        opener::page(frame, page, view, rules, paint);
    }
    foot_line(frame, foot, view, paint);
    if view.overlay == Overlay::Help {
        help::page(frame, area, paint);
    }
}

/// What is being typed, what went wrong, or which keys there are.
fn foot_line(frame: &mut Frame<'_>, area: Rect, view: &View, paint: Paint) {
    let line = match (&view.overlay, &view.failure) {
        (Overlay::Filter, _) => Line::styled(
            format!("/{}_", crate::report::clean(&view.filter)),
            paint.bold(),
        ),
        (_, Some(failure)) => Line::styled(failure.clone(), paint.alarm()),
        _ if view.page == Page::Openers => paint.keys(&[
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("s", view.order.words()),
            ("f", "freeze"),
            ("Enter", "open"),
        ]),
        _ => paint.keys(&[
            ("q", "quit"),
            ("?", "help"),
            ("Esc", "back"),
            ("Tab", "sites, sockets"),
            ("f", "freeze"),
        ]),
    };
    frame.render_widget(line, area);
}

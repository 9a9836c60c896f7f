//! The view: what is shown, and what a key or a sample changes of it. Pure: keys and samples in,
//! something to draw out.

use std::collections::VecDeque;

use super::{
    history::{History, LevelPoint},
    key::Key,
    order::{Order, passes},
    sample::{OpenerKey, Sample},
};
use crate::report::{Listing, Whose, clean, model::OpenerReport};

/// Of one opener, the oldest: what nobody scrolls through need not be told every second.
const SOCKETS_MAX: u32 = 1000;
/// Longer than any name in the table.
const FILTER_CHARS_MAX: usize = 64;

/// What the caller has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// Another listing is wanted, at once.
    Look,
    /// The whole screen is to be drawn anew.
    Redraw,
    Suspend,
    Quit,
}

/// Which page is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Openers,
    /// One opener, by its sites or by its sockets.
    Opener {
        key: OpenerKey,
        sockets: bool,
        first_line: usize,
    },
}

/// Where keys go before they reach the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    None,
    Filter,
    Help,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freeze {
    Live,
    /// Once everybody's stacks and sockets are there: nothing can be asked of the past later.
    Asked,
    Frozen,
}

/// A sample with what only several samples tell.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) sample: Sample,
    /// Of each opener of the report.
    growth: Vec<Option<f64>>,
    /// The newest last.
    pub(super) levels: VecDeque<LevelPoint>,
}

#[derive(Debug)]
pub struct View {
    pub(super) page: Page,
    pub(super) overlay: Overlay,
    pub(super) order: Order,
    pub(super) filter: String,
    freeze: Freeze,
    history: History,
    picture: Option<Picture>,
    /// Why the last sample did not come.
    pub(super) failure: Option<String>,
    /// `None` until somebody moves: then it is the first row, whoever that is.
    selected: Option<OpenerKey>,
    /// Where the selected one is, or was before it went away.
    selected_row: usize,
    first_row: usize,
    /// Lines of the open page that fit on the screen.
    page_lines: usize,
    /// Lines that it has.
    content_lines: usize,
}

impl Default for View {
    fn default() -> Self {
        Self {
            page: Page::Openers,
            overlay: Overlay::None,
            order: Order::default(),
            filter: String::new(),
            freeze: Freeze::Live,
            history: History::default(),
            picture: None,
            failure: None,
            selected: None,
            selected_row: 0,
            first_row: 0,
            page_lines: 1,
            content_lines: 0,
        }
    }
}

impl View {
    /// Takes over a new sample; a frozen view keeps the one it has.
    pub fn tell(&mut self, sample: Sample) {
        self.failure = None;
        let growth = self.history.take(&sample);
        match self.freeze {
            Freeze::Frozen => return,
            Freeze::Asked if sample.listing.whose == Whose::Everybody => {
                self.freeze = Freeze::Frozen;
            }
            Freeze::Asked | Freeze::Live => {}
        }
        self.picture = Some(Picture {
            sample,
            growth,
            levels: self.history.levels().clone(),
        });
        self.find_selected();
    }

    /// No sample came; what is shown is as old as it says.
    pub fn tell_failure(&mut self, cause: &str) {
        self.failure = Some(clean(cause));
    }

    /// Whose stacks and sockets the next sample should list.
    pub fn listing(&self) -> Listing {
        let (whose, sockets_max) = match &self.page {
            _ if self.freeze == Freeze::Asked => (Whose::Everybody, SOCKETS_MAX),
            Page::Opener { key, .. } => (Whose::Opener(key.pid), SOCKETS_MAX),
            // Its sites stand below the list.
            Page::Openers => match self.selected_opener() {
                Some((opener, _)) => (Whose::Opener(opener.pid), 0),
                None => (Whose::Nobody, 0),
            },
        };
        Listing { whose, sockets_max }
    }

    pub fn press(&mut self, key: Key) -> Effect {
        let before = self.listing();
        let effect = match (key, self.overlay) {
            (Key::Interrupt, _) => Effect::Quit,
            (Key::Suspend, _) => Effect::Suspend,
            (Key::Redraw, _) => Effect::Redraw,
            (_, Overlay::Help) => {
                self.overlay = Overlay::None;
                Effect::Nothing
            }
            (_, Overlay::Filter) if self.edit_filter(key) => Effect::Nothing,
            _ => self.press_on_page(key),
        };
        let frozen = self.freeze == Freeze::Frozen;
        if effect == Effect::Nothing && !frozen && self.listing() != before {
            return Effect::Look;
        }
        effect
    }

    fn press_on_page(&mut self, key: Key) -> Effect {
        match key {
            Key::Char('q') => return Effect::Quit,
            Key::Char('?' | 'h') => self.overlay = Overlay::Help,
            Key::Char('f' | ' ') => {
                self.freeze = match self.freeze {
                    Freeze::Live => Freeze::Asked,
                    Freeze::Asked | Freeze::Frozen => Freeze::Live,
                };
            }
            _ => match &mut self.page {
                Page::Openers => self.press_on_openers(key),
                Page::Opener { sockets, .. } if key == Key::Tab => {
                    *sockets = !*sockets;
                    self.scroll_to(0);
                }
                Page::Opener { .. } if matches!(key, Key::Escape | Key::Backspace) => {
                    self.page = Page::Openers;
                }
                Page::Opener { first_line, .. } => {
                    if let Some(line) = moved(*first_line, key, self.page_lines) {
                        self.scroll_to(line);
                    }
                }
            },
        }
        Effect::Nothing
    }

    fn press_on_openers(&mut self, key: Key) {
        match key {
            Key::Char('s') => self.sort(self.order.next()),
            Key::Char('o') => self.sort(Order::Outstanding),
            Key::Char('g') => self.sort(Order::Growth),
            Key::Char('a') => self.sort(Order::Age),
            Key::Char('/') => self.overlay = Overlay::Filter,
            Key::Escape => self.set_filter(String::new()),
            Key::Enter => {
                if let Some((opener, _)) = self.selected_opener() {
                    let key = OpenerKey::of(opener);
                    self.selected = Some(key.clone());
                    self.page = Page::Opener {
                        key,
                        sockets: false,
                        first_line: 0,
                    };
                }
            }
            _ => {
                if let Some(row) = moved(self.selected_row, key, self.page_lines) {
                    self.select(row);
                }
            }
        }
    }

    /// False for a key that belongs to the page below.
    fn edit_filter(&mut self, key: Key) -> bool {
        let mut filter = self.filter.clone();
        match key {
            Key::Char(character) => {
                if filter.chars().count() < FILTER_CHARS_MAX {
                    filter.push(character);
                }
            }
            Key::Backspace => {
                filter.pop();
            }
            Key::Escape => {
                self.overlay = Overlay::None;
                filter.clear();
            }
            Key::Enter | Key::Tab => self.overlay = Overlay::None,
            _ => return false,
        }
        self.set_filter(filter);
        true
    }

    fn sort(&mut self, order: Order) {
        self.order = order;
        self.find_selected();
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.find_selected();
    }

    /// The openers in their order, each with its growth a minute.
    pub(super) fn rows(&self) -> Vec<(&OpenerReport, Option<f64>)> {
        let Some(picture) = &self.picture else {
            return Vec::new();
        };
        let openers = picture.sample.report.openers.iter();
        let mut rows: Vec<_> = openers
            .zip(picture.growth.iter().copied())
            // What ended and left nothing is the report's to tell.
            .filter(|(opener, _)| opener.outstanding > 0 || !opener.ended)
            .filter(|(opener, _)| passes(opener, &self.filter))
            .collect();
        rows.sort_by(|&a, &b| self.order.compare(a, b));
        rows
    }

    pub(super) fn picture(&self) -> Option<&Picture> {
        self.picture.as_ref()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.freeze == Freeze::Frozen
    }

    pub(super) fn selected_row(&self) -> usize {
        self.selected_row
    }

    pub(super) fn first_row(&self) -> usize {
        self.first_row
    }

    pub(super) fn selected_opener(&self) -> Option<(&OpenerReport, Option<f64>)> {
        self.rows().into_iter().nth(self.selected_row)
    }

    /// The opener of the open page, if it is in the sample still.
    pub(super) fn open_opener(&self) -> Option<&OpenerReport> {
        let Page::Opener { key, .. } = &self.page else {
            return None;
        };
        let mut openers = self.picture.iter().flat_map(|it| &it.sample.report.openers);
        openers.find(|opener| OpenerKey::of(opener) == *key)
    }

    /// Whether the sample has the stacks of `opener`, and the sockets that were wanted of it.
    pub(super) fn is_listed(&self, opener: &OpenerReport) -> bool {
        let Some(picture) = &self.picture else {
            return false;
        };
        match picture.sample.listing.whose {
            Whose::Everybody => true,
            Whose::Opener(pid) => pid == opener.pid,
            Whose::Nobody => false,
        }
    }

    fn select(&mut self, row: usize) {
        let rows = self.rows();
        let row = row.min(rows.len().saturating_sub(1));
        let key = rows.get(row).map(|(opener, _)| OpenerKey::of(opener));
        self.selected_row = row;
        // The first row again: whoever is there.
        self.selected = key.filter(|_| row > 0);
        self.show_selected();
    }

    /// The selected opener may have another row now, or none.
    fn find_selected(&mut self) {
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        self.selected_row = match &self.selected {
            None => 0,
            Some(key) => rows
                .iter()
                .position(|(opener, _)| OpenerKey::of(opener) == *key)
                .unwrap_or(self.selected_row.min(last)),
        };
        self.show_selected();
    }

    fn show_selected(&mut self) {
        let last_first = self.selected_row;
        let least_first = (self.selected_row + 1).saturating_sub(self.page_lines);
        self.first_row = self.first_row.clamp(least_first, last_first);
    }

    fn scroll_to(&mut self, line: usize) {
        let last = self.content_lines.saturating_sub(self.page_lines);
        if let Page::Opener { first_line, .. } = &mut self.page {
            *first_line = line.min(last);
        }
    }

    /// What the screen has room for, and how much there is to show on it.
    pub(super) fn fit(&mut self, page_lines: usize, content_lines: usize) {
        self.page_lines = page_lines.max(1);
        self.content_lines = content_lines;
        match self.page {
            Page::Openers => {
                let last_first = content_lines.saturating_sub(self.page_lines);
                self.first_row = self.first_row.min(last_first);
                self.show_selected();
            }
            Page::Opener { first_line, .. } => self.scroll_to(first_line),
        }
    }
}

/// Where a key moves from line `at`; `None` if it moves nothing.
fn moved(at: usize, key: Key, page_lines: usize) -> Option<usize> {
    Some(match key {
        Key::Up | Key::Char('k') => at.saturating_sub(1),
        Key::Down | Key::Char('j') => at.saturating_add(1),
        Key::PageUp => at.saturating_sub(page_lines),
        Key::PageDown => at.saturating_add(page_lines),
        Key::Home => 0,
        Key::End | Key::Char('G') => usize::MAX,
        _ => return None,
    })
}

//! The paint: how things look with colours and without, with all characters and with ASCII.

use ratatui::{
    style::{Color, Modifier, Style},
    symbols::bar,
    text::{Line, Span},
};

use crate::policy::level::Level;

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    pub color: bool,
    /// Characters beyond ASCII.
    pub unicode: bool,
}

/// Nine heights of a bar, for terminals that have nothing but ASCII.
const ASCII_BARS: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "*",
    five_eighths: "+",
    half: "=",
    three_eighths: "-",
    one_quarter: ":",
    one_eighth: ".",
    empty: " ",
};

impl Paint {
    pub(super) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Of the row that keys are about: it must be seen without colours, too.
    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn heading(self) -> Style {
        self.colored(Color::Cyan)
    }

    pub(super) fn alarm(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn level(self, level: Level) -> Style {
        match level {
            Level::Healthy => self.colored(Color::Green),
            Level::Warning => self.colored(Color::Yellow),
            Level::Leak => self.colored(Color::LightRed),
            Level::Critical => self.colored(Color::Red),
        }
    }

    /// A style of the report's table.
    pub(super) fn of_table(self, style: anstyle::Style) -> Style {
        let effects = style.get_effects();
        let color = match style.get_fg_color() {
            Some(anstyle::Color::Ansi(anstyle::AnsiColor::Cyan)) => Some(Color::Cyan),
            Some(anstyle::Color::Ansi(anstyle::AnsiColor::Yellow)) => Some(Color::Yellow),
            Some(anstyle::Color::Ansi(anstyle::AnsiColor::Red)) => Some(Color::Red),
            _ => None,
        };
        let mut painted = color.map_or_else(Style::new, |color| self.colored(color));
        for (effect, modifier) in [
            (anstyle::Effects::BOLD, Modifier::BOLD),
            (anstyle::Effects::DIMMED, Modifier::DIM),
        ] {
            if effects.contains(effect) {
                painted = painted.add_modifier(modifier);
            }
        }
        painted
    }

    pub(super) fn bars(self) -> bar::Set<'static> {
        if self.unicode {
            bar::NINE_LEVELS
        } else {
            ASCII_BARS
        }
    }

    /// `q quit  ? help`
    pub(super) fn keys(self, keys: &[(&'static str, &'static str)]) -> Line<'static> {
        let spans = keys.iter().flat_map(|&(key, what)| {
            [
                Span::styled(key, self.bold()),
                Span::raw(" "),
                Span::raw(what),
                Span::raw("  "),
            ]
        });
        Line::from_iter(spans)
    }

    fn colored(self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }
}

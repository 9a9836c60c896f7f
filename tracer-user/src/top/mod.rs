//! Top: the openers live in a terminal. Samples and keys go into the `view`, which is pure; `draw`
//! puts it on a screen of any size; `screen` is the terminal, and gives it back as it was.

mod draw;
mod history;
mod key;
mod order;
mod sample;
mod screen;
mod view;
#[cfg(test)]
mod view_tests;

pub use draw::{Paint, draw};
pub use key::Key;
pub use sample::{Origin, Sample};
pub use screen::Screen;
pub use view::{Effect, View};

//! The screen of `top` in a real terminal: what a panic leaves behind.
//!
//! Each test runs itself once more inside a terminal, where it takes the screen and panics.

use std::{
    env,
    io::{self, Read},
    thread,
};

use anyhow::{Context, Result, ensure};
use connleak::top::Screen;
use connleak_tests::tmux::Tmux;

/// Set for the run inside the terminal.
const INSIDE: &str = "CONNLEAK_TEST_SCREEN";
const WORDS: &str = "somebody asked for a panic";

/// A terminal in which `test` has the screen, and panics when a key comes.
fn terminal(test: &str) -> Result<Tmux> {
    let program = env::current_exe()?;
    let program = program.to_str().context("a path of text")?;
    let tmux = Tmux::start(100, 30)?;
    tmux.run(&format!("{INSIDE}=1 {program} --exact {test} --nocapture"))?;
    tmux.shows("the screen is taken")?;
    ensure!(tmux.variable("alternate_on")? == "1");
    Ok(tmux)
}

fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

fn take_the_screen() -> Result<Screen> {
    let mut screen = Screen::enter()?;
    show(&mut screen, "the screen is taken")?;
    Ok(screen)
}

fn show(screen: &mut Screen, words: &str) -> Result<()> {
    Ok(screen.draw(|frame| frame.render_widget(words, frame.area()))?)
}

fn wait_for_a_key() -> Result<()> {
    Ok(io::stdin().read_exact(&mut [0])?)
}

#[test]
fn a_panic_gives_the_terminal_back_before_its_words() -> Result<()> {
    if is_inside() {
        let _screen = take_the_screen()?;
        wait_for_a_key()?;
        panic!("{WORDS}");
    }
    let tmux = terminal("a_panic_gives_the_terminal_back_before_its_words")?;
    tmux.press("x")?;
    tmux.shows(WORDS)?;
    tmux.is_restored()
}

#[test]
fn a_panic_of_another_thread_leaves_the_screen_alone_and_is_told_after_it() -> Result<()> {
    if is_inside() {
        let mut screen = take_the_screen()?;
        wait_for_a_key()?;
        let _ = thread::spawn(|| panic!("{WORDS}")).join();
        show(&mut screen, "the thread has ended")?;
        wait_for_a_key()?;
        drop(screen);
        return Ok(());
    }
    let tmux = terminal("a_panic_of_another_thread_leaves_the_screen_alone_and_is_told_after_it")?;
    tmux.press("x")?;
    let lines = tmux.shows("the thread has ended")?;
    ensure!(lines.concat() == "the thread has ended", "{lines:#?}");
    tmux.press("x")?;
    tmux.shows(WORDS)?;
    tmux.is_restored()
}

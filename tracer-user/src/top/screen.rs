//! The screen: the terminal while `top` has it. However `top` ends, the terminal is as it was,
//! but for SIGKILL, after which nobody is left to do it (`reset` does).

use std::{
    io::{self, Stdout, Write, stdout},
    mem, panic,
    sync::{Mutex, Once, PoisonError},
    thread::{self, ThreadId},
};

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

/// The thread that has the screen, and what others said of their panics meanwhile.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

struct Held {
    by: ThreadId,
    /// Words on the alternate screen would spoil it and be gone with it.
    panics: Vec<String>,
}

pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal on stdout: raw, on its alternate screen, without cursor.
    ///
    /// # Errors
    ///
    /// stdout is no terminal, or does not take what is written.
    pub fn enter() -> io::Result<Self> {
        hook_panics();
        take()?;
        // From here on it is given back, whatever fails.
        let guard = Guard;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        mem::forget(guard);
        Ok(Self { terminal })
    }

    /// # Errors
    ///
    /// The terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Makes the next drawing write every cell.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Stops this process, as Ctrl-Z is expected to, and goes on when it is continued.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // SAFETY: raise has no memory effects. SIGTSTP is not handled: the process stops in it.
        unsafe { libc::raise(libc::SIGTSTP) };
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    *held() = Some(Held {
        by: thread::current().id(),
        panics: Vec::new(),
    });
    execute!(stdout(), EnterAlternateScreen, Hide).inspect_err(|_| give_back())
}

/// Once: the second time there is nothing to give.
fn give_back() {
    let Some(held) = held().take() else {
        return;
    };
    // Where the terminal is gone there is nothing to restore.
    let _ = execute!(stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
    for panic in held.panics {
        let _ = writeln!(io::stderr(), "{panic}");
    }
}

fn held() -> std::sync::MutexGuard<'static, Option<Held>> {
    // A panic in between leaves nothing half done.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic's words come before any destructor runs: the screen must be given back before them.
fn hook_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let of_another = match &mut *held() {
                Some(held) if held.by != thread::current().id() => {
                    held.panics.push(panic.to_string());
                    true
                }
                _ => false,
            };
            if !of_another {
                give_back();
                say(panic);
            }
        }));
    });
}

//! A pseudo-terminal, to see what a terminal would be told.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::{child, wait};

/// A program on a terminal of its own, and every byte it wrote there.
pub struct OnTerminal {
    child: Child,
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl OnTerminal {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let (mut main, mut sub) = (-1, -1);
        let size = libc::winsize {
            ws_row: 50,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: both fds are out-parameters; name and termios may be null; size outlives the call.
        let rc = unsafe {
            libc::openpty(
                &raw mut main,
                &raw mut sub,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        ensure!(
            rc == 0,
            "failed to open a terminal: {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: openpty gave us both fds; each has one owner from here on.
        let (mut main, sub) = unsafe { (File::from_raw_fd(main), OwnedFd::from_raw_fd(sub)) };
        let child = child::bound(command)
            .stdin(Stdio::from(sub.try_clone()?))
            .stdout(Stdio::from(sub.try_clone()?))
            .stderr(Stdio::from(sub))
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        // The command keeps our copies of the terminal's end; they must close for EOF to come.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut part = [0u8; 4096];
            while let Ok(length @ 1..) = main.read(&mut part) {
                if let Ok(mut seen) = seen.lock() {
                    seen.extend_from_slice(&part[..length]);
                }
            }
        });
        Ok(Self {
            child,
            bytes,
            reader: Some(reader),
        })
    }

    /// Waits until `text` was written.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        wait::until(&format!("{text:?} on the terminal"), || {
            self.shown().contains(text).then_some(())
        })
        .with_context(|| format!("the terminal shows {:?}", self.shown()))
    }

    fn shown(&self) -> String {
        self.bytes
            .lock()
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// SIGINT, the end, and everything that was written.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        // SAFETY: kill has no memory effects; the child is not reaped yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        wait::until("the program ends", || self.child.try_wait().ok().flatten())?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(self.bytes.lock().map(|b| b.clone()).unwrap_or_default())
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

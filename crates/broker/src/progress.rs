//! How far long work has come, as a bar on a terminal.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use store::{Progress, Step};

/// Work that is over sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the bar is drawn, in times a second.
const RATE: u8 = 10;

/// A bar on standard error, once the work has taken a second; nothing where standard error is no
/// terminal.
#[derive(Debug)]
pub struct Bar {
    started: Instant,
    is_terminal: bool,
    shown: Mutex<Option<Shown>>,
}

#[derive(Debug)]
struct Shown {
    bar: ProgressBar,
    phase: &'static str,
}

impl Bar {
    /// A bar for work that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            is_terminal: std::io::stderr().is_terminal(),
            shown: Mutex::new(None),
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = shown.take() {
            shown.bar.finish_and_clear();
        }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Progress for Bar {
    fn at(&self, step: Step) {
        if !self.is_terminal || self.started.elapsed() < PATIENCE {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = shown.get_or_insert_with(|| Shown {
            bar: ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(RATE)),
            phase: "",
        });
        if shown.phase != step.phase {
            shown.phase = step.phase;
            // The template is a constant and sound; a plain bar would do as well.
            let template = "{msg:16} {bar:40} {percent:>3}% {eta:>6}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                shown.bar.set_style(style);
            }
            shown.bar.set_message(step.phase);
            shown.bar.reset();
        }
        shown.bar.set_length(step.total);
        shown.bar.set_position(step.done);
    }
}

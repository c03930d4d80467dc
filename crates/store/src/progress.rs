//! How far long work has come: for a bar on a terminal, or a line in a log.

/// Is told how far long work has come.
///
/// A closure is one. It is called often, from the thread that works, and so must be quick: what
/// draws a bar looks at its clock first.
///
/// ```
/// use store::{Progress, Step};
///
/// let progress = |step: Step| println!("{}: {} of {}", step.phase, step.done, step.total);
/// progress.at(Step { phase: "log", done: 1 << 20, total: 1 << 30 });
/// ```
pub trait Progress {
    /// The work is here now.
    fn at(&self, step: Step);
}

/// A place in long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is being done, in a word or two: `log`, `consume queues`, `index`.
    pub phase: &'static str,
    /// How much of the phase is done, mostly in bytes.
    pub done: u64,
    /// How much the phase is in all; 0 when nobody knows yet.
    pub total: u64,
}

impl<F: Fn(Step)> Progress for F {
    fn at(&self, step: Step) {
        self(step);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn at(&self, _step: Step) {}
}

//! Which operations of the simulated device fail.

use std::io;

/// The operations that will fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Rule>,
    /// How many operations were asked for, failed ones included.
    pub(super) operation_count: u64,
}

#[derive(Debug)]
struct Rule {
    /// Name of an operation, or `*` for all.
    op: String,
    /// How many more of them succeed.
    spared: u64,
    effect: Effect,
    span: Span,
}

/// What a rule does to the operation that it strikes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    /// It fails, and has done nothing.
    Fail(io::ErrorKind),
    /// Its caller's thread panics.
    Panic,
}

/// How often a rule strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Once,
    Forever,
}

impl Faults {
    /// Strikes the `nth` (from 1) operation `op` from now on.
    pub(super) fn add(&mut self, op: &str, nth: u64, effect: Effect, span: Span) {
        assert!(nth > 0, "operations are counted from 1");
        self.rules.push(Rule {
            op: op.to_owned(),
            spared: nth - 1,
            effect,
            span,
        });
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Counts an operation; an error if it is to fail.
    ///
    /// # Panics
    /// If a rule says so.
    pub(super) fn check(&mut self, op: &str) -> Result<(), io::Error> {
        self.operation_count += 1;
        let mut struck = None;
        self.rules.retain_mut(|rule| {
            if rule.op != "*" && rule.op != op {
                return true;
            }
            if rule.spared > 0 {
                rule.spared -= 1;
                return true;
            }
            struck.get_or_insert(rule.effect);
            rule.span == Span::Forever
        });
        match struck {
            Some(Effect::Fail(kind)) => {
                Err(io::Error::new(kind, "injected by the simulated device"))
            }
            Some(Effect::Panic) => panic!("`{op}`: injected by the simulated device"),
            None => Ok(()),
        }
    }
}

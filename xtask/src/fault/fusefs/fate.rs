//! What becomes of each unsynced change when the power is cut.

use mmap_core::Random;

/// What becomes of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Survives,
    Vanishes,
    /// Some of its sectors survive.
    Tears,
}

/// How a cut is inclined: a device that wrote nothing back, everything, or some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Nothing,
    Everything,
    Some,
}

/// Decides, and counts what was decided.
#[derive(Debug)]
pub(super) struct Fates {
    random: Random,
    mood: Mood,
    pub(super) damage: Damage,
}

/// What power cuts did to a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Unsynced pages that were on the device all the same.
    pub pages_survived: u64,
    /// Unsynced pages that were not.
    pub pages_vanished: u64,
    /// Unsynced pages of which only some sectors were.
    pub pages_torn: u64,
    /// Unsynced changes of names that were on the device all the same.
    pub names_survived: u64,
    /// Unsynced changes of names that were not.
    pub names_vanished: u64,
}

impl Fates {
    pub(super) fn new(mut random: Random) -> Self {
        let mood = match random.below(6) {
            0 => Mood::Nothing,
            1 => Mood::Everything,
            _ => Mood::Some,
        };
        Self {
            random,
            mood,
            damage: Damage::default(),
        }
    }

    pub(super) fn of_page(&mut self) -> Fate {
        let fate = match (self.mood, self.random.below(3)) {
            (Mood::Nothing, _) | (Mood::Some, 0) => Fate::Vanishes,
            (Mood::Everything, _) | (Mood::Some, 1) => Fate::Survives,
            _ => Fate::Tears,
        };
        match fate {
            Fate::Survives => self.damage.pages_survived += 1,
            Fate::Vanishes => self.damage.pages_vanished += 1,
            Fate::Tears => self.damage.pages_torn += 1,
        }
        fate
    }

    pub(super) fn of_sector(&mut self) -> Fate {
        self.either()
    }

    pub(super) fn of_length(&mut self) -> Fate {
        match self.mood {
            Mood::Nothing => Fate::Vanishes,
            Mood::Everything => Fate::Survives,
            Mood::Some => self.either(),
        }
    }

    /// How many of the unsynced changes of names survive: the first ones, as a journal has it.
    pub(super) fn names_kept(&mut self, count: usize) -> usize {
        let kept = match self.mood {
            Mood::Nothing => 0,
            Mood::Everything => count,
            Mood::Some => self.random.below(count as u64 + 1) as usize,
        };
        self.damage.names_survived += kept as u64;
        self.damage.names_vanished += (count - kept) as u64;
        kept
    }

    fn either(&mut self) -> Fate {
        if self.random.once_in(2) {
            Fate::Survives
        } else {
            Fate::Vanishes
        }
    }
}

impl std::ops::AddAssign for Damage {
    fn add_assign(&mut self, other: Self) {
        self.pages_survived += other.pages_survived;
        self.pages_vanished += other.pages_vanished;
        self.pages_torn += other.pages_torn;
        self.names_survived += other.names_survived;
        self.names_vanished += other.names_vanished;
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "unsynced pages: {} vanished, {} torn, {} survived; unsynced names: {} vanished, {} \
             survived",
            self.pages_vanished,
            self.pages_torn,
            self.pages_survived,
            self.names_vanished,
            self.names_survived,
        )
    }
}

//! The bytes of one file, in pages that are shared until they are written.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::fate::{Fate, Fates};

/// Bytes of a page: the unit that survives or vanishes.
pub(super) const PAGE_LEN: usize = 4096;
/// Bytes of a sector: the unit in which a page tears.
pub(super) const SECTOR_LEN: usize = 512;

pub(super) type Page = Arc<[u8; PAGE_LEN]>;

/// What every page is that was allocated and not written.
static ZERO_PAGE: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE_LEN]));

/// Length, allocated pages and time of one file. Cloning it shares the pages, so that two states
/// of a file differ exactly where their pages are not the same allocation.
#[derive(Clone, Debug)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Page>,
    pub(super) modified: SystemTime,
}

impl Content {
    pub(super) fn empty() -> Self {
        Self {
            len: 0,
            pages: BTreeMap::new(),
            modified: SystemTime::now(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Pages that take space.
    pub(super) fn page_count(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Pages of a range that take no space yet.
    pub(super) fn missing(&self, offset: u64, len: u64) -> u64 {
        let span = pages_of(offset, len);
        let present = self.pages.range(span.clone()).count() as u64;
        span.end - span.start - present
    }

    /// The bytes of a range, up to the end of the file.
    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len as u64).min(self.len);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        for_each_page(offset, bytes.len(), |index, within, from, len| {
            if let Some(page) = self.pages.get(&index) {
                bytes[from..from + len].copy_from_slice(&page[within..within + len]);
            }
        });
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for_each_page(offset, bytes.len(), |index, within, from, len| {
            let page = self.pages.entry(index).or_insert_with(|| ZERO_PAGE.clone());
            Arc::make_mut(page)[within..within + len].copy_from_slice(&bytes[from..from + len]);
        });
        self.len = self.len.max(offset + bytes.len() as u64);
        self.modified = SystemTime::now();
    }

    /// Gives a range its pages without changing what it reads as.
    pub(super) fn allocate(&mut self, offset: u64, len: u64) {
        for index in pages_of(offset, len) {
            self.pages.entry(index).or_insert_with(|| ZERO_PAGE.clone());
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.cut_to(len);
        self.len = len;
        self.modified = SystemTime::now();
    }

    /// Frees what lies behind `len`, and zeroes the rest of the page it lies in.
    fn cut_to(&mut self, len: u64) {
        let kept = len.div_ceil(PAGE_LEN as u64);
        self.pages.split_off(&kept);
        let within = (len % PAGE_LEN as u64) as usize;
        if within > 0
            && let Some(page) = self.pages.get_mut(&(kept - 1))
            && page[within..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(page)[within..].fill(0);
        }
    }

    /// A sync's work: this becomes what `synced` was, except for pages in `lost`, which a failed
    /// sync has given up and which were not written since.
    pub(super) fn take_synced(&mut self, synced: &Self, lost: &mut BTreeMap<u64, Page>) {
        let mut pages = synced.pages.clone();
        lost.retain(|index, page| {
            let is_same = |current: &Page| Arc::ptr_eq(current, page);
            let is_lost = pages.get(index).is_some_and(is_same);
            if is_lost {
                let durable = self.pages.get(index).unwrap_or(&ZERO_PAGE);
                pages.insert(*index, durable.clone());
            }
            is_lost
        });
        self.len = synced.len;
        self.modified = synced.modified;
        self.pages = pages;
    }

    /// The pages that differ from those of `durable`.
    pub(super) fn unsynced(&self, durable: &Self) -> BTreeMap<u64, Page> {
        let is_unsynced = |(index, page): &(&u64, &Page)| {
            let same = |durable: &Page| Arc::ptr_eq(durable, page);
            !durable.pages.get(index).is_some_and(same)
        };
        let pages = self.pages.iter().filter(is_unsynced);
        pages.map(|(index, page)| (*index, page.clone())).collect()
    }

    /// What a power cut leaves of a file whose synced state is `durable` and whose last state is
    /// this. A new length is an unsynced change like a page's.
    pub(super) fn after_cut(&self, durable: &Self, fates: &mut Fates) -> Self {
        let mut left = durable.clone();
        if self.len != durable.len && fates.of_length() == Fate::Survives {
            left.len = self.len;
        }
        let mut indexes: Vec<u64> = durable
            .pages
            .keys()
            .chain(self.pages.keys())
            .copied()
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        for index in indexes {
            let (old, new) = (durable.pages.get(&index), self.pages.get(&index));
            match (old, new) {
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
                (None, None) => {}
                (old, new) => match fates.of_page() {
                    Fate::Vanishes => {}
                    Fate::Survives => match new {
                        Some(new) => drop(left.pages.insert(index, new.clone())),
                        None => drop(left.pages.remove(&index)),
                    },
                    Fate::Tears => {
                        let old = old.unwrap_or(&ZERO_PAGE);
                        let new = new.unwrap_or(&ZERO_PAGE);
                        left.pages.insert(index, torn(old, new, fates));
                    }
                },
            }
        }
        left.cut_to(left.len);
        left
    }
}

/// A page of which each sector is the old or the new one.
fn torn(old: &Page, new: &Page, fates: &mut Fates) -> Page {
    let mut page = **old;
    for (sector, new) in page.chunks_mut(SECTOR_LEN).zip(new.chunks(SECTOR_LEN)) {
        if fates.of_sector() == Fate::Survives {
            sector.copy_from_slice(new);
        }
    }
    Arc::new(page)
}

fn pages_of(offset: u64, len: u64) -> std::ops::Range<u64> {
    let page_len = PAGE_LEN as u64;
    offset / page_len..offset.saturating_add(len).div_ceil(page_len)
}

/// Calls `act(page, position in it, position in the range, length)` for each piece of a range.
fn for_each_page(offset: u64, len: usize, mut act: impl FnMut(u64, usize, usize, usize)) {
    let mut from = 0;
    while from < len {
        let position = offset + from as u64;
        let within = (position % PAGE_LEN as u64) as usize;
        let piece = (PAGE_LEN - within).min(len - from);
        act(position / PAGE_LEN as u64, within, from, piece);
        from += piece;
    }
}

#[cfg(test)]
mod tests {
    use mmap_core::Random;

    use super::*;

    fn file(bytes: &[u8]) -> Content {
        let mut content = Content::empty();
        content.write(0, bytes);
        content
    }

    #[test]
    fn reads_what_was_written_and_zeros_elsewhere() {
        let mut content = Content::empty();
        content.write(4090, b"across the border");
        assert_eq!(content.len(), 4107);
        assert_eq!(content.read(4090, 100), b"across the border");
        assert_eq!(content.read(0, 10), [0; 10]);
        content.set_len(4094);
        content.set_len(5000);
        assert_eq!(content.read(4090, 8), b"acro\0\0\0\0");
        assert_eq!(content.missing(0, 3 * 4096), 2);
        content.allocate(0, 3 * 4096);
        assert_eq!((content.len(), content.page_count()), (5000, 3));
    }

    #[test]
    fn a_cut_leaves_old_or_new_pages_and_nothing_else() {
        let durable = file(&[1; 3 * PAGE_LEN]);
        let mut current = durable.clone();
        current.write(PAGE_LEN as u64, &[2; PAGE_LEN]);
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut fates = Fates::new(Random::new(seed));
            let left = current.after_cut(&durable, &mut fates);
            let bytes = left.read(0, 3 * PAGE_LEN);
            assert_eq!(bytes[..PAGE_LEN], [1; PAGE_LEN]);
            assert_eq!(bytes[2 * PAGE_LEN..], [1; PAGE_LEN]);
            let middle = &bytes[PAGE_LEN..2 * PAGE_LEN];
            for sector in middle.chunks(SECTOR_LEN) {
                assert!(sector == [1; SECTOR_LEN] || sector == [2; SECTOR_LEN]);
            }
            kinds.insert((middle.contains(&1), middle.contains(&2)));
        }
        assert_eq!(kinds.len(), 3, "survived, vanished and torn");
    }

    #[test]
    fn what_a_failed_sync_gave_up_stays_lost_until_it_is_written_again() {
        let mut durable = file(&[1; PAGE_LEN]);
        let mut current = durable.clone();
        current.write(0, &[2; 100]);
        let mut lost = current.unsynced(&durable);
        durable.take_synced(&current, &mut lost);
        assert_eq!(durable.read(0, 1), [1]);
        current.write(200, &[3]);
        durable.take_synced(&current, &mut lost);
        assert_eq!(durable.read(0, 1), [2]);
        assert!(lost.is_empty());
    }
}

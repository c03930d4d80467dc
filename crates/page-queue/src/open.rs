//! Opening: lock, state, pages, end, readers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mmap_core::Io;
use segment_queue::{
    FlushPolicy, PreallocateOptions, Preallocator, SegmentQueue, SegmentWriter, Truncation,
};

use crate::entry::ENTRY_LEN;
use crate::error::PageQueueError;
use crate::options::PageQueueOptions;
use crate::position::PositionFile;
use crate::push::Writer;
use crate::queue::{Front, Kept, PageQueue, Shared};
use crate::reader::{Place, is_reader_name};
use crate::recover::{Found, Pages};
use crate::state::{Mark, State};

/// Bytes ahead of the writer that [`PageQueue::step`] faults in, at most.
const PREPARE_LEN: u64 = 1 << 20;

/// Bytes written again at a time.
const REWRITE_LEN: u64 = 8 << 20;

/// What opening a queue found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// The first item held.
    pub first: u64,
    /// The number behind the last item.
    pub end: u64,
    /// The queue was closed, so that nothing had to be checked.
    pub was_closed: bool,
    /// Items whose bytes were checked to find the end.
    pub checked_count: u64,
    /// Bytes behind the last item, in its pages, that were not zero and are now, in whole blocks.
    pub cut_len: u64,
    /// Pages behind it that were removed; some of them were only prepared.
    pub removed_page_count: u64,
    /// Readers whose positions lay behind the end, because items that they had read are lost, and
    /// were set back to it.
    pub readers_set_back: Vec<String>,
}

/// A pages' queue and its writer.
type Opened<I> = (Arc<SegmentQueue<I>>, SegmentWriter<I>);

impl<I: Io> PageQueue<I> {
    /// Opens a queue, and makes it if there is none. If it was not closed, its end is found by
    /// checking the items behind the last mark, and what lies behind is cleared.
    ///
    /// # Errors
    /// [`PageQueueError::Locked`] if it is open elsewhere, [`PageQueueError::OtherSizes`],
    /// damage that leaves no way to tell what was there, and those of reading.
    pub fn open(io: I, options: &PageQueueOptions) -> Result<(Self, OpenReport), PageQueueError> {
        options.validate()?;
        let dir = &options.dir;
        io.create_dir_all(dir)?;
        let directory_lock = io.lock(&dir.join("lock"))?;
        let stored = State::load(&io, dir)?;
        if let Some(state) = &stored {
            check_sizes(state, options)?;
        }
        let (items, mut item_writer) = SegmentQueue::open(io.clone(), &options.items())?;
        let (index, mut index_writer) = open_index(&io, options, stored.as_ref(), &items)?;
        let pages = Pages {
            items: &items,
            index: &index,
        };
        let was_closed = stored.is_some_and(|state| state.is_closed);
        let found = find_end(&pages, options, stored.as_ref())?;
        let end = found.end;
        let mut cut = Truncation::default();
        if was_closed {
            item_writer.resume(end.item_end)?;
            index_writer.resume(end.number * ENTRY_LEN)?;
        } else {
            // Items must not outlive the first page of the index, which a killed process may have
            // left without a durable name.
            index.sync_names()?;
            let of_items = item_writer.truncate(end.item_end)?;
            let of_index = index_writer.truncate(end.number * ENTRY_LEN)?;
            cut = Truncation {
                zeroed_len: of_items.zeroed_len + of_index.zeroed_len,
                removed_count: of_items.removed_count + of_index.removed_count,
            };
            let (number, item_end) = stored.map_or((found.first, 0), |state| {
                (state.mark.number, state.mark.item_end)
            });
            make_durable(&mut item_writer, item_end, end.item_end)?;
            make_durable(
                &mut index_writer,
                number * ENTRY_LEN,
                end.number * ENTRY_LEN,
            )?;
        }
        let state = State {
            page_len: options.page_len,
            index_page_items: options.index_page_items,
            first: found.first,
            mark: end,
            is_closed: false,
        };
        if stored != Some(state) {
            state.save(&io, dir)?;
        }
        let (readers, readers_set_back) = load_readers(&io, dir, &end, was_closed)?;
        let shared = Shared {
            first: AtomicU64::new(found.first),
            published: AtomicU64::new(end.number),
            durable: AtomicU64::new(end.number),
            front: Mutex::new(Front {
                first: found.first,
                item_offset: 0,
            }),
            writer: Mutex::new(Some(Writer {
                items: item_writer,
                index: index_writer,
                end,
            })),
            keeping: Mutex::new(Kept {
                state,
                durable: end,
                flushed_at: Duration::ZERO,
            }),
            is_led: Mutex::new(false),
            led: Condvar::new(),
            preallocators: Mutex::new([preallocator(&items), preallocator(&index)]),
            readers: Mutex::new(readers),
            options: options.clone(),
            items,
            index,
            io,
            _directory_lock: directory_lock,
        };
        let queue = Self {
            shared: Arc::new(shared),
        };
        queue.shared.move_front(found.first)?;
        let report = OpenReport {
            first: found.first,
            end: end.number,
            was_closed,
            checked_count: found.checked_count,
            cut_len: cut.zeroed_len,
            removed_page_count: cut.removed_count,
            readers_set_back,
        };
        Ok((queue, report))
    }
}

fn check_sizes(state: &State, options: &PageQueueOptions) -> Result<(), PageQueueError> {
    let pairs = [
        ("page_len", state.page_len, options.page_len),
        (
            "index_page_items",
            state.index_page_items,
            options.index_page_items,
        ),
    ];
    for (field, stored, configured) in pairs {
        if stored != configured {
            return Err(PageQueueError::OtherSizes {
                dir: options.dir.clone(),
                field,
                stored,
                configured,
            });
        }
    }
    Ok(())
}

/// Opens the index. That of a new queue gets its first page, so that the queue has a beginning that
/// need not be that of a page.
fn open_index<I: Io>(
    io: &I,
    options: &PageQueueOptions,
    stored: Option<&State>,
    items: &SegmentQueue<I>,
) -> Result<Opened<I>, PageQueueError> {
    let first = stored.map_or(options.first_number, |state| state.first);
    let index_options = options.index(first);
    let (index, mut writer) = SegmentQueue::open(io.clone(), &index_options)?;
    if !index.segments().is_empty() {
        return Ok((index, writer));
    }
    if !items.segments().is_empty() || stored.is_some_and(|state| state.mark.number > first) {
        return Err(PageQueueError::MissingPages {
            dir: index_options.dir,
            what: "all of the index",
        });
    }
    if stored.is_none() {
        let mark = Mark {
            number: first,
            item_end: 0,
            time_ms: i64::MIN,
        };
        let state = State {
            page_len: options.page_len,
            index_page_items: options.index_page_items,
            first,
            mark,
            is_closed: false,
        };
        state.save(io, &options.dir)?;
    }
    writer.roll()?;
    drop(writer);
    Ok(SegmentQueue::open(io.clone(), &index_options)?)
}

fn find_end<I: Io>(
    pages: &Pages<'_, I>,
    options: &PageQueueOptions,
    stored: Option<&State>,
) -> Result<Found, PageQueueError> {
    let index_min = pages.index.min_offset() / ENTRY_LEN;
    let Some(state) = stored else {
        // A queue made just now, whose page begins before it does; or one that lost its state.
        let is_new = pages.items.segments().is_empty();
        let first = if is_new {
            index_min.max(options.first_number)
        } else {
            index_min
        };
        return pages.find_end(first, None);
    };
    let mark = state.mark;
    let missing = |dir: &str, what| {
        Err(PageQueueError::MissingPages {
            dir: options.dir.join(dir),
            what,
        })
    };
    if mark.number * ENTRY_LEN > pages.index.published() {
        return missing("index", "the last ones");
    }
    if mark.item_end > pages.items.published() {
        return missing("items", "the last ones");
    }
    if mark.number > state.first && mark.number * ENTRY_LEN <= pages.index.min_offset() {
        return missing("index", "the first ones");
    }
    let first = state.first.max(index_min).min(mark.number);
    if state.is_closed {
        return Ok(Found {
            first,
            end: mark,
            checked_count: 0,
        });
    }
    pages.find_end(first, Some(mark))
}

/// Makes the bytes between two offsets durable, which a killed process may have left in the page
/// cache only. They are written again: if a sync of that process has failed, the kernel counts them
/// as clean though they never reached the device.
fn make_durable<I: Io>(
    writer: &mut SegmentWriter<I>,
    from: u64,
    end: u64,
) -> Result<(), PageQueueError> {
    let queue = Arc::clone(writer.queue());
    let mut from = from.max(queue.min_offset());
    writer.mark_unflushed(from);
    let mut bytes = Vec::new();
    while from < end {
        let in_page = queue.segment_len() - from % queue.segment_len();
        bytes.resize((end - from).min(in_page).min(REWRITE_LEN) as usize, 0);
        queue.read_exact_at(from, &mut bytes)?;
        writer.overwrite(from, &bytes)?;
        from += bytes.len() as u64;
    }
    queue.flush(FlushPolicy::All)?;
    Ok(())
}

fn preallocator<I: Io>(queue: &Arc<SegmentQueue<I>>) -> Preallocator<I> {
    let page_len = queue.segment_len();
    let options = PreallocateOptions {
        count: 1,
        window: PREPARE_LEN.min(page_len / 4),
        ..PreallocateOptions::for_segment_len(page_len)
    };
    Preallocator::new(Arc::clone(queue), options)
}

/// Reads the readers' positions; those behind the end are set back, durably, before the numbers
/// that they skip are given out again.
#[expect(clippy::type_complexity, reason = "what it makes, once")]
fn load_readers<I: Io>(
    io: &I,
    queue_dir: &Path,
    end: &Mark,
    was_closed: bool,
) -> Result<(BTreeMap<String, Arc<Place<I>>>, Vec<String>), PageQueueError> {
    let dir = queue_dir.join("readers");
    let entries = match io.list(&dir) {
        Err(error) if error.is_not_found() => Vec::new(),
        entries => entries?,
    };
    if !was_closed && !entries.is_empty() {
        // A killed process may have left their names in the page cache only.
        io.sync_dir(&dir)?;
        io.sync_dir(queue_dir)?;
    }
    let (mut readers, mut set_back) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let Some(name) = entry.name.to_str().filter(|name| is_reader_name(name)) else {
            continue;
        };
        let (mut file, mut position) = PositionFile::open(io, dir.join(name))?;
        if position > end.number {
            position = end.number;
            file.write(position)?;
            file.sync()?;
            set_back.push(name.to_owned());
        }
        readers.insert(name.to_owned(), Arc::new(Place::new(file, position)));
    }
    Ok((readers, set_back))
}

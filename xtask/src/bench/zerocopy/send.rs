//! From a file to a socket: the four ways of `mmap_core::transfer`, for a consumer whose records
//! lie together, or between those of other queues.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mmap_core::transfer::{FileRange, Way, send_copied, send_files, send_gathered, send_mapped};
use mmap_core::{AppendRegion, RawMap};

use super::super::cost;
use super::super::files::{Blocks, TestFile, size};
use super::super::report::{Column, Common, Plot, Report, Table};
use super::{CPU, RATE};

const RECORD_LEN: u64 = 1 << 10;
const CHUNKS: [u64; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const COLD_CHUNKS: [u64; 2] = [4 << 10, 64 << 10];
/// Queues whose records take turns in the file; the first of them is read.
const QUEUES: [u64; 3] = [1, 11, 1001];
const RUN_LIMIT: Duration = Duration::from_millis(700);

const READ: Column = Column::median("read from the device, bytes per byte sent");
const SENT: Column = Column::median("sent, MiB");

const HOT: &str = "The file is in the page cache and mapped, with all entries present. `together`: \
the records (1 KiB) of one queue are one range of the file, which `map`, `copy` and `sendfile` take \
as a whole; `gather` is given the records one by one (a broker that joins neighbours makes of it \
what `map` is). `between 10` and `between 1000` other queues each record is a range of its own: a \
`sendfile`, a `write` from the mapping or a `pread` for each, or one `writev` for 64.";
const COLD: &str = "The file is dropped from the page cache before each run, and one consumer reads \
its queue from the beginning, for 0.7 s at most. What the device reads for each byte that is sent \
is the price of a log that all queues share, and of read-ahead that guesses wrong.";

/// Measures and reports both states.
pub(super) fn measure(common: &Common, len: u64, report: &mut Report) -> Result<()> {
    let dir = common.scratch()?;
    let file = TestFile::create(dir.path(), "records", len, Blocks::Written)?;
    let mut sink = Sink::start()?;
    let mut hot = Table::new("File to socket, cached", &["chunk", "records", "way"]);
    let mut cold = Table::new("File to socket, cold", &["chunk", "records", "way"]);
    let region = file.region()?;
    region.map().populate_read(0..region.len())?;
    for round in 0..common.rounds() {
        eprintln!("file to socket, cached, round {}", round + 1);
        each_run(common, &CHUNKS, |chunk, queues, way| {
            let sent = Run {
                file: &file,
                chunk,
                queues,
                way,
            }
            .send(&region, len / 16, &mut sink)?;
            sent.add(&mut hot, chunk, queues, way);
            Ok(())
        })?;
    }
    drop(region);
    for round in 0..common.rounds() {
        eprintln!("file to socket, cold, round {}", round + 1);
        each_run(common, &COLD_CHUNKS, |chunk, queues, way| {
            file.drop_cache()?;
            let region = file.region()?;
            let before = cost::device_bytes_read()?;
            let sent = Run {
                file: &file,
                chunk,
                queues,
                way,
            }
            .send(&region, len, &mut sink)?;
            let read = cost::device_bytes_read()? - before;
            let labels = labels(chunk, queues, way);
            let labels = labels.each_ref().map(String::as_str);
            sent.add(&mut cold, chunk, queues, way);
            if sent.bytes > 0 {
                cold.add(&labels, READ, read as f64 / sent.bytes as f64);
                cold.add(&labels, SENT, sent.bytes as f64 / f64::from(1 << 20));
            }
            Ok(())
        })?;
    }
    report.plot(
        Plot::lines(
            "cpu",
            "Processor time to send from the page cache",
            &hot,
            CPU,
            0,
        )
        .log(),
    );
    report.table(hot);
    report.text(HOT);
    report.plot(
        Plot::bars(
            "cold",
            "Reading a queue that is not in memory",
            &cold,
            RATE,
            1,
        )
        .log(),
    );
    report.table(cold);
    report.text(COLD);
    sink.finish()
}

fn each_run(
    common: &Common,
    chunks: &[u64],
    mut run: impl FnMut(u64, u64, Way) -> Result<()>,
) -> Result<()> {
    for chunk in chunks {
        for queues in QUEUES {
            for way in Way::ALL {
                if common.wants(&labels(*chunk, queues, way).join(", ")) {
                    run(*chunk, queues, way)?;
                }
            }
        }
    }
    Ok(())
}

fn labels(chunk: u64, queues: u64, way: Way) -> [String; 3] {
    let place = match queues {
        1 => "together".to_owned(),
        _ => format!("between {}", queues - 1),
    };
    [size(chunk), place, way.to_string()]
}

/// What a run came to.
struct Sent {
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
}

impl Sent {
    fn add(&self, table: &mut Table, chunk: u64, queues: u64, way: Way) {
        let labels = labels(chunk, queues, way);
        let labels = labels.each_ref().map(String::as_str);
        if self.bytes == 0 {
            // The file is too short for a chunk of so many queues.
            return;
        }
        let bytes = self.bytes as f64;
        table.add(&labels, RATE, bytes / 1e6 / self.elapsed.as_secs_f64());
        table.add(&labels, CPU, self.cpu.as_secs_f64() / (bytes / 1e9));
    }
}

/// Sends one queue's records, and then the next one's, chunk by chunk.
struct Run<'a> {
    file: &'a TestFile,
    chunk: u64,
    queues: u64,
    way: Way,
}

impl Run<'_> {
    fn send(&self, region: &AppendRegion, bytes_max: u64, sink: &mut Sink) -> Result<Sent> {
        let mut buf = vec![0; self.chunk as usize];
        let before = sink.received.load(Ordering::Acquire);
        let (started, cpu) = (Instant::now(), cost::thread_cpu());
        let mut bytes = 0;
        'queues: for queue in 0..self.queues {
            let mut record = 0;
            while let Some(places) = self.places(queue, record) {
                bytes += self.send_chunk(&places, region, &sink.socket, &mut buf)?;
                record += self.chunk / RECORD_LEN;
                if bytes >= bytes_max || started.elapsed() > RUN_LIMIT {
                    break 'queues;
                }
            }
            // A cold run is that of one consumer.
            if bytes_max == self.file.len() {
                break;
            }
        }
        let cpu = cost::thread_cpu().saturating_sub(cpu);
        while sink.received.load(Ordering::Acquire) - before < bytes {
            thread::yield_now();
        }
        let elapsed = started.elapsed();
        Ok(Sent {
            bytes,
            elapsed,
            cpu,
        })
    }

    /// Where the next chunk's records lie; `None` when the queue has no whole chunk any more.
    fn places(&self, queue: u64, first: u64) -> Option<Vec<(u64, u64)>> {
        let count = self.chunk / RECORD_LEN;
        let offset = |record: u64| (record * self.queues + queue) * RECORD_LEN;
        if offset(first + count - 1) + RECORD_LEN > self.file.len() {
            return None;
        }
        if self.queues == 1 && self.way != Way::Gather {
            return Some(vec![(offset(first), self.chunk)]);
        }
        let records = first..first + count;
        Some(records.map(|record| (offset(record), RECORD_LEN)).collect())
    }

    fn send_chunk(
        &self,
        places: &[(u64, u64)],
        region: &AppendRegion,
        socket: &TcpStream,
        buf: &mut Vec<u8>,
    ) -> Result<u64> {
        let ranges = || -> Vec<FileRange> {
            let range = |&(offset, len)| FileRange::new(Arc::clone(self.file.file()), offset, len);
            places.iter().map(range).collect()
        };
        let slices = || -> Result<Vec<&[u8]>> {
            let slice = |&(offset, len): &(u64, u64)| {
                let range = offset as usize..(offset + len) as usize;
                region.bytes(range).context("beyond the file")
            };
            places.iter().map(slice).collect()
        };
        Ok(match self.way {
            // One buffer for the whole chunk, as a broker would fill it, and one write.
            Way::Copy if places.len() > 1 => {
                buf.clear();
                for range in ranges() {
                    range.read_to(buf)?;
                }
                send_mapped(socket, &[&*buf])?
            }
            Way::Copy => send_copied(socket, &ranges(), buf)?,
            Way::SendFile => send_files(socket, &ranges())?,
            Way::Map => send_mapped(socket, &slices()?)?,
            Way::Gather => send_gathered(socket, &slices()?)?,
        })
    }
}

/// A connection whose other end reads and forgets.
struct Sink {
    socket: TcpStream,
    received: Arc<AtomicU64>,
    reader: JoinHandle<std::io::Result<()>>,
}

impl Sink {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        socket.set_nodelay(true)?;
        let (mut peer, _) = listener.accept()?;
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let reader = thread::spawn(move || {
            let mut buf = vec![0; 256 << 10];
            loop {
                let len = peer.read(&mut buf)?;
                if len == 0 {
                    return Ok(());
                }
                counter.fetch_add(len as u64, Ordering::Release);
            }
        });
        Ok(Self {
            socket,
            received,
            reader,
        })
    }

    fn finish(self) -> Result<()> {
        drop(self.socket);
        let ended = self.reader.join();
        ended
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?
            .context("the reader")
    }
}

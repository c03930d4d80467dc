//! `cargo xtask bench classic`: mapping against `write(2)` and `read(2)`, by units of a byte and
//! more, with the mapping's pages in every state that they can be in.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use mmap_core::{Advice, AppendRegion, Appender, IoFile, RawMap};

use super::cost::{self, Begun, Cost};
use super::files::{Blocks, TestFile, await_unmapped, size, sum};
use super::report::{Column, Common, Plot, Report, Table};

const UNITS: [usize; 4] = [1, 128, 4 << 10, 64 << 10];
/// After so many bytes the clock is looked at.
const LOOK_LEN: u64 = 1 << 20;
/// A run that would take longer is ended: a gigabyte of one-byte writes takes a quarter of an hour.
const RUN_LIMIT: Duration = Duration::from_millis(1500);

const RATE: Column = Column::spread("MB/s");
const NANOS: Column = Column::median("ns per unit");
const FAULTS: Column = Column::median("page faults per GiB");
const CPU: Column = Column::median("CPU s per GB");
const PREPARING: Column = Column::median("made ready, s per GiB");
const MEASURED: Column = Column::median("measured, MiB");

const ABOUT: &str = "A file is written from front to back by units of a size, and read in the same \
way. `pwrite` and `pread` are a system call for each unit; a mapping is written by a copy and one \
store that publishes the unit (`mmap_core::Appender`), and read as a slice. A run ends after 1.5 s: \
`measured` says how much of the file it came to. What it takes to bring the pages into their state \
is not in the rate but in `made ready`.

States of the file: **fresh** is allocated and never written; **cached** was written and is in the \
page cache; **cold** was dropped from it. States of the mapping: **new** has no page table entries; \
**populated** has them, writable, by MADV_POPULATE_WRITE; **locked** by mlock; **clean** was \
populated and then written back; **dropped** is a clean one whose entries were given up again \
(MADV_DONTNEED).";

/// What `cargo xtask bench classic` takes.
#[derive(Debug, Args)]
pub struct ClassicArguments {
    /// Length of the file in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    #[command(flatten)]
    common: Common,
}

impl ClassicArguments {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }
}

/// Runs the bench.
pub(super) fn run(arguments: &ClassicArguments) -> Result<()> {
    let common = &arguments.common;
    let mut report = Report::new("classic", "Mapping against write and read", common);
    report.text(ABOUT);
    let dir = common.scratch()?;
    let len = common.choose(arguments.mib << 20, 256 << 10);
    let mut written = Table::new(format!("Writing {}", size(len)), &["unit", "way"]);
    let mut read = Table::new(format!("Reading {}", size(len)), &["unit", "way"]);
    for round in 0..common.rounds() {
        for unit in UNITS {
            eprintln!("round {}, {}", round + 1, size(unit as u64));
            for way in Writing::ALL.iter().filter(|way| common.wants(way.name())) {
                let outcome = way.measure(dir.path(), len, unit)?;
                outcome.add(&mut written, unit, way.name());
            }
            measure_reading(common, dir.path(), len, unit, &mut read)?;
        }
    }
    report.plot(Plot::lines("writing", "Writing by units", &written, RATE, 0).log());
    report.plot(Plot::lines("reading", "Reading by units", &read, RATE, 0).log());
    report.table(written);
    report.table(read);
    report.finish(common)
}

/// What one run came to.
struct Outcome {
    bytes: u64,
    cost: Cost,
    preparing: Duration,
    file_len: u64,
}

impl Outcome {
    fn add(&self, table: &mut Table, unit: usize, way: &str) {
        let unit_name = size(unit as u64);
        let labels = [unit_name.as_str(), way];
        let per_gib = |value: f64, bytes: u64| value * (1_u64 << 30) as f64 / bytes as f64;
        let units = self.bytes as f64 / unit as f64;
        let faults = self.cost.minor_faults + self.cost.major_faults;
        table.add(&labels, RATE, self.cost.megabytes_per_second(self.bytes));
        table.add(
            &labels,
            NANOS,
            self.cost.elapsed.as_secs_f64() * 1e9 / units,
        );
        table.add(&labels, FAULTS, per_gib(faults as f64, self.bytes));
        table.add(&labels, CPU, self.cost.cpu_per_gigabyte(self.bytes));
        let preparing = self.preparing.as_secs_f64();
        table.add(&labels, PREPARING, per_gib(preparing, self.file_len));
        table.add(&labels, MEASURED, self.bytes as f64 / f64::from(1 << 20));
    }
}

/// How bytes get into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Call(Blocks),
    New(Blocks),
    Populated,
    Locked,
    Clean,
    Dropped,
}

impl Writing {
    const ALL: [Self; 8] = [
        Self::Call(Blocks::Allocated),
        Self::Call(Blocks::Written),
        Self::New(Blocks::Allocated),
        Self::New(Blocks::Written),
        Self::Populated,
        Self::Locked,
        Self::Clean,
        Self::Dropped,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Call(Blocks::Allocated) => "pwrite, fresh",
            Self::Call(Blocks::Written) => "pwrite, cached",
            Self::New(Blocks::Allocated) => "mapping, fresh, new",
            Self::New(Blocks::Written) => "mapping, cached, new",
            Self::Populated => "mapping, fresh, populated",
            Self::Locked => "mapping, fresh, locked",
            Self::Clean => "mapping, clean",
            Self::Dropped => "mapping, clean, dropped",
        }
    }

    fn measure(self, dir: &Path, len: u64, unit: usize) -> Result<Outcome> {
        let blocks = match self {
            Self::Call(blocks) | Self::New(blocks) => blocks,
            _ => Blocks::Allocated,
        };
        let begun = Instant::now();
        let file = TestFile::create(dir, "classic", len, blocks)?;
        if let Self::Call(_) = self {
            let preparing = begun.elapsed();
            let (bytes, cost) = cost::of(|| write_by_calls(&file, unit))?;
            return Ok(Outcome {
                bytes,
                cost,
                preparing,
                file_len: len,
            });
        }
        let (region, mut appender) = file.appender()?;
        self.prepare(&file, &region)?;
        let preparing = begun.elapsed();
        let (bytes, cost) = cost::of(|| Ok(write_mapped(&mut appender, unit)))?;
        drop((region, appender));
        await_unmapped()?;
        Ok(Outcome {
            bytes,
            cost,
            preparing,
            file_len: len,
        })
    }

    fn prepare(self, file: &TestFile, region: &AppendRegion) -> Result<()> {
        let (map, whole) = (region.map(), 0..region.len());
        match self {
            Self::Call(_) | Self::New(_) => {}
            Self::Populated => map.populate_write(whole)?,
            Self::Locked => map.lock(whole)?,
            Self::Clean | Self::Dropped => {
                map.populate_write(whole.clone())?;
                file.file().sync_data()?;
                if self == Self::Dropped {
                    map.advise(Advice::DontNeed, whole)?;
                }
            }
        }
        Ok(())
    }
}

fn write_by_calls(file: &TestFile, unit: usize) -> Result<u64> {
    let bytes = vec![b'x'; unit];
    // A system call is long beside a look at the clock, but for one in 64.
    let look_units = (LOOK_LEN / unit as u64).clamp(1, 64);
    let begun = Instant::now();
    let mut done = 0;
    while done < file.len() && begun.elapsed() < RUN_LIMIT {
        for _ in 0..look_units.min((file.len() - done) / unit as u64) {
            file.file().write_all_at(&bytes, done)?;
            done += unit as u64;
        }
    }
    Ok(done)
}

fn write_mapped(appender: &mut Appender, unit: usize) -> u64 {
    let bytes = vec![b'x'; unit];
    let look_units = (LOOK_LEN as usize / unit).max(1);
    let begun = Instant::now();
    while begun.elapsed() < RUN_LIMIT {
        for _ in 0..look_units {
            if appender.write(&[black_box(&bytes)]).is_none() {
                return appender.position() as u64;
            }
            appender.publish();
        }
    }
    appender.position() as u64
}

fn measure_reading(
    common: &Common,
    dir: &Path,
    len: u64,
    unit: usize,
    table: &mut Table,
) -> Result<()> {
    let file = TestFile::create(dir, "classic", len, Blocks::Written)?;
    for cold in [false, true] {
        let state = if cold { "cold" } else { "cached" };
        for way in ["pread", "mapping, new", "mapping, populated"] {
            let name = format!("{way}, {state}");
            // Populating a cold mapping is reading it.
            if !common.wants(&name) || (cold && way == "mapping, populated") {
                continue;
            }
            if cold {
                file.drop_cache()?;
            }
            let outcome = match way {
                "pread" => read_by_calls(&file, unit)?,
                _ => read_mapped(&file, unit, way == "mapping, populated")?,
            };
            outcome.add(table, unit, &name);
        }
    }
    Ok(())
}

fn read_by_calls(file: &TestFile, unit: usize) -> Result<Outcome> {
    let mut buf = vec![0; unit];
    let look_units = (LOOK_LEN / unit as u64).clamp(1, 64);
    let (mut done, mut total) = (0, 0_u64);
    let begun = Begun::now()?;
    let started = Instant::now();
    while done < file.len() && started.elapsed() < RUN_LIMIT {
        for _ in 0..look_units.min((file.len() - done) / unit as u64) {
            file.file().read_exact_at(&mut buf, done)?;
            total = total.wrapping_add(sum(&buf));
            done += unit as u64;
        }
    }
    let cost = begun.cost()?;
    black_box(total);
    Ok(Outcome {
        bytes: done,
        cost,
        preparing: Duration::ZERO,
        file_len: file.len(),
    })
}

fn read_mapped(file: &TestFile, unit: usize, populated: bool) -> Result<Outcome> {
    let region = file.region()?;
    let started = Instant::now();
    if populated {
        region.map().populate_read(0..region.len())?;
    }
    let preparing = started.elapsed();
    let (bytes, cost) = cost::of(|| Ok(sum_region(&region, unit)))?;
    drop(region);
    await_unmapped()?;
    Ok(Outcome {
        bytes,
        cost,
        preparing,
        file_len: file.len(),
    })
}

/// Reads a region by units; returns how many bytes it came to.
pub(super) fn sum_region(region: &AppendRegion, unit: usize) -> u64 {
    let look_units = (LOOK_LEN as usize / unit).max(1);
    let (mut done, mut total) = (0, 0_u64);
    let begun = Instant::now();
    'file: while begun.elapsed() < RUN_LIMIT {
        for _ in 0..look_units {
            let Some(bytes) = region.bytes(done..done + unit) else {
                break 'file;
            };
            total = total.wrapping_add(sum(black_box(bytes)));
            done += unit;
        }
    }
    black_box(total);
    done as u64
}

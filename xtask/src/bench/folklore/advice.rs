//! What each piece of advice does to a file that is not in the page cache.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use mmap_core::{Advice, AppendRegion, IoFile, OsMap, Random, RawMap};

use super::super::classic::sum_region;
use super::super::cost;
use super::super::files::{Blocks, TestFile, await_unmapped, sum};
use super::super::report::{Column, Common, Plot, Report, Table};
use super::{FAULTS, RATE};

const FILE_LEN: u64 = 256 << 20;
const RECORD_LEN: usize = 1 << 10;
const TOUCH_COUNT: usize = 100;

const CALL: Column = Column::median("the call itself, us");
const TOUCH: Column = Column::median("random record, p50 us");
const TOUCH_MEAN: Column = Column::median("random record, mean us");
const TOUCH_READ: Column = Column::median("read from the device for it, KiB");
const ANSWER: Column = Column::median("answer");

const ABOUT: &str = "A file of 256 MiB is dropped from the page cache, mapped anew, and advised; then \
100 records of 1 KiB at random places are read, each on a page of its own, or the whole file from \
front to back by units of 64 KiB. `dontneed` is given after a first reading: its rate is that of a \
second one, whose bytes are still in the page cache. `pread` is no mapping at all, for comparison.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Advice(Advice),
    PopulateRead,
    Pread,
}

const TOLD: [(&str, Told); 8] = [
    ("normal", Told::Advice(Advice::Normal)),
    ("random", Told::Advice(Advice::Random)),
    ("sequential", Told::Advice(Advice::Sequential)),
    ("willneed", Told::Advice(Advice::WillNeed)),
    ("hugepage", Told::Advice(Advice::HugePage)),
    ("dontneed", Told::Advice(Advice::DontNeed)),
    ("populate (read)", Told::PopulateRead),
    ("pread", Told::Pread),
];

pub(super) fn measure(common: &Common, dir: &Path, report: &mut Report) -> Result<()> {
    let mut table = Table::new("Advice", &["advice"]);
    let len = common.choose(FILE_LEN, 2 << 20);
    let file = TestFile::create(dir, "advice", len, Blocks::Written)?;
    for round in 0..common.rounds() {
        eprintln!("advice, round {}", round + 1);
        for (name, told) in TOLD.into_iter().filter(|(name, _)| common.wants(name)) {
            if told != Told::Advice(Advice::DontNeed) {
                touch(&file, name, told, &mut table)?;
            }
            scan(&file, name, told, &mut table)?;
        }
    }
    report.plot(
        Plot::bars(
            "advice-random",
            "A random record of a cold file, by advice",
            &table,
            TOUCH,
            0,
        )
        .log(),
    );
    report.plot(Plot::bars(
        "advice-scan",
        "A cold file from front to back, by advice",
        &table,
        RATE,
        0,
    ));
    report.table(table);
    report.text(ABOUT);
    Ok(())
}

/// Gives the advice; what the kernel answers goes into the table.
fn tell(map: &OsMap, name: &str, told: Told, table: &mut Table) -> Result<()> {
    let whole = 0..map.len();
    let started = Instant::now();
    let answer = match told {
        Told::Advice(advice) => map.advise(advice, whole),
        Told::PopulateRead => map.populate_read(whole),
        Told::Pread => return Ok(()),
    };
    table.add(&[name], CALL, started.elapsed().as_secs_f64() * 1e6);
    let text = match answer {
        Ok(()) => "taken".to_owned(),
        Err(error) => format!("refused: {}", error.kind()),
    };
    table.note(&[name], ANSWER, text);
    Ok(())
}

fn touch(file: &TestFile, name: &str, told: Told, table: &mut Table) -> Result<()> {
    file.drop_cache()?;
    let region = file.region()?;
    tell(region.map(), name, told, table)?;
    let before = cost::device_bytes_read()?;
    let mut times = Vec::with_capacity(TOUCH_COUNT);
    let mut random = Random::new(7);
    let mut found = 0_u64;
    for _ in 0..TOUCH_COUNT {
        let start = random.below(file.len() / 4096) * 4096;
        let begun = Instant::now();
        found = found.wrapping_add(read(file, &region, told, start)?);
        times.push(begun.elapsed());
    }
    std::hint::black_box(found);
    let read = cost::device_bytes_read()? - before;
    drop(region);
    await_unmapped()?;
    times.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let total: Duration = times.iter().sum();
    table.add(&[name], TOUCH, micros(times[TOUCH_COUNT / 2]));
    table.add(&[name], TOUCH_MEAN, micros(total) / TOUCH_COUNT as f64);
    table.add(
        &[name],
        TOUCH_READ,
        read as f64 / 1024.0 / TOUCH_COUNT as f64,
    );
    Ok(())
}

fn read(file: &TestFile, region: &AppendRegion, told: Told, start: u64) -> Result<u64> {
    if told == Told::Pread {
        let mut buf = [0; RECORD_LEN];
        file.file().read_exact_at(&mut buf, start)?;
        return Ok(sum(&buf));
    }
    let start = start as usize;
    Ok(sum(region
        .bytes(start..start + RECORD_LEN)
        .unwrap_or_default()))
}

fn scan(file: &TestFile, name: &str, told: Told, table: &mut Table) -> Result<()> {
    const UNIT: usize = 64 << 10;
    file.drop_cache()?;
    let region = file.region()?;
    let is_drop = told == Told::Advice(Advice::DontNeed);
    if is_drop {
        sum_region(&region, UNIT);
    }
    let (bytes, cost) = cost::of(|| {
        tell(region.map(), name, told, table)?;
        if told != Told::Pread {
            return Ok(sum_region(&region, UNIT));
        }
        let mut buf = vec![0; UNIT];
        for position in (0..file.len()).step_by(UNIT) {
            file.file().read_exact_at(&mut buf, position)?;
            std::hint::black_box(sum(&buf));
        }
        Ok(file.len())
    })?;
    drop(region);
    await_unmapped()?;
    let faults = (cost.minor_faults + cost.major_faults) as f64;
    table.add(&[name], RATE, cost.megabytes_per_second(bytes));
    table.add(
        &[name],
        FAULTS,
        faults * (1_u64 << 30) as f64 / bytes as f64,
    );
    Ok(())
}

//! Private mappings: what a store costs that never reaches the file.

use std::path::Path;

use anyhow::{Result, ensure};
use mmap_core::IoFile;

use super::super::cost;
use super::super::files::{Blocks, TestFile, await_unmapped};
use super::super::report::{Common, Report, Table};
use super::{FAULTS, RATE};

const FILE_LEN: u64 = 256 << 20;
const UNIT: usize = 4 << 10;
const WAYS: [&str; 3] = [
    "private, first store",
    "private, second store",
    "shared, first store",
];

const ABOUT: &str = "256 MiB by units of 4 KiB into a file that is in the page cache. The first store \
to a page of a private mapping copies the page into memory of the process, which nothing writes back; \
the file is looked at afterwards, and has not changed.";

pub(super) fn measure(common: &Common, dir: &Path, report: &mut Report) -> Result<()> {
    let mut table = Table::new("Private mappings", &["way"]);
    let len = common.choose(FILE_LEN, 2 << 20);
    let file = TestFile::create(dir, "private", len, Blocks::Written)?;
    for _ in 0..common.rounds() {
        if common.wants("private") {
            measure_round(&file, &mut table)?;
        }
    }
    report.table(table);
    report.text(ABOUT);
    Ok(())
}

fn measure_round(file: &TestFile, table: &mut Table) -> Result<()> {
    let bytes = [b'p'; UNIT];
    let mut private = file.file().map_private(0, file.len() as usize)?;
    for way in &WAYS[..2] {
        let ((), cost) = cost::of(|| {
            for position in (0..private.len()).step_by(UNIT) {
                private.write_at(position, &bytes)?;
            }
            Ok(())
        })?;
        add(table, way, file.len(), &cost);
    }
    drop(private);
    let mut found = [0; UNIT];
    file.file().read_exact_at(&mut found, file.len() / 2)?;
    ensure!(found != bytes, "a private store has reached the file");
    let (region, mut appender) = file.appender()?;
    let ((), cost) = cost::of(|| {
        while appender.write(&[&[b's'; UNIT]]).is_some() {
            appender.publish();
        }
        Ok(())
    })?;
    add(table, WAYS[2], file.len(), &cost);
    drop((region, appender));
    await_unmapped()?;
    Ok(file.file().sync_data()?)
}

fn add(table: &mut Table, way: &str, len: u64, cost: &cost::Cost) {
    let faults = (cost.minor_faults + cost.major_faults) as f64;
    table.add(&[way], RATE, cost.megabytes_per_second(len));
    table.add(&[way], FAULTS, faults * (1_u64 << 30) as f64 / len as f64);
}

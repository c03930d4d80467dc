//! What a piece of work costs this process: time, processor time, page faults.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// What was used up between two moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) elapsed: Duration,
    /// Of all threads, in the kernel and outside.
    pub(super) cpu: Duration,
    /// Page faults that needed no reading.
    pub(super) minor_faults: u64,
    /// Page faults that waited for the device.
    pub(super) major_faults: u64,
}

/// The moment when a piece of work began.
#[derive(Debug)]
pub(super) struct Begun {
    at: Instant,
    cpu: Duration,
    faults: (u64, u64),
}

impl Begun {
    /// Now.
    pub(super) fn now() -> Result<Self> {
        Ok(Self {
            faults: faults()?,
            cpu: process_cpu(),
            at: Instant::now(),
        })
    }

    /// What was used up since.
    pub(super) fn cost(&self) -> Result<Cost> {
        let elapsed = self.at.elapsed();
        let cpu = process_cpu().saturating_sub(self.cpu);
        let (minor, major) = faults()?;
        Ok(Cost {
            elapsed,
            cpu,
            minor_faults: minor - self.faults.0,
            major_faults: major - self.faults.1,
        })
    }
}

/// Does a piece of work, and says what it cost.
pub(super) fn of<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Cost)> {
    let begun = Begun::now()?;
    let result = work()?;
    Ok((result, begun.cost()?))
}

impl Cost {
    /// Megabytes (10^6 bytes) a second.
    pub(super) fn megabytes_per_second(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    /// Processor seconds for 10^9 bytes.
    pub(super) fn cpu_per_gigabyte(&self, bytes: u64) -> f64 {
        self.cpu.as_secs_f64() / (bytes as f64 / 1e9)
    }
}

fn process_cpu() -> Duration {
    read_clock(ClockId::ProcessCPUTime)
}

/// Processor time that this thread has used.
pub(super) fn thread_cpu() -> Duration {
    read_clock(ClockId::ThreadCPUTime)
}

fn read_clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Bytes that were read from devices for this process so far.
pub(super) fn device_bytes_read() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(line.context("/proc/self/io")?.trim().parse()?)
}

/// Minor and major faults so far.
fn faults() -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // The name in parentheses may hold spaces: count from behind it.
    let behind = stat.rsplit_once(')').context("/proc/self/stat")?.1;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    let field = |index: usize| -> Result<u64> {
        Ok(fields.get(index).context("/proc/self/stat")?.parse()?)
    };
    Ok((field(7)?, field(9)?))
}

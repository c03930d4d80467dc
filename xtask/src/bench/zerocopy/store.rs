//! From a file to a file, and from a socket to a file.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mmap_core::{Appender, IoFile};
use rustix::fs::{copy_file_range, sendfile};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::super::cost;
use super::super::files::{Blocks, TestFile, await_unmapped, size};
use super::super::report::{Common, Plot, Report, Table};
use super::{CPU, RATE};

const CHUNKS: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];

const TO_FILE: &str = "Both files are on one file system; the source is in the page cache, the \
target is allocated and was never written. `copy_file_range` shares blocks where the file system can \
(XFS, btrfs); ext4 copies through the page cache.";
const FROM_SOCKET: &str = "One connection, its sender in another thread, into an allocated file \
that was never written. `read into the mapping` has the kernel copy from the socket straight to \
where the bytes stay (`Appender::read_from`); `read + copy` is what a broker does that looks at a \
frame before it keeps the body; `splice` goes through a pipe of 1 MiB.";

/// Measures and reports both directions.
pub(super) fn measure(common: &Common, len: u64, report: &mut Report) -> Result<()> {
    let dir = common.scratch()?;
    let len = len / 4;
    let mut to_file = Table::new("File to file", &["chunk", "way"]);
    let mut from_socket = Table::new("Socket to file", &["chunk", "way"]);
    let source = TestFile::create(dir.path(), "source", len, Blocks::Written)?;
    for round in 0..common.rounds() {
        eprintln!("to files, round {}", round + 1);
        for chunk in CHUNKS {
            for way in ["read + write", "sendfile", "copy_file_range"] {
                if common.wants(way) {
                    let (elapsed, cpu) = copy(dir.path(), &source, chunk, way)?;
                    add(&mut to_file, &[&size(chunk), way], len, elapsed, cpu);
                }
            }
            for way in RECEIVING {
                if common.wants(way) {
                    let (elapsed, cpu) = receive(dir.path(), len, chunk as usize, way)?;
                    add(&mut from_socket, &[&size(chunk), way], len, elapsed, cpu);
                }
            }
        }
    }
    report.plot(Plot::bars(
        "to-file",
        "From a file to a file",
        &to_file,
        RATE,
        0,
    ));
    report.table(to_file);
    report.text(TO_FILE);
    report.plot(Plot::bars(
        "from-socket",
        "From a socket to a file",
        &from_socket,
        RATE,
        0,
    ));
    report.table(from_socket);
    report.text(FROM_SOCKET);
    Ok(())
}

fn add(table: &mut Table, labels: &[&str], len: u64, elapsed: Duration, cpu: Duration) {
    table.add(labels, RATE, len as f64 / 1e6 / elapsed.as_secs_f64());
    table.add(labels, CPU, cpu.as_secs_f64() / (len as f64 / 1e9));
}

/// Time and processor time of this thread.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<(Duration, Duration)> {
    let (started, cpu) = (Instant::now(), cost::thread_cpu());
    work()?;
    Ok((started.elapsed(), cost::thread_cpu().saturating_sub(cpu)))
}

fn copy(dir: &Path, source: &TestFile, chunk: u64, way: &str) -> Result<(Duration, Duration)> {
    let target = TestFile::create(dir, "target", source.len(), Blocks::Allocated)?;
    let (from, to) = (source.file(), target.file());
    let mut buf = vec![0; chunk as usize];
    timed(|| {
        let (mut read, mut written) = (0, 0);
        // `sendfile` writes at the target's cursor, which stands at its beginning.
        while written < source.len() {
            let len = chunk.min(source.len() - written) as usize;
            let copied = match way {
                "sendfile" => sendfile(&**to, &**from, Some(&mut read), len)?,
                "copy_file_range" => {
                    let mut position = written;
                    copy_file_range(&**from, Some(&mut read), &**to, Some(&mut position), len)?
                }
                _ => {
                    from.read_exact_at(&mut buf[..len], written)?;
                    to.write_all_at(&buf[..len], written)?;
                    len
                }
            };
            ensure!(copied > 0, "the source ended at {written}");
            written += copied as u64;
        }
        Ok(())
    })
}

const RECEIVING: [&str; 4] = [
    "read into the mapping",
    "read + copy",
    "read + pwrite",
    "splice",
];

fn receive(dir: &Path, len: u64, chunk: usize, way: &str) -> Result<(Duration, Duration)> {
    let target = TestFile::create(dir, "target", len, Blocks::Allocated)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;
    let spent = thread::scope(|scope| {
        let sending = scope.spawn(move || -> Result<()> {
            let bytes = vec![b'x'; 256 << 10];
            let mut rest = len as usize;
            while rest > 0 {
                let part = &bytes[..rest.min(bytes.len())];
                sender.write_all(part)?;
                rest -= part.len();
            }
            Ok(())
        });
        let spent = match way {
            "read into the mapping" | "read + copy" => {
                let (region, mut appender) = target.appender()?;
                let spent = timed(|| match way {
                    "read + copy" => read_and_copy(&socket, &mut appender, chunk),
                    _ => read_into(&socket, &mut appender, chunk),
                });
                drop((region, appender));
                spent
            }
            "splice" => timed(|| spliced(&socket, &target, chunk)),
            _ => timed(|| read_and_write(&socket, &target, chunk)),
        };
        // An error ends the connection, and with it the sender.
        drop(socket);
        let sent = sending.join();
        let sent = sent.map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let spent = spent?;
        sent.context("the sender")?;
        Ok::<_, anyhow::Error>(spent)
    })?;
    await_unmapped()?;
    Ok(spent)
}

fn read_into(socket: &TcpStream, appender: &mut Appender, chunk: usize) -> Result<()> {
    while appender.remaining() > 0 {
        let len = appender.read_from(socket, chunk)?;
        ensure!(len > 0, "the sender ended early");
        appender.publish();
    }
    Ok(())
}

fn read_and_copy(mut socket: &TcpStream, appender: &mut Appender, chunk: usize) -> Result<()> {
    let mut buf = vec![0; chunk];
    while appender.remaining() > 0 {
        let len = socket.read(&mut buf)?;
        ensure!(len > 0, "the sender ended early");
        appender
            .write(&[&buf[..len]])
            .context("more than was to be sent")?;
        appender.publish();
    }
    Ok(())
}

fn read_and_write(mut socket: &TcpStream, target: &TestFile, chunk: usize) -> Result<()> {
    let mut buf = vec![0; chunk];
    let mut written = 0;
    while written < target.len() {
        let len = socket.read(&mut buf)?;
        ensure!(len > 0, "the sender ended early");
        target.file().write_all_at(&buf[..len], written)?;
        written += len as u64;
    }
    Ok(())
}

fn spliced(socket: &TcpStream, target: &TestFile, chunk: usize) -> Result<()> {
    let (out, input): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&input, 1 << 20)?;
    let mut written = 0;
    while written < target.len() {
        let flags = SpliceFlags::MOVE;
        let mut held = splice(socket, None, &input, None, chunk, flags)?;
        ensure!(held > 0, "the sender ended early");
        while held > 0 {
            let moved = splice(
                &out,
                None,
                &**target.file(),
                Some(&mut written),
                held,
                flags,
            )?;
            held -= moved;
        }
    }
    Ok(())
}

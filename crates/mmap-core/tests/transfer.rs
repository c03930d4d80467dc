//! The ways from a file to a socket, over loopback.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::{ErrorKind, IoSlice, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use mmap_core::transfer::{
    FileRange, Follows, PIECE_COUNT_MAX, Way, send_copied, send_file_once, send_files,
    send_gathered, send_mapped, send_pieces_once,
};
use mmap_core::{Access, AppendRegion, Io, IoFile, MapSlice, OsFile, OsIo};

const FILE_LEN: u64 = 3 << 20;

/// Two files full of bytes that tell where they lie, and pieces of all sizes of both.
struct Files {
    _dir: tempfile::TempDir,
    content: Vec<Vec<u8>>,
    files: Vec<Arc<OsFile>>,
    maps: Vec<MapSlice>,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut content, mut files, mut maps) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..2_u64 {
            let path = dir.path().join(number.to_string());
            let file = OsIo.create(&path, FILE_LEN).unwrap();
            let bytes: Vec<u8> = (0..FILE_LEN)
                .map(|position| (position * (number + 7) / 13) as u8)
                .collect();
            file.write_all_at(&bytes, 0).unwrap();
            let map = file.map(0, FILE_LEN as usize, Access::ReadOnly).unwrap();
            let region = AppendRegion::read_only(map, FILE_LEN as usize);
            maps.push(region.slice(0..FILE_LEN as usize).unwrap());
            files.push(Arc::new(file));
            content.push(bytes);
        }
        Self {
            _dir: dir,
            content,
            files,
            maps,
        }
    }

    /// File, position and length of the pieces: more than one call takes, some of them empty.
    fn pieces() -> Vec<(usize, usize, usize)> {
        let small = (0..3 * PIECE_COUNT_MAX).map(|i| (i % 2, i * 1_003, (i * 37) % 2_000));
        let large = [(0, 1, (3 << 20) - 1), (1, 4_096, 1 << 20)];
        small.chain(large).collect()
    }

    fn expected(&self) -> Vec<u8> {
        let piece = |(file, start, len): (usize, usize, usize)| {
            self.content[file][start..start + len].to_vec()
        };
        Self::pieces().into_iter().flat_map(piece).collect()
    }

    fn ranges(&self) -> Vec<FileRange> {
        let range = |(file, start, len): (usize, usize, usize)| {
            FileRange::new(Arc::clone(&self.files[file]), start as u64, len as u64)
        };
        Self::pieces().into_iter().map(range).collect()
    }

    fn slices(&self) -> Vec<MapSlice> {
        let slice = |(file, start, len): (usize, usize, usize)| {
            self.maps[file].slice(start..start + len).unwrap()
        };
        Self::pieces().into_iter().map(slice).collect()
    }
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (sender, listener.accept().unwrap().0)
}

#[test]
fn all_ways_bring_the_same_bytes() {
    let files = Files::new();
    let expected = files.expected();
    for way in Way::ALL {
        let (sender, mut receiver) = sockets();
        let received = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            receiver.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let sent = match way {
            Way::Copy => send_copied(&sender, &files.ranges(), &mut [0; 10_000]),
            Way::SendFile => send_files(&sender, &files.ranges()),
            Way::Map => send_mapped(&sender, &files.slices()),
            Way::Gather => send_gathered(&sender, &files.slices()),
        };
        sender.shutdown(Shutdown::Write).unwrap();
        assert_eq!(sent.unwrap(), expected.len() as u64, "{way}");
        assert!(received.join().unwrap() == expected, "{way}");
        assert_eq!(way.name().parse(), Ok(way));
    }
    assert!("mmap".parse::<Way>().is_err());
}

#[test]
fn a_full_socket_takes_a_part_and_then_nothing() {
    let files = Files::new();
    let (sender, mut receiver) = sockets();
    sender.set_nonblocking(true).unwrap();
    let mut range = FileRange::new(Arc::clone(&files.files[0]), 5, FILE_LEN - 5);
    let mut sent = Vec::new();
    let head = send_pieces_once(&sender, &[IoSlice::new(b"head")], Follows::More).unwrap();
    sent.extend_from_slice(&b"head"[..head]);
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while !range.is_empty() {
        match send_file_once(&sender, &range) {
            Ok(count) => {
                let start = range.offset() as usize;
                sent.extend_from_slice(&files.content[0][start..start + count]);
                range.advance(count as u64);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                let count = receiver.read(&mut buffer).unwrap();
                received.extend_from_slice(&buffer[..count]);
            }
        }
    }
    drop(sender);
    receiver.read_to_end(&mut received).unwrap();
    assert!(received == sent);
    assert_eq!(sent.len() as u64, 4 + FILE_LEN - 5);
}

#[test]
fn a_range_outlives_the_files_name_and_notices_that_the_file_is_shorter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = Arc::new(OsIo.create(&path, 100).unwrap());
    file.write_all_at(b"bytes", 95).unwrap();
    let range = FileRange::new(Arc::clone(&file), 95, 5);
    OsIo.remove_file(&path).unwrap();
    let mut buffer = b"the ".to_vec();
    range.read_to(&mut buffer).unwrap();
    assert_eq!(buffer, b"the bytes");
    file.set_len(95).unwrap();
    assert!(range.read_to(&mut buffer).is_err());
    assert_eq!(buffer, b"the bytes", "left as it was");
    let (sender, _receiver) = sockets();
    let error = send_files(&sender, std::slice::from_ref(&range)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

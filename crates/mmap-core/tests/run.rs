//! A file system that was unmounted and mounted again is not in the run that it was in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "skips are loud")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mmap_core::{Io, OsIo};

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let command = command.args(arguments).stdout(Stdio::null());
    command
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn mount(image: &str, dir: &str) -> bool {
    succeeds("mount", &["-o", "loop", image, dir])
}

#[test]
fn a_remount_ends_the_run() {
    let work = tempfile::tempdir().unwrap();
    let (image, dir) = (work.path().join("image"), work.path().join("mounted"));
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    fs::create_dir(&dir).unwrap();
    let (image, dir) = (image.to_str().unwrap(), dir.to_str().unwrap());
    if !succeeds("mkfs.ext4", &["-q", "-F", image]) || !mount(image, dir) {
        eprintln!("skipped: no ext4 can be made and mounted here");
        return;
    }
    let store = Path::new(dir).join("store");
    let made = fs::create_dir(&store);
    let before = [OsIo.run_id(&[&store]), OsIo.run_id(&[&store])];
    let is_back = succeeds("umount", &[dir]) && mount(image, dir);
    let after = OsIo.run_id(&[&store]);
    let is_gone = succeeds("umount", &[dir]);
    made.unwrap();
    assert!(is_back && is_gone);
    assert!(before[0].is_some() && before[0] == before[1], "{before:?}");
    assert!(after.is_some() && after != before[0], "{after:?}");
}

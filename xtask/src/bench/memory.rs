//! Memory that is there when a measurement wants it.
//!
//! In a virtual machine with free page reporting, memory that was freed goes back to the host
//! within seconds, and touching it again takes 2 us a page: as long as a whole send. A machine that
//! has run for a while takes the pages of its log from those it wrote out earlier, which are there.

/// Touches `len` bytes and frees them at once, so that what the next program is given is there.
pub(super) fn bring_back(len: usize) {
    let mut memory: Vec<u8> = Vec::with_capacity(len);
    memory.resize(len, 1);
    std::hint::black_box(&memory);
}

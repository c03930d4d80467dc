//! Having the processor fetch from memory what will be looked at soon.
//!
//! # Safety
//! One deed, listed in docs/unsafe.md: **U10** passes the address of a byte to the processor's
//! prefetch instruction.
#![allow(unsafe_code)]

/// Has the processor begin to fetch the cache line of a byte, while the program goes on: for who
/// walks over places in a mapping that no hardware can guess. Nothing happens for a position behind
/// the end, and where the processor knows no such instruction.
#[inline(always)]
pub fn prefetch(bytes: &[u8], position: usize) {
    let Some(byte) = bytes.get(position) else {
        return;
    };
    fetch(byte);
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn fetch(byte: &u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let address = std::ptr::from_ref(byte).cast();
    // SAFETY: (U10) a prefetch reads nothing that the program sees and raises no fault.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline(always)]
fn fetch(byte: &u8) {
    let address = std::ptr::from_ref(byte);
    // SAFETY: (U10) a prefetch reads nothing that the program sees and raises no fault.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn fetch(_byte: &u8) {}

//! Big-endian integers at fixed places of small records.

pub(crate) fn u32_at<const LEN: usize>(bytes: &[u8; LEN], position: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[position..position + 4]);
    u32::from_be_bytes(field)
}

pub(crate) fn u64_at<const LEN: usize>(bytes: &[u8; LEN], position: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[position..position + 8]);
    u64::from_be_bytes(field)
}

pub(crate) fn put<const LEN: usize>(bytes: &mut [u8; LEN], position: usize, field: &[u8]) {
    bytes[position..position + field.len()].copy_from_slice(field);
}

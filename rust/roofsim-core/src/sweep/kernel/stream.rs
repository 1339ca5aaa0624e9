//! Stores past the caches: what is written once and not read soon costs half the memory traffic that way, because lines
//! are not fetched before they are overwritten.
//!
//! Such stores are not ordered with others: whoever makes them calls [`fence`] before anyone is told that they are done,
//! and not more often, because a fence waits for all of them while the next rows could be evaluated.

use super::Isa;
#[cfg(target_arch = "x86_64")]
use super::Set;

/// Numbers of one cache line.
pub(crate) const LINE: usize = 8;

/// Copies numbers of equal count, past the caches where the instruction set can: whole lines at once, so that no line is
/// written in two parts.
pub(crate) fn stream(isa: Isa, from: &[f64], to: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if isa.0 != Set::Baseline && from.len() == to.len() {
        // SAFETY: only `Isa::available` makes sets other than the baseline, having seen AVX2.
        return unsafe { stream_avx2(from, to) };
    }
    let _ = isa;
    to.copy_from_slice(from);
}

/// Sets flags to false, past the caches where the instruction set can.
pub(crate) fn clear(isa: Isa, flags: &mut [bool]) {
    #[cfg(target_arch = "x86_64")]
    if isa.0 != Set::Baseline {
        // SAFETY: as in `stream`.
        return unsafe { clear_avx2(flags) };
    }
    let _ = isa;
    flags.fill(false);
}

/// Waits until all stores are done that this thread made past the caches.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn stream_avx2(from: &[f64], to: &mut [f64]) {
    use std::arch::x86_64::{_mm256_loadu_pd, _mm256_stream_pd};

    let before = to.as_ptr().align_offset(LINE * size_of::<f64>()).min(to.len());
    let (head, body) = to.split_at_mut(before);
    let (from_head, from_body) = from.split_at(before);
    head.copy_from_slice(from_head);
    let (mut lines, mut from_lines) = (body.chunks_exact_mut(LINE), from_body.chunks_exact(LINE));
    for (line, values) in lines.by_ref().zip(from_lines.by_ref()) {
        let (line, values) = (line.as_mut_ptr(), values.as_ptr());
        // SAFETY: both chunks hold eight numbers, and `line` is aligned to the 64 bytes of eight numbers.
        unsafe {
            _mm256_stream_pd(line, _mm256_loadu_pd(values));
            _mm256_stream_pd(line.add(4), _mm256_loadu_pd(values.add(4)));
        }
    }
    lines.into_remainder().copy_from_slice(from_lines.remainder());
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn clear_avx2(flags: &mut [bool]) {
    use std::arch::x86_64::{__m256i, _mm256_setzero_si256, _mm256_stream_si256};

    const BYTES: usize = LINE * size_of::<f64>();
    let before = flags.as_ptr().align_offset(BYTES).min(flags.len());
    let (head, body) = flags.split_at_mut(before);
    head.fill(false);
    let mut lines = body.chunks_exact_mut(BYTES);
    for line in lines.by_ref() {
        #[expect(clippy::cast_ptr_alignment, reason = "aligned to 64 bytes, see below")]
        let line = line.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the chunk holds 64 flags of a byte each and is aligned to 64 bytes; all zeros are false.
        unsafe {
            _mm256_stream_si256(line, _mm256_setzero_si256());
            _mm256_stream_si256(line.add(1), _mm256_setzero_si256());
        }
    }
    lines.into_remainder().fill(false);
}

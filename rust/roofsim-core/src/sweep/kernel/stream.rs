//! Stores past the caches: what is written once and not read soon costs half the memory traffic that way, because lines
//! are not fetched before they are overwritten.

use super::{Isa, Set};

/// Copies numbers of equal count, past the caches where the instruction set can.
pub(crate) fn stream(isa: Isa, from: &[f64], to: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if isa.0 != Set::Baseline && from.len() == to.len() {
        // SAFETY: only `Isa::available` makes sets other than the baseline, having seen AVX2.
        return unsafe { avx2(from, to) };
    }
    let _ = isa;
    to.copy_from_slice(from);
}

/// Numbers of one cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 8;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(from: &[f64], to: &mut [f64]) {
    use std::arch::x86_64::{_mm_sfence, _mm256_loadu_pd, _mm256_stream_pd};

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
    // Such stores are not ordered with others: finish them before anyone is told that they are done.
    _mm_sfence();
}

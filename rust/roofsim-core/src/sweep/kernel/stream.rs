//! Stores past the caches: what is written once and not read soon costs half the memory traffic that way, because lines
//! are not fetched before they are overwritten.
//!
//! Only whole lines go past the caches. What stands before the first and behind the last whole line is stored as usual,
//! which is slow at the border of a line: callers begin at one where they can.
//!
//! Such stores are not ordered with others: whoever makes them calls [`fence`] before anyone is told that they are done,
//! and not more often, because a fence waits for all of them while the next rows could be evaluated.

use super::Isa;
#[cfg(target_arch = "x86_64")]
use super::Set;

/// Bytes of a cache line.
pub(crate) const LINE_BYTES: usize = 64;

/// Values of columns: numbers of 1, 4 or 8 bytes, all of which are theirs.
pub(crate) trait Word: Copy {
    /// The value over and over, in eight bytes.
    fn repeated(self) -> u64;
}

impl Word for f64 {
    fn repeated(self) -> u64 {
        self.to_bits()
    }
}

impl Word for u64 {
    fn repeated(self) -> u64 {
        self
    }
}

impl Word for u32 {
    fn repeated(self) -> u64 {
        u64::from(self) * 0x1_0000_0001
    }
}

impl Word for bool {
    fn repeated(self) -> u64 {
        u64::from(self) * 0x0101_0101_0101_0101
    }
}

/// How many values stand before the first whole line.
pub(crate) fn before_line<T: Word>(values: &[T]) -> usize {
    values.as_ptr().align_offset(LINE_BYTES).min(values.len())
}

/// Copies values of equal count, past the caches where the instruction set can.
pub(crate) fn stream<T: Word>(isa: Isa, from: &[T], to: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if isa.0 != Set::Baseline && from.len() == to.len() {
        // SAFETY: only `Isa::available` makes sets other than the baseline, having seen AVX2.
        return unsafe { stream_avx2(from, to) };
    }
    let _ = isa;
    to.copy_from_slice(from);
}

/// Repeats a value, past the caches where the instruction set can.
pub(crate) fn repeat<T: Word>(isa: Isa, value: T, to: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if isa.0 != Set::Baseline {
        // SAFETY: as in `stream`.
        return unsafe { repeat_avx2(value, to) };
    }
    let _ = isa;
    to.fill(value);
}

/// Waits until all stores are done that this thread made past the caches.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Stores a line past the caches.
///
/// # Safety
/// `line` must be aligned to [`LINE_BYTES`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn store_line(values: &[f64; 8], line: &mut [f64; 8]) {
    use std::arch::x86_64::{_mm256_loadu_pd, _mm256_stream_pd};

    let (values, line) = (values.as_ptr(), line.as_mut_ptr());
    // SAFETY: both hold eight numbers, and the line is aligned.
    unsafe {
        _mm256_stream_pd(line, _mm256_loadu_pd(values));
        _mm256_stream_pd(line.add(4), _mm256_loadu_pd(values.add(4)));
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn stream_avx2<T: Word>(from: &[T], to: &mut [T]) {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_stream_si256};

    let before = before_line(to);
    let (head, body) = to.split_at_mut(before);
    let (from_head, from_body) = from.split_at(before);
    head.copy_from_slice(from_head);
    let of_line = LINE_BYTES / size_of::<T>();
    let (mut lines, mut from_lines) = (body.chunks_exact_mut(of_line), from_body.chunks_exact(of_line));
    for (line, values) in lines.by_ref().zip(from_lines.by_ref()) {
        let (line, values) = (line.as_mut_ptr().cast::<__m256i>(), values.as_ptr().cast::<__m256i>());
        // SAFETY: both chunks hold the 64 bytes of a line, and `line` is aligned to it.
        unsafe {
            _mm256_stream_si256(line, _mm256_loadu_si256(values));
            _mm256_stream_si256(line.add(1), _mm256_loadu_si256(values.add(1)));
        }
    }
    lines.into_remainder().copy_from_slice(from_lines.remainder());
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn repeat_avx2<T: Word>(value: T, to: &mut [T]) {
    use std::arch::x86_64::{__m256i, _mm256_set1_epi64x, _mm256_stream_si256};

    let (head, body) = to.split_at_mut(before_line(to));
    head.fill(value);
    let values = _mm256_set1_epi64x(value.repeated().cast_signed());
    let mut lines = body.chunks_exact_mut(LINE_BYTES / size_of::<T>());
    for line in lines.by_ref() {
        let line = line.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the chunk holds the 64 bytes of a line and is aligned to it; whatever the bytes of a value, repeating
        // them makes values of its type.
        unsafe {
            _mm256_stream_si256(line, values);
            _mm256_stream_si256(line.add(1), values);
        }
    }
    lines.into_remainder().fill(value);
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::{Word, repeat, stream};

    fn check<T: Word + Default + PartialEq + std::fmt::Debug>(values: &[T]) {
        for isa in Isa::available() {
            // Any start within a line, any end.
            for start in 0..70 {
                for len in [0, 1, 7, 64, 200, values.len() - start] {
                    let from = &values[start..start + len];
                    let mut copied = vec![T::default(); start + len + 1];
                    stream(isa, from, &mut copied[start..start + len]);
                    assert_eq!(&copied[start..start + len], from);
                    assert_eq!(copied[start + len], T::default());
                    repeat(isa, values[3], &mut copied[start..start + len]);
                    assert!(copied[start..start + len].iter().all(|x| *x == values[3]));
                    assert_eq!(copied[start + len], T::default());
                }
            }
        }
    }

    #[test]
    fn every_value_comes_to_its_place() {
        check(&(0..400).map(|x| f64::from(x) + 0.5).collect::<Vec<_>>());
        check(&(1..401_u64).collect::<Vec<_>>());
        check(&(1..401_u32).collect::<Vec<_>>());
        check(&(0..400).map(|x| x % 3 == 0).collect::<Vec<_>>());
    }
}

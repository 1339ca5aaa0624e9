//! Columns that follow from the time of a row: multiples of it and numbers over it, stored where they go.
//!
//! Several divisions by the same numbers cost as much as one, with the bits of each division. With `y = 1/x` rounded to
//! nearest and `q` one of the two floats around `a/x`, `q + y (a - q x)` is `a/x` rounded to nearest, where the residual is
//! taken by a fused multiply-add, which is exact then (P. Markstein, "Computation of elementary functions on the IBM RISC
//! System/6000 processor", 1990; Muller et al., Handbook of Floating-Point Arithmetic, section 4.7). The first guess `a y`
//! may be two floats off; a first correction brings it to one of the two.

use super::{Isa, divide};
#[cfg(target_arch = "x86_64")]
use super::{Set, stream};

/// Beyond 2^-256 to 2^256 residuals could leave the range of normal numbers, and scaling by a power of two could round.
#[cfg(target_arch = "x86_64")]
const LEAST_BITS: u64 = (1023 - 256) << 52;
/// What the bits of a number in the range have less than this many bits above the least: 2^9 exponents.
#[cfg(target_arch = "x86_64")]
const RANGE_BITS: u32 = 52 + 9;

/// How a column follows from time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FromTime {
    /// It is the time.
    Itself,
    /// `factor x time`.
    Times(f64),
    /// `numerator / time / divisor`.
    Over {
        /// What is divided.
        numerator: f64,
        /// What divides the quotient.
        divisor: f64,
    },
}

/// `out = 1 / time`; whether it may serve [`from_time`].
pub(crate) fn invert(isa: Isa, time: &[f64], out: &mut [f64]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if isa.0 != Set::Baseline {
        // SAFETY: only `Isa::available` makes sets other than the baseline, having seen AVX2.
        return unsafe { invert_avx2(time, out) };
    }
    let _ = (isa, time, out);
    false
}

/// Stores a column, past the caches if `streams` says so. `inverse` is that of every time, from which quotients follow
/// without a division.
pub(crate) fn from_time(
    isa: Isa,
    column: FromTime,
    (time, inverse): (&[f64], Option<&[f64]>),
    streams: bool,
    out: &mut [f64],
) {
    #[cfg(target_arch = "x86_64")]
    if isa.0 != Set::Baseline {
        // SAFETY: only `Isa::available` makes sets other than the baseline, having seen AVX2 and FMA.
        return unsafe { from_time_avx2(isa, column, (time, inverse), streams, out) };
    }
    let _ = (inverse, streams);
    match column {
        FromTime::Itself => out.copy_from_slice(time),
        FromTime::Times(factor) => out.iter_mut().zip(time).for_each(|(x, t)| *x = factor * t),
        FromTime::Over { numerator, divisor } => divide(isa, numerator, time, divisor, out),
    }
}

/// The quotient `a / x` from `y = 1 / x`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn by_inverse(a: f64, x: f64, y: f64) -> f64 {
    let guess = a * y;
    let near = (-guess).mul_add(x, a).mul_add(y, guess);
    (-near).mul_add(x, a).mul_add(y, near)
}

/// Bits above [`RANGE_BITS`] where a number is not in the range: the bits of positive floats sort as they do.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
const fn above_least(x: f64) -> u64 {
    x.to_bits().wrapping_sub(LEAST_BITS)
}

#[cfg(target_arch = "x86_64")]
const fn within(a: f64) -> bool {
    above_least(a) >> RANGE_BITS == 0
}

/// Numbers of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 8;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn invert_avx2(time: &[f64], out: &mut [f64]) -> bool {
    let mut above = 0;
    for (out, &x) in out.iter_mut().zip(time) {
        *out = 1.0 / x;
        above |= above_least(x);
    }
    above >> RANGE_BITS == 0
}

/// Stores the value of an expression of a time and its inverse for each row, whole lines of it past the caches. Not a
/// function of a closure: that would not be compiled for the instruction set of its caller.
#[cfg(target_arch = "x86_64")]
macro_rules! store_each {
    ($rows:expr, $streams:expr, $out:ident, ($t:ident, $y:ident) => $value:expr) => {{
        let (time, inverse): (&[f64], &[f64]) = $rows;
        let n = $out.len();
        let before = if $streams { stream::before_line($out) } else { n };
        let (time_before, time) = time[..n].split_at(before);
        let (inverse_before, inverse) = inverse[..n].split_at(before);
        let (out_before, out) = $out.split_at_mut(before);
        for ((out, &$t), &$y) in out_before.iter_mut().zip(time_before).zip(inverse_before) {
            *out = $value;
        }
        let (lines, rest) = out.as_chunks_mut::<LINE>();
        let ((times, time_rest), (inverses, inverse_rest)) = (time.as_chunks::<LINE>(), inverse.as_chunks::<LINE>());
        for ((line, time), inverse) in lines.iter_mut().zip(times).zip(inverses) {
            let mut values = [0.0; LINE];
            for j in 0..LINE {
                let ($t, $y) = (time[j], inverse[j]);
                values[j] = $value;
            }
            // SAFETY: lines are counted from the first that is aligned.
            unsafe { stream::store_line(&values, line) };
        }
        for ((out, &$t), &$y) in rest.iter_mut().zip(time_rest).zip(inverse_rest) {
            *out = $value;
        }
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn from_time_avx2(
    isa: Isa,
    column: FromTime,
    (time, inverse): (&[f64], Option<&[f64]>),
    streams: bool,
    out: &mut [f64],
) {
    let (numerator, divisor) = match column {
        FromTime::Itself if streams => return stream::stream(isa, time, out),
        FromTime::Itself => return out.copy_from_slice(time),
        FromTime::Times(factor) => return store_each!((time, time), streams, out, (t, _t) => factor * t),
        FromTime::Over { numerator, divisor } => (numerator, divisor),
    };
    let checked = within(numerator) && within(divisor);
    // Dividing by a power of two is exact, and may come first.
    let scaled = numerator / divisor;
    let is_scaled = checked && divisor.to_bits().trailing_zeros() >= 52 && within(scaled);
    match inverse.filter(|_| checked) {
        Some(inverse) if is_scaled && scaled == 1.0 => {
            if streams {
                stream::stream(isa, inverse, out);
            } else {
                out.copy_from_slice(inverse);
            }
        }
        Some(inverse) if is_scaled => {
            store_each!((time, inverse), streams, out, (t, y) => by_inverse(scaled, t, y));
        }
        Some(inverse) => {
            let of_divisor = 1.0 / divisor;
            store_each!((time, inverse), streams, out, (t, y) => {
                by_inverse(by_inverse(numerator, t, y), divisor, of_divisor)
            });
        }
        None if divisor == 1.0 => store_each!((time, time), streams, out, (t, _t) => numerator / t),
        // So is multiplying by its inverse.
        None if is_scaled => {
            let of_divisor = 1.0 / divisor;
            store_each!((time, time), streams, out, (t, _t) => numerator / t * of_divisor);
        }
        None => store_each!((time, time), streams, out, (t, _t) => numerator / t / divisor),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, divide};
    use super::{FromTime, from_time, invert};

    /// A linear congruential generator: any bits will do.
    fn next(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Any fraction, exponents from 2^-63 to 2^64.
        f64::from_bits((*state >> 12) | (960 + (*state >> 3) % 128) << 52)
    }

    #[test]
    fn the_bits_are_those_of_the_divisions() {
        let mut state = 1;
        for round in 0..4000 {
            let (numerator, fraction) = (next(&mut state), next(&mut state));
            let divisor = [1.0, 8.0, 3.0, 6.0, 1024.0, fraction][round % 6];
            let mut x: Vec<f64> = (0..67).map(|_| next(&mut state)).collect();
            // Fractions of all ones and all zeros are the hard cases.
            x[3] = f64::from_bits(numerator.to_bits() | ((1 << 52) - 1));
            x[4] = f64::from_bits(numerator.to_bits().wrapping_sub(1));
            x[5] = numerator;
            if round % 100 == 0 {
                x[6] = [0.0, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX][round / 100 % 4];
            }
            let numerator = if round % 7 == 0 { divisor } else { numerator };
            let mut wanted = vec![0.0; x.len()];
            divide(Isa::BASELINE, numerator, &x, divisor, &mut wanted);
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            for isa in Isa::available() {
                let mut inverse = vec![0.0; x.len()];
                let inverse = invert(isa, &x, &mut inverse).then_some(&*inverse);
                assert!(inverse.is_none() || round % 100 != 0, "outside of the range");
                for (inverse, streams) in [(inverse, false), (inverse, true), (None, true)] {
                    let mut found = vec![0.0; x.len()];
                    let column = FromTime::Over { numerator, divisor };
                    from_time(isa, column, (&x, inverse), streams, &mut found);
                    assert_eq!(bits(&found), bits(&wanted), "{numerator} / {x:?} / {divisor} on {}", isa.name());
                }
            }
        }
    }

    #[test]
    fn multiples_are_products() {
        let x: Vec<f64> = (1..100).map(f64::from).collect();
        for isa in Isa::available() {
            for streams in [false, true] {
                let mut out = vec![0.0; x.len()];
                from_time(isa, FromTime::Itself, (&x, None), streams, &mut out);
                assert_eq!(out, x);
                from_time(isa, FromTime::Times(0.1), (&x, None), streams, &mut out);
                assert!(out.iter().zip(&x).all(|(out, x)| *out == 0.1 * x));
            }
        }
    }
}

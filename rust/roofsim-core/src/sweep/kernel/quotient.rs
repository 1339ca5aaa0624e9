//! Several divisions by the same numbers for the price of one, with the bits of each division.
//!
//! With `y = 1/x` rounded to nearest and `q` one of the two floats around `a/x`, `q + y (a - q x)` is `a/x` rounded to
//! nearest, where the residual is taken by a fused multiply-add, which is exact then (P. Markstein, "Computation of
//! elementary functions on the IBM RISC System/6000 processor", 1990; Muller et al., Handbook of Floating-Point
//! Arithmetic, section 4.7). The first guess `a y` may be two floats off; a first correction brings it to one of the two.

use super::{Isa, divide};

/// Beyond these, residuals could leave the range of normal numbers.
#[cfg(target_arch = "x86_64")]
const LEAST: f64 = 1.0 / MOST;
/// 2^400.
#[cfg(target_arch = "x86_64")]
const MOST: f64 = f64::from_bits((1023 + 400) << 52);

/// `out = numerator / x / divisor`, given `inverse = 1 / x`: the bits of the two divisions.
pub(crate) fn quotient(isa: Isa, numerator: f64, x: &[f64], inverse: &[f64], divisor: f64, out: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    {
        let within = |a: f64| (LEAST..=MOST).contains(&a);
        // SAFETY: only `Isa::available` makes sets other than the baseline, having seen AVX2 and FMA.
        if isa.0 != super::Set::Baseline
            && within(numerator)
            && within(divisor)
            && unsafe { corrected(numerator, x, inverse, divisor, out) }
        {
            return;
        }
    }
    let _ = inverse;
    divide(isa, numerator, x, divisor, out);
}

/// The quotient `a / x` from `y = 1 / x`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn by_inverse(a: f64, x: f64, y: f64) -> f64 {
    let guess = a * y;
    let near = (-guess).mul_add(x, a).mul_add(y, guess);
    (-near).mul_add(x, a).mul_add(y, near)
}

/// 1 where a number is not from `LEAST` to `MOST`: the bits of positive floats sort as they do.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
const fn outside_of_range(x: f64) -> u64 {
    (x.to_bits().wrapping_sub(LEAST.to_bits()) > MOST.to_bits() - LEAST.to_bits()) as u64
}

/// Whether every `x` was in the range in which the result holds.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn corrected(numerator: f64, x: &[f64], inverse: &[f64], divisor: f64, out: &mut [f64]) -> bool {
    let mut outside = 0;
    let of_divisor = 1.0 / divisor;
    let rows = out.iter_mut().zip(x).zip(inverse);
    // Dividing by a power of two is exact, and so is multiplying by its inverse.
    if divisor.to_bits().trailing_zeros() >= 52 {
        for ((out, &x), &y) in rows {
            *out = by_inverse(numerator, x, y) * of_divisor;
            outside |= outside_of_range(x);
        }
    } else {
        for ((out, &x), &y) in rows {
            *out = by_inverse(by_inverse(numerator, x, y), divisor, of_divisor);
            outside |= outside_of_range(x);
        }
    }
    outside == 0
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, divide};
    use super::quotient;

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
            let mut wanted = vec![0.0; x.len()];
            divide(Isa::BASELINE, numerator, &x, divisor, &mut wanted);
            for isa in Isa::available() {
                let (mut inverse, mut found) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                divide(isa, 1.0, &x, 1.0, &mut inverse);
                quotient(isa, numerator, &x, &inverse, divisor, &mut found);
                let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found), bits(&wanted), "{} / {x:?} / {divisor} on {}", numerator, isa.name());
            }
        }
    }
}

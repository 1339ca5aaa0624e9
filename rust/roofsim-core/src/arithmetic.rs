//! Comparisons and reciprocals that every path shares, so that every path gives the same bits.

/// The larger of two numbers that are not NaN: one instruction, where `f64::max` needs three for its NaN rule.
#[inline(always)]
pub const fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// The smaller of two numbers that are not NaN.
#[inline(always)]
pub const fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// `1 / x`, rounded up, so that `y * reciprocal(x)` is never below `y / x` and a bound stays a bound.
pub fn reciprocal(x: f64) -> f64 {
    let r = 1.0 / x;
    if r.mul_add(x, -1.0) < 0.0 { r.next_up() } else { r }
}

/// As `as`. Counts of a request nearly always fit 63 bits, and those convert in one instruction.
#[inline]
pub fn float(n: u128) -> f64 {
    i64::try_from(n).map_or_else(|_| n as f64, |n| n as f64)
}

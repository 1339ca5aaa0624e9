//! The loops of the sweep, each compiled for several instruction sets from one body and chosen once at run time.
//!
//! Bodies are plain slice loops without fused multiply-add, so that every instruction set gives the same bits. Fused
//! multiply-add serves in [`from_time`] alone, whose result is that of a division to the last bit. The only `unsafe` of
//! the crate is here: the call into a copy whose instructions were seen to exist, and stores past the caches.

#![expect(
    unsafe_code,
    reason = "calling functions compiled for an instruction set that was detected, and their stores"
)]

mod body;
mod parts;
mod quotient;
mod stream;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::ops::attention::KernelLaw;
use crate::step::RowOp;

pub use body::{BLOCK, LoadTable, Mask, Test};
pub(crate) use quotient::{FromTime, from_time, invert};
pub(crate) use stream::{LINE_BYTES, Word, before_line, fence, repeat, stream};

/// An instruction set that the loops were compiled for and this machine has: others cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Set {
    /// What the target guarantees.
    Baseline,
    /// AVX2 and FMA (x86-64-v3).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// What the target guarantees.
    pub const BASELINE: Self = Self(Set::Baseline);

    /// The widest one this machine has.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::BASELINE)
    }

    /// All that this machine has, narrowest first.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = std::is_x86_feature_detected!("avx512f")
                && std::is_x86_feature_detected!("avx512vl")
                && std::is_x86_feature_detected!("avx512dq")
                && std::is_x86_feature_detected!("avx512bw");
            Self::with(std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"), wide)
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::BASELINE]
    }

    /// Those of a machine that has these features, narrowest first; only `available` may ask for them.
    #[cfg(target_arch = "x86_64")]
    fn with(avx2: bool, avx512: bool) -> Vec<Self> {
        let wider = [avx2.then_some(Set::Avx2), (avx2 && avx512).then_some(Set::Avx512)];
        std::iter::once(Self::BASELINE).chain(wider.into_iter().flatten().map(Self)).collect()
    }

    /// One that this machine has, by name.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let known = Self::available();
        known.iter().find(|isa| isa.name() == text.trim()).copied().ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|isa| isa.name()).collect();
            Error::spec(field, text, format!("this machine has {}", names.join(", ")))
        })
    }

    /// The name used in results.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Set::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }
}

/// For each body one dispatcher and its copies.
macro_rules! dispatch {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $name(isa: Isa, $($argument: $type),*) $(-> $result)? {
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx2")]
                    fn avx2($($argument: $type),*) $(-> $result)? {
                        body::$name($($argument),*)
                    }
                    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                    fn avx512($($argument: $type),*) $(-> $result)? {
                        body::$name($($argument),*)
                    }
                    match isa.0 {
                        // SAFETY: only `available` makes this one, having seen the features.
                        Set::Avx512 => return unsafe { avx512($($argument),*) },
                        // SAFETY: only `available` makes this one, having seen the feature.
                        Set::Avx2 => return unsafe { avx2($($argument),*) },
                        Set::Baseline => {}
                    }
                }
                let _ = isa;
                body::$name($($argument),*)
            }
        )*
    };
}

dispatch! {
    /// Adds `count` times the attention time of `batch` requests to each row, or to `start` where the rows begin alike.
    /// `loads` is a table and the position of the first row in it.
    fn add_attention(
        law: &KernelLaw, count: f64, batch: f64, loads: (&LoadTable, usize), start: Option<f64>, time: &mut [f64]
    );
    /// For each batch size adds `count` times the least attention time of at most [`BLOCK`] rows of a table. Times of
    /// single rows are evaluated and compared, but not kept.
    fn add_least_attention(
        law: &KernelLaw, count: f64, batches: &[f64], loads: (&LoadTable, Range<usize>), earliest: &mut [f64]
    );
    /// Adds `count` times the compute, memory and overhead time of `batch` requests to each row's. `loads` is as above.
    fn add_parts(law: &KernelLaw, count: f64, batch: f64, loads: (&LoadTable, usize), parts: [&mut [f64]; 3]);
    /// `out = numerator / x / divisor`.
    fn divide(numerator: f64, x: &[f64], divisor: f64, out: &mut [f64]);
    /// Clears the mask where `x` fails a test against `value`.
    fn keep(x: &[f64], test: Test, value: f64, mask: &mut [Mask]);
    /// Clears the mask where `x` differs from `value` (or equals it, with `wanted` false).
    fn keep_equal(x: &[f64], value: f64, wanted: bool, mask: &mut [Mask]);
    /// Least time.
    fn earliest(time: &[f64]) -> f64;
    /// Least `sign x value` over the kept rows; infinity without any.
    fn least(value: &[f64], sign: f64, mask: &[Mask]) -> f64;
    /// Whether no number is below the one before it, or is no number.
    fn rises(x: &[f64]) -> bool;
    /// Whether all codes are equal.
    fn alike(codes: &[u32]) -> bool;
    /// Counts as integers, 0 where there is none.
    fn counts(x: &[f64], out: &mut [u64]);
    /// Codes as integers, 0 where there is none.
    fn codes(x: &[f64], out: &mut [u32]);
    /// Codes of the largest of compute, memory, network and overhead time.
    fn bounds(parts: [&[f64]; 4], out: &mut [u32]);
    /// Times of an operation for many row counts.
    fn row_times(op: &RowOp, rows: &[f64], out: &mut [f64]);
    /// `out += count x`.
    fn accumulate(count: f64, x: &[f64], out: &mut [f64]);
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::Isa;

    #[test]
    fn the_widest_set_that_a_machine_has_is_chosen() {
        let names = |avx2, avx512| Isa::with(avx2, avx512).iter().map(|isa| isa.name()).collect::<Vec<_>>();
        assert_eq!(names(false, false), ["baseline"]);
        assert_eq!(names(false, true), ["baseline"]);
        assert_eq!(names(true, false), ["baseline", "avx2"]);
        assert_eq!(names(true, true), ["baseline", "avx2", "avx512"]);
        assert_eq!(Some(&Isa::detect()), Isa::available().last());
    }
}

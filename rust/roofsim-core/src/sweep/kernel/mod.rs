//! The loops of the sweep, each compiled for several instruction sets from one body and chosen once at run time.
//!
//! Bodies are plain slice loops without fused multiply-add, so that every instruction set gives the same bits. The only
//! `unsafe` of the crate is the call into a copy whose instructions were seen to exist.

#![expect(unsafe_code, reason = "calling a function compiled for an instruction set that was detected")]

mod body;

use crate::ops::GemmOp;
use crate::ops::attention::KernelLaw;

pub use body::{BLOCK, LoadTable, Mask, Test};

/// An instruction set that the loops were compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// What the target guarantees.
    Baseline,
    /// AVX2 (x86-64-v3).
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
}

impl Isa {
    /// The widest one this machine has.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Baseline)
    }

    /// All that this machine has, narrowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "only x86-64 has more than the baseline")]
        let mut known = vec![Self::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") {
                known.push(Self::Avx2);
                let wide = std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512bw");
                if wide {
                    known.push(Self::Avx512);
                }
            }
        }
        known
    }

    /// The name used in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
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
                    match isa {
                        // SAFETY: `Isa::Avx512` is only made by `available`, which saw the features.
                        Isa::Avx512 => return unsafe { avx512($($argument),*) },
                        // SAFETY: `Isa::Avx2` is only made by `available`, which saw the feature.
                        Isa::Avx2 => return unsafe { avx2($($argument),*) },
                        Isa::Baseline => {}
                    }
                }
                let _ = isa;
                body::$name($($argument),*)
            }
        )*
    };
}

dispatch! {
    /// Adds `count` times the attention time of `batch` requests to each row.
    fn add_attention(law: &KernelLaw, count: f64, batch: f64, table: &LoadTable, first: usize, time: &mut [f64]);
    /// `out = numerator / x`.
    fn divide(numerator: f64, x: &[f64], out: &mut [f64]);
    /// Clears the mask where `x` fails a test against `value`.
    fn keep(x: &[f64], test: Test, value: f64, mask: &mut [Mask]);
    /// Clears the mask where `x` differs from `value` (or equals it, with `wanted` false).
    fn keep_equal(x: &[f64], value: f64, wanted: bool, mask: &mut [Mask]);
    /// Whether any kept row has `sign x value <= threshold`.
    fn any_within(value: &[f64], sign: f64, threshold: f64, mask: &[Mask]) -> bool;
    /// Whether any time is at most `latest`.
    fn any_until(time: &[f64], latest: f64) -> bool;
    /// Least time.
    fn earliest(time: &[f64]) -> f64;
    /// Least `sign x value` over the kept rows; infinity without any.
    fn least(value: &[f64], sign: f64, mask: &[Mask]) -> f64;
    /// Times of a GEMM for many row counts.
    fn gemm_times(op: &GemmOp, rows: &[f64], out: &mut [f64]);
    /// `out += count x`.
    fn accumulate(count: f64, x: &[f64], out: &mut [f64]);
}
